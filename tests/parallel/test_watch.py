"""Three processes watch each other: whoever is killed is named, by a line, and nobody else stays."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from jaxmlm.parallel import watch
from tests.parallel.test_hosts import free_port

PROCESS = """
import os, runpy, socket, sys, time

watch, port, process = runpy.run_path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if process:
    while True:
        try:
            connection = socket.create_connection(("localhost", port))
            break
        except OSError:
            time.sleep(0.05)
    connection.sendall(sys.argv[3].encode())
    watch["watch_first"](connection, "process 0 on host0")
else:
    with socket.create_server(("localhost", port)) as server:
        met = [server.accept()[0] for _ in range(2)]
    numbers = [int(connection.recv(1)) for connection in met]
    watch["watch_others"](met, [f"process {number} on host{number}" for number in numbers])
print("met", flush=True)
told = sys.stdin.readline().split()  # how to end: after so many seconds, with what code, saying what
time.sleep(float(told[0]))
if told[2] != "nothing":
    watch["say_goodbye"](told[2].encode())
os._exit(int(told[1]))
"""


class Ended(NamedTuple):
    """How a process ended: its exit code, what it said on stderr, and after how many seconds."""

    code: int
    said: str
    seconds: float


@pytest.fixture
def three(tmp_path) -> Iterator[list[subprocess.Popen]]:
    port = str(free_port())
    command = [sys.executable, "-S", "-c", PROCESS, watch.__file__, port]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as opened:
        started = [opened.enter_context(subprocess.Popen([*command, str(number)], **pipes)) for number in range(3)]
        try:
            for one in started:
                assert one.stdout is not None and one.stdout.readline() == "met\n"
            yield started
        finally:
            for one in started:
                one.kill()


def tell(process: subprocess.Popen, how: str) -> None:
    assert process.stdin is not None
    process.stdin.write(how + "\n")
    process.stdin.flush()


def ends(processes: list[subprocess.Popen]) -> list[Ended]:
    """How they end. A process beside another holds its stderr: what it says is there when both have ended."""
    began = time.monotonic()
    found = []
    for one in processes:
        code = one.wait(timeout=60)
        assert one.stderr is not None
        found.append(Ended(code, one.stderr.read().strip(), time.monotonic() - began))
    return found


def line(number: int) -> str:
    return (
        f"jaxmlm: process {number} on host{number} has ended, and no other can continue without it: run the same "
        "command again on all hosts"
    )


def test_one_that_is_killed_is_named_by_process_0_and_no_other_stays(three):
    three[2].kill()
    first, other, _ = ends(three)
    assert first.code == -signal.SIGKILL and first.said == line(2) and first.seconds < 30
    assert other.code == -signal.SIGKILL and other.said == line(0)


def test_process_0_that_fails_because_one_was_killed_names_it_below_its_own_words(three):
    tell(three[0], "2 1 nothing")
    three[1].send_signal(signal.SIGABRT)
    first, _, other = ends(three)
    assert (first.code, first.said) == (1, line(1))
    assert other.said == line(0)


def test_process_0_that_is_killed_is_named_by_all_others(three):
    three[0].kill()
    _, *others = ends(three)
    assert [(one.code, one.said) for one in others] == [(-signal.SIGKILL, line(0))] * 2


def test_a_fault_of_one_ends_process_0_too(three):
    tell(three[1], "0 1 f")
    first, failed, _ = ends(three)
    assert failed.code == 1 and first.code == -signal.SIGKILL and first.said == line(1)


def test_the_wrong_input_of_one_stands_below_what_process_0_fails_with(three):
    tell(three[0], "1 1 nothing")
    tell(three[1], "0 2 ino-text-here")
    tell(three[2], "0 1 f")
    first, *_ = ends(three)
    assert (first.code, first.said) == (1, "no-text-here")


def test_the_wrong_input_of_one_ends_a_process_0_that_would_wait(three):
    tell(three[1], "0 2 ino-text-here")
    first, _, other = ends(three)
    assert (first.code, first.said) == (-signal.SIGKILL, "no-text-here") and other.code == -signal.SIGKILL


def test_wrong_input_of_all_is_told_by_each_itself(three):
    for one in three[1:]:
        tell(one, "0 2 ino-text-here")
    tell(three[0], "2 2 .")
    assert [(one.code, one.said) for one in ends(three)] == [(2, "")] * 3


def test_who_fail_alike_do_not_name_each_other(three):
    tell(three[0], "2 1 nothing")
    for one in three[1:]:
        tell(one, "0 1 f")
    assert [(one.code, one.said) for one in ends(three)] == [(1, "")] * 3


@pytest.mark.parametrize("later", [0, 1, 2])
def test_who_end_in_good_order_name_nobody(three, later):
    for number, one in enumerate(three):
        tell(one, f"{1.5 * (number == later)} 75 .")
    assert [(one.code, one.said) for one in ends(three)] == [(75, "")] * 3
