"""A file of ours is complete or as it was."""

import os
import socket
import subprocess
import sys

import pytest

from jaxmlm import json_files
from jaxmlm.json_files import read_json, write_json
from tests.tpu_scripts.scenarios import wait_until

DEAD = (1 << 22) + 1
"""A number that no process of Linux has."""
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
        wait_until(lambda: any(aside.stat().st_size for aside in tmp_path.glob("*.new")))
        (aside,) = tmp_path.glob(f"run.json.*.{writer.pid}.*.new")
        write_json(path, {"step": 1})
        assert aside.exists()  # of a living process
        writer.kill()
    assert read_json(path) == {"step": 1}
    write_json(path, {"step": 3})
    assert read_json(path) == {"step": 3}
    assert os.listdir(tmp_path) == ["run.json"]


def test_files_that_only_look_like_leftovers_are_kept(tmp_path):
    (tmp_path / "run.json.old.new").touch()
    (tmp_path / f"run.json.{json_files._machine()}.{'9' * 40}.01234567.new").touch()
    (tmp_path / f"other.json.{json_files._machine()}.{DEAD}.01234567.new").touch()
    write_json(tmp_path / "run.json", {"step": 1})
    assert len(os.listdir(tmp_path)) == 4


@pytest.mark.parametrize("process", [os.getpid(), DEAD], ids=["alive", "dead"])
def test_machines_that_write_one_file_at_once_both_succeed(tmp_path, monkeypatch, process):
    """A process of another machine has the number of one that lives here, or of none."""
    path = tmp_path / "run.json"
    replace, number = os.replace, os.getpid()

    def meanwhile(*paths):
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: number)
        with monkeypatch.context() as here:
            here.setattr(socket, "gethostname", lambda: "here")
            write_json(path, {"step": 2})
        replace(*paths)

    monkeypatch.setattr(os, "replace", meanwhile)
    monkeypatch.setattr(os, "getpid", lambda: process)
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    write_json(path, {"step": 1})
    assert read_json(path) == {"step": 1} and os.listdir(tmp_path) == ["run.json"]


def test_a_write_that_fails_leaves_the_file_and_nothing_beside_it(tmp_path, monkeypatch):
    write_json(tmp_path / "run.json", {"step": 1})

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(json_files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(tmp_path / "run.json", {"step": 2})
    assert os.listdir(tmp_path) == ["run.json"] and read_json(tmp_path / "run.json") == {"step": 1}
