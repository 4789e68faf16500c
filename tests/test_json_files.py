"""A file of ours is complete or as it was, and what a killed writer left does not stay."""

import fcntl
import os
import subprocess
import sys

import pytest

from jaxmlm import json_files
from jaxmlm.json_files import read_json, write_json
from tests.tpu_scripts.scenarios import wait_until

SLOW_WRITER = """
import os, sys, time
from pathlib import Path
from jaxmlm.json_files import write_json

os.replace = lambda *paths: time.sleep(600)
write_json(Path(sys.argv[1]), {"step": 2})
"""


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"step": 1})
    with subprocess.Popen([sys.executable, "-c", SLOW_WRITER, path]) as writer:
        left = tmp_path / f"run.json.{writer.pid}.new"
        wait_until(lambda: left.exists() and left.stat().st_size)
        write_json(path, {"step": 3})  # while the other writes
        assert left.exists() and read_json(path) == {"step": 3}
        writer.kill()
    write_json(path, {"step": 4})
    assert os.listdir(tmp_path) == ["run.json"] and read_json(path) == {"step": 4}


def test_a_file_system_without_locks_is_written_and_nothing_removed(tmp_path, monkeypatch):
    def none(*_):
        raise OSError("not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "run.json.1.new").write_text("{}")
    (tmp_path / "other.json.1.new").write_text("{}")
    write_json(tmp_path / "run.json", {"step": 1})
    assert len(os.listdir(tmp_path)) == 3 and read_json(tmp_path / "run.json") == {"step": 1}


def test_a_write_that_fails_leaves_the_file_and_nothing_beside_it(tmp_path, monkeypatch):
    write_json(tmp_path / "run.json", {"step": 1})

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(json_files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(tmp_path / "run.json", {"step": 2})
    assert os.listdir(tmp_path) == ["run.json"] and read_json(tmp_path / "run.json") == {"step": 1}
