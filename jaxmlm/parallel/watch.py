"""All processes of a run end with one line when one of them is killed.

JAX aborts them at once, with a message of C++, or leaves them in a collective call until it misses a heartbeat.
Neither a thread nor a handler of Python is sure to run then, so each process has a small one beside it, which holds
the connections by which the hosts have met: that of process 0 to all others, that of another to process 0. Who ends by
itself says so over them; a connection that breaks without that is a death. The line then stands below whatever JAX
has said in that moment.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6))
"""A machine that lost its power or its network closes no connection: it is missed after 45 seconds."""
GRACE = 5.0
"""Seconds in which process 0 may end by itself when another one has: mostly its collective call fails."""
GOODBYE, FAULT, WRONG_INPUT = b".", b"f", b"i"
"""What a process that ends says: it is not missed; or only if process 0 has not failed alike; or a line follows, which
stands below whatever process 0 fails with for want of it, unless process 0 ends in good order."""
MOST = 2000
"""Bytes of what is said."""

_BESIDE_FIRST = (
    f"MOST = {MOST}"
    + """
import os, select, signal, sys, time

parent, alive, grace = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
lines = {int(fd): line for fd, line in zip(sys.argv[4::2], sys.argv[5::2])}
missed, said, until = "", b"", None
while True:
    ready = select.select([alive, *lines], [], [], until and max(0, until - time.monotonic()))[0]
    if alive in ready:  # process 0 ends
        if os.read(alive, 1) or said == b"f":
            missed = ""
        break
    if not ready:
        if os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
        break
    for fd in ready:
        try:
            told = os.read(fd, MOST)
        except OSError:
            told = b""
        line = lines.pop(fd)
        explained = told[:1] == b"i" and said == b"f"  # why one failed counts, not that others failed with it
        if told != b"." and (explained or not missed):
            missed = told[1:].decode(errors="replace") or line
            said, until = told[:1], time.monotonic() + grace
if missed:
    os.write(2, b"\\n" + missed.encode() + b"\\n")
"""
)
_BESIDE_OTHER = (
    f"MOST = {MOST}"
    + """
import os, select, signal, socket, sys, time

def listens(host, port):
    time.sleep(0.5)  # all that it had open is closed by then
    try:
        socket.create_connection((host, int(port)), 10).close()
        return True
    except OSError:
        return False

parent, alive, line = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ready = select.select([0, alive], [], [])[0]
if 0 not in ready:  # this process ends first, perhaps because process 0 has: that shows soon
    told = os.read(alive, MOST)
    try:
        os.write(0, told or b"!")
    except OSError:
        pass
    ready = select.select([0], [], [], 0.2 if told else 1.5)[0]
if 0 in ready:
    try:
        goodbye = os.read(0, 1)
    except OSError:
        goodbye = b""
    if not goodbye and not listens(*sys.argv[4:]):
        if os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
        os.write(2, b"\\n" + line.encode() + b"\\n")
"""
)
_others: list[socket.socket] = []
_watching: list[tuple[subprocess.Popen[bytes], int]] = []


def watch_others(connections: Sequence[socket.socket], names: Sequence[str]) -> None:
    """End process 0 with a line when one of the others does not live any more.

    Args:
        connections: one to each of the others, which `watch_first`.
        names: of the others, for the line.

    """
    for connection in connections:
        _keep_alive(connection)
    _others.extend(connections)
    fds = [connection.fileno() for connection in connections]
    words = [word for fd, name in zip(fds, names, strict=True) for word in (str(fd), _line(name))]
    _start(_BESIDE_FIRST, [str(GRACE), *words], pass_fds=fds)


def watch_first(connection: socket.socket, name: str) -> None:
    """End this process with a line when process 0 does not live any more.

    Args:
        connection: to process 0, which watches the other end.
        name: of process 0, for the line.

    """
    _keep_alive(connection)
    host, port = connection.getpeername()[:2]
    _start(_BESIDE_OTHER, [_line(name), host, str(port)], stdin=connection.fileno())
    connection.close()


def say_goodbye(said: bytes = GOODBYE) -> None:
    """Tell whoever watches that this process ends by itself."""
    for connection in _others:
        with contextlib.suppress(OSError):  # it has gone first
            connection.sendall(GOODBYE)
    _others.clear()
    for beside, mine in _watching:
        with contextlib.suppress(OSError):
            os.write(mine, said)
        os.close(mine)
        beside.wait()
    _watching.clear()


def _line(name: str) -> str:
    return f"jaxmlm: {name} has ended, and no other can continue without it: run the same command again on all hosts"


def _keep_alive(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _start(program: str, words: list[str], *, stdin: int = subprocess.DEVNULL, pass_fds: Sequence[int] = ()) -> None:
    """Start the process beside this one; it reads from `alive` when this one ends."""
    alive, mine = os.pipe()
    # In a session of its own, so that Ctrl-C does not end it first.
    beside = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, str(os.getpid()), str(alive), *words],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        pass_fds=(alive, *pass_fds),
        start_new_session=True,
    )
    os.close(alive)
    _watching.append((beside, mine))
    atexit.register(say_goodbye)
