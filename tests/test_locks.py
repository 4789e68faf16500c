"""Two commands in one directory: the second is refused while the first lives, and takes over from a dead one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxmlm import locks
from jaxmlm.errors import InputError
from jaxmlm.locks import LOCK, claim

HOLD = """
import os, sys, time
from pathlib import Path
from jaxmlm.locks import claim
with claim(Path(sys.argv[1]), "run"):
    if "fork" in sys.argv and os.fork() == 0:
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)
    os.write(1, b"held\\n")
    time.sleep(60)
"""


def other_process(directory: Path, *words: str) -> subprocess.Popen:
    """A process that holds a directory."""
    made = subprocess.Popen([sys.executable, "-c", HOLD, str(directory), *words], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    return made


def killed(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def write_holder(directory: Path, **fields) -> None:
    """A lock file as another machine leaves it."""
    directory.mkdir(exist_ok=True)
    holder = {"what": "run", "host": "elsewhere", "process": 7, "since": "then", "machine": "other", "beat": 1}
    (directory / LOCK).write_text(json.dumps(holder | fields))


def test_a_living_process_keeps_its_directory_and_a_dead_one_does_not(tmp_path):
    """kill -9 included; the refusal names the process, its machine and when it began."""
    other = other_process(tmp_path / "run")
    assert other.stdout and other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"process {other.pid} on .+ works on this run since \d{{4}}-") as refused:
        with claim(tmp_path / "run", "study"):
            pass
    assert "\n" not in str(refused.value)
    killed(other)
    assert (tmp_path / "run" / LOCK).is_file()
    with claim(tmp_path / "run", "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["process"] == os.getpid()
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_forked_child_does_not_hold_what_its_dead_parent_held(tmp_path):
    """The child of a killed process may live on, as a worker that waits for work for ever."""
    other = other_process(tmp_path / "run", "fork")
    assert other.stdout is not None
    said = sorted([other.stdout.readline(), other.stdout.readline()])
    child = int(next(line for line in said if line != "held\n"))
    killed(other)
    os.kill(child, 0)
    try:
        with claim(tmp_path / "run", "run"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_claims_nest_in_a_thread_and_exclude_each_other_between_threads(tmp_path):
    with claim(tmp_path, "study"), claim(tmp_path, "run"):
        with ThreadPoolExecutor(1) as pool:
            with pytest.raises(InputError, match="is in use"):
                pool.submit(claim(tmp_path, "run").__enter__).result()
        assert (tmp_path / LOCK).is_file()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("beside", [False, True])
def test_a_refused_or_empty_directory_leaves_nothing(tmp_path, beside):
    with claim(tmp_path / "a" / "b", "run", beside):
        assert (tmp_path / "a").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/sub.*: not a directory: a part of the path is a file"):
        with claim(tmp_path / "file" / "sub" / "deep", "run", beside):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_beside_survives_that_the_directory_is_replaced(tmp_path):
    store = tmp_path / "store"
    with claim(store, "token store", beside=True):
        (tmp_path / "new").mkdir()
        (tmp_path / "new").rename(store)
        with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="token store"):
            pool.submit(claim(store, "token store", beside=True).__enter__).result()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_many_at_once_get_it_one_at_a_time(tmp_path):
    """Nobody is let in beside another one, however the file comes and goes."""
    inside, most, entered = [], [], []

    def work(_):
        for _ in range(10):
            try:
                with claim(tmp_path / "run", "run"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
                    entered.append(1)
            except InputError:
                time.sleep(0.001)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert max(most) == 1 and entered


def test_another_thread_may_hold_it_as_soon_as_the_file_is_gone(tmp_path, monkeypatch):
    """What the first one still has to do does not take the directory from the second."""
    entered, ended = threading.Event(), threading.Event()
    unlink = Path.unlink

    def second():
        with claim(tmp_path, "run"):
            entered.set()
            ended.wait(60)

    def unlink_and_let_in(path, missing_ok=False):
        unlink(path, missing_ok)
        if not other.ident:
            other.start()
            assert entered.wait(60)

    other = threading.Thread(target=second)
    monkeypatch.setattr(Path, "unlink", unlink_and_let_in)
    with claim(tmp_path, "run"):
        pass
    assert locks._held[tmp_path / LOCK] == other.ident
    with pytest.raises(InputError, match="in use"), claim(tmp_path, "run"):
        pass
    ended.set()
    other.join()
    assert not locks._held and not locks._descriptors


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Its holder may end between the moments when the next one opens the file and locks it."""
    flock = locks._flock

    def late(descriptor):
        monkeypatch.setattr(locks, "_flock", flock)
        (tmp_path / LOCK).unlink()
        return flock(descriptor)

    monkeypatch.setattr(locks, "_flock", late)
    with claim(tmp_path, "run"):
        descriptor = next(iter(locks._descriptors))
        assert locks._is_at(descriptor, tmp_path / LOCK)


