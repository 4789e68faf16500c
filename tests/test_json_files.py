"""A file of ours is complete or as it was."""

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


def test_a_killed_writer_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"step": 1})
    with subprocess.Popen([sys.executable, "-c", SLOW_WRITER, path]) as writer:
        aside = tmp_path / f"run.json.{writer.pid}.new"
        wait_until(lambda: aside.exists() and aside.stat().st_size)
        write_json(path, {"step": 1})
        assert aside.exists()  # of a living process
        writer.kill()
    assert read_json(path) == {"step": 1}
    write_json(path, {"step": 3})
    assert read_json(path) == {"step": 3}
    assert os.listdir(tmp_path) == ["run.json"]


def test_files_that_only_look_like_leftovers_are_kept(tmp_path):
    (tmp_path / "run.json.old.new").touch()
    (tmp_path / f"run.json.{'9' * 40}.new").touch()
    (tmp_path / "other.json.1.new").touch()
    write_json(tmp_path / "run.json", {"step": 1})
    assert len(os.listdir(tmp_path)) == 4


def test_a_write_that_fails_leaves_the_file_and_nothing_beside_it(tmp_path, monkeypatch):
    write_json(tmp_path / "run.json", {"step": 1})

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(json_files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(tmp_path / "run.json", {"step": 2})
    assert os.listdir(tmp_path) == ["run.json"] and read_json(tmp_path / "run.json") == {"step": 1}
