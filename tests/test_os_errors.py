"""Errors of the file system on paths that a user named: one line with the path, exit 2, nothing written."""

import errno
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxmlm.cli import main
from jaxmlm.errors import InputError
from jaxmlm.os_errors import check_writable, explain, writing_to

CONFIG = """
from jaxmlm import Data, EncoderConfig, Loop, Run
def config():
    return Run("run", data=Data("sample:200", vocab=400, length=24), loop=Loop(1, 8), model=EncoderConfig(1, 16, 2))
"""
LONG = "a" * 300


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A directory with a config, a file, and a link to itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.py").write_text(CONFIG)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain run.py --workdir file/sub", "file/sub: not a directory: a part of the path is a file"),
        ("pretrain run.py --workdir loop/sub", "loop/sub: too many levels of symbolic links: its symbolic links lead"),
        ("pretrain run.py --workdir loop", "loop"),
        (f"pretrain run.py --workdir {LONG}", "aaa: file name too long: shorten it"),
        ("pretrain run.py --workdir /proc/none", "/proc/none: no such file or directory: check the path"),
        ("pretrain run.py --workdir=", "workdir is empty: name a directory"),
        (f"pretrain {LONG}.py", ": file name too long: shorten it"),
        ("pretrain loop", "no config file loop"),
        ("evaluate loop", "loop"),
        (f"evaluate {LONG}", ": file name too long"),
        ("evaluate ~nobodyhere/run", "~nobodyhere/run: there is no user 'nobodyhere'"),
        ("pretrain run.py --data.text ~nobodyhere/a.txt", "there is no user 'nobodyhere'"),
        ("pretrain run.py --data.store ~nobodyhere/store", "there is no user 'nobodyhere'"),
        ("pretrain run.py --workdir ~nobodyhere/run", "there is no user 'nobodyhere'"),
        ("finetune run --task ~nobodyhere/a.tsv", "there is no user 'nobodyhere'"),
        ("report ~nobodyhere/study", "there is no user 'nobodyhere'"),
        (f"finetune {LONG} --task cola --data sample:", ": file name too long"),
        ("finetune loop --task cola --data sample:", "loop"),
        ("report file/sub", "file/sub is missing: give the --workdir of a study"),
        (f"export {LONG} out", ": file name too long"),
        ("pretrain run.py --coordinator localhost:99999999 --processes 2 --process 0", "a port from 1 to 65535"),
        ("pretrain run.py --coordinator localhost:1 --processes 2 --process 0 --wait nan", "--wait is nan: it must be"),
        ("pretrain run.py --loop.save-every -1", "loop.save_every is -1: it must be an integer of at least 0"),
        ("audit run.py --rows 0", "--rows is 0: it must be an integer of at least 1"),
        ("show run.py --rates 5", "--rates is 5: it must be above 0 and at most 1"),
        ("finetune run --task cola --data sample: --epochs nan", "epochs is nan: it must be above 0"),
        ("finetune run --task cola --data sample: --seeds -1", "seeds is -1: it must be an integer of at least 0"),
    ],
)
def test_one_line_and_exit_2(here, capsys, words, message):
    before = sorted(os.listdir(here))
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and len(said) < 600
    assert sorted(os.listdir(here)) == before


def test_a_workdir_that_is_a_token_store_is_refused(here, capsys):
    (here / "store").mkdir()
    (here / "store" / "manifest.json").write_text("{}")
    assert main(["pretrain", "run.py", "--workdir", "store"]) == 2
    assert "store holds a token store: name another --workdir" in capsys.readouterr().err


def test_what_cannot_be_written_is_refused_before_the_work(here, monkeypatch):
    """An evaluation of hours would end with it, and its results be lost; a disk that is read-only, too."""
    for good in (Path("new/x.png"), Path("file"), here / "x.png"):
        check_writable(good)
    for good in (Path("new/a/b"), here):
        check_writable(good, directory=True)
    assert sorted(os.listdir(here)) == ["file", "loop", "run.py"]
    for path, directory, message in (
        (Path("file/sub/x.png"), False, "file/sub/x.png: not a directory: a part of the path is a file"),
        (Path("file"), True, "file: not a directory"),
        (here, False, "is a directory: name a file"),
    ):
        with pytest.raises(InputError, match=message):
            check_writable(path, directory)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"^new/x.png: permission denied: get access, or name another path$"):
        check_writable(Path("new/x.png"))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(InputError, match=r"^new: read-only file system: name a directory that can be written to$"):
        check_writable(Path("new"), directory=True)


def test_a_user_without_a_home_directory_is_told(here, capsys, monkeypatch):
    """As in a container that runs as a number: nothing is written to a directory that is called ~."""

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "JAXMLM_CACHE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    assert main(["pretrain", "run.py"]) == 2
    assert "this user has no home directory: set HOME, or JAXMLM_CACHE, to a directory" in capsys.readouterr().err
    assert main(["report", "~/study"]) == 2
    assert "~/study: this user has no home directory: set HOME, or write" in capsys.readouterr().err
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ and "~" not in os.listdir(here)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read(here, capsys, monkeypatch, code):
    """A file without rights is the user's to mend; a disk that breaks is not, and stays a failure."""

    def refuse(path):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["pretrain", "run.py"]) == (2 if code == errno.EACCES else 1)
    assert "run.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("RESOURCE_EXHAUSTED: Error writing 'd/0': [OS error 28: ENOSPC] No space left on device [x='y']"),
    ],
)
def test_a_full_disk_names_the_directory(error):
    with pytest.raises(InputError, match="^runs/a: (no space left|disk quota).*: free some space, or name a directory"):
        with writing_to(Path("runs/a")):
            raise error


def test_a_copy_that_fails_names_its_first_file():
    met = [("in/a", "out/a", "[Errno 13] Permission denied: 'in/a'"), ("in/b", "out/b", "the same")]
    assert explain(shutil.Error(met)) == "in/a cannot be copied: [Errno 13] Permission denied: 'in/a': check the path"


def test_other_errors_are_left_alone():
    assert explain(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")) is None
    with pytest.raises(ValueError, match="^x$"), writing_to(Path("runs/a")):
        raise ValueError("x")


def test_a_real_limit_is_told(here):
    """The size of files is limited, as by a quota: the store cannot be written."""
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
    program += "from jaxmlm.cli import main; sys.exit(main(['pretrain', 'run.py']))"
    # Python cuts off bytecode that it writes under the limit (EOFError: marshal data too short), and others import it.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert made.returncode == 2, made.stderr
    assert "file too large" in made.stderr.splitlines()[-1], made.stderr