def test_another_machine_that_beats_is_alive(tmp_path, monkeypatch):
    """Where locks do not reach, its heartbeat tells; no clocks are compared."""
    monkeypatch.setattr(locks, "PATIENCE", 2.0)
    write_holder(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (time.sleep(0.3), write_holder(tmp_path, beat=2)))
        with pytest.raises(InputError, match="process 7 on elsewhere works on this run since then"):
            with claim(tmp_path, "run"):
                pass


def test_another_machine_that_is_silent_is_dead(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "PATIENCE", 0.4)
    write_holder(tmp_path)
    started = time.monotonic()
    with claim(tmp_path, "run"):
        assert time.monotonic() - started >= 0.4
    assert capsys.readouterr().err.count("was in use on elsewhere: waiting up to 0 s") == 1
    write_holder(tmp_path)
    os.utime(tmp_path / LOCK, (time.time() - 1000,) * 2)  # for so long that nobody waits
    monkeypatch.setattr(locks, "PATIENCE", 100.0)
    with claim(tmp_path, "run"):
        pass


def until(true) -> None:
    """Wait until this is so, at most half a minute on a busy machine."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.05)


def test_a_holder_beats_and_stops_when_its_name_is_overwritten(tmp_path, monkeypatch, capfd):
    """Two machines without common locks that began in the same second: one of them goes."""
    monkeypatch.setattr(locks, "BEAT", 0.02)
    killed = []
    monkeypatch.setattr(os, "kill", lambda process, number: killed.append((process, number)))
    with claim(tmp_path, "run"):
        first = json.loads((tmp_path / LOCK).read_text())["beat"]
        until(lambda: json.loads((tmp_path / LOCK).read_text())["beat"] > first)
        # The other one beats, too: what it wrote while this one was about to write is written again.
        until(lambda: write_holder(tmp_path) or killed)
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert "was taken over by process 7 on elsewhere: stopping" in capfd.readouterr().err
    assert (tmp_path / LOCK).is_file()  # it is the other one's


@pytest.mark.parametrize("content", [b"", b"\0" * 1024, b'{"what": 1}', b'{"process": "x"}', b"[]"])
def test_a_file_that_makes_no_sense_is_taken_over(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with claim(tmp_path, "run"):
        pass


def test_without_locks_a_process_of_this_machine_is_looked_up(tmp_path, monkeypatch):
    """Some file systems refuse flock."""
    monkeypatch.setattr(locks, "_flock", lambda descriptor: None)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    machine = locks._machine(descriptor)
    os.close(descriptor)
    write_holder(tmp_path, machine=machine, process=os.getppid())
    with pytest.raises(InputError, match="is in use"):
        with claim(tmp_path, "run"):
            pass
    write_holder(tmp_path, machine=machine, process=2**22 + 1)  # above the greatest number there is
    with claim(tmp_path, "run"):
        pass
