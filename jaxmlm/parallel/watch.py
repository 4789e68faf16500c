"""All processes of a run end with one line when one of them is killed.

JAX aborts them at once, with a message of C++, or leaves them in a collective call until it misses a heartbeat.
Neither a thread nor a handler of Python is sure to run then, so each process has a small one beside it
(`beside_first.py`, `beside_other.py`), which holds the connections by which the hosts have met: that of process 0 to
all others, that of another to process 0. Who ends by itself says so over them; a connection that breaks without that
is a death. The line then stands below whatever JAX has said in that moment.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6))
"""A machine that lost its power or its network closes no connection: it is missed after 45 seconds."""
GRACE = 5.0
"""Seconds that process 0 has to end by itself after another process has died: usually its collective call fails."""
GOODBYE, FAULT, WRONG_INPUT = b".", b"f", b"i"
"""Exit messages. GOODBYE: a normal exit. FAULT: a failure, reported unless process 0 failed too. WRONG_INPUT: an error
line follows, which is printed below process 0's own failure, and not at all if process 0 exits normally."""
MOST = 2000
"""Maximum bytes of an exit message."""

_others: list[socket.socket] = []
_watching: list[tuple[subprocess.Popen[bytes], int]] = []


def watch_others(connections: Sequence[socket.socket], names: Sequence[str]) -> None:
    """End process 0 with a message when another process has died.

    Args:
        connections: one to each of the others, which `watch_first`.
        names: of the others, for the line.

    """
    for connection in connections:
        _keep_alive(connection)
    _others.extend(connections)
    fds = [connection.fileno() for connection in connections]
    words = [word for fd, name in zip(fds, names, strict=True) for word in (str(fd), _line(name))]
    _start("beside_first.py", [str(GRACE), *words], pass_fds=fds)


def watch_first(connection: socket.socket, name: str) -> None:
    """End this process with a message when process 0 has died.

    Args:
        connection: to process 0, which watches the other end.
        name: of process 0, for the line.

    """
    _keep_alive(connection)
    host, port = connection.getpeername()[:2]
    _start("beside_other.py", [_line(name), host, str(port)], stdin=connection.fileno())
    connection.close()


def say_goodbye(said: bytes = GOODBYE) -> None:
    """Tell the watching processes that this process ends by itself."""
    for connection in _others:
        with contextlib.suppress(OSError):  # the other end has closed it
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
    file = Path(__file__).with_name(program)
    alive, mine = os.pipe()
    # In a session of its own, so that Ctrl-C does not end it first.
    beside = subprocess.Popen(
        [sys.executable, "-I", "-S", str(file), str(os.getpid()), str(alive), str(MOST), *words],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        pass_fds=(alive, *pass_fds),
        start_new_session=True,
    )
    os.close(alive)
    _watching.append((beside, mine))
    atexit.register(say_goodbye)
