"""The other processes end with one line when process 0 is killed.

JAX aborts them at once, with a message of C++, or leaves them in a collective call. Neither a thread nor a handler of
Python is sure to run then, so each of them has a small process beside it, which holds a connection to process 0: the
one by which the hosts have met. Process 0 says goodbye when it ends by itself; a connection that breaks without that
is its death, if nobody listens on its port. The line then stands below whatever JAX has said in that moment.
"""

import atexit
import os
import socket
import subprocess
import sys

_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6))
"""A machine that lost its power or its network closes no connection: it is missed after 45 seconds."""
_PROGRAM = """
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
    ready = select.select([0], [], [], 0.2 if os.read(alive, 1) else 5)[0]
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
_others: list[socket.socket] = []
_watching: list[tuple[subprocess.Popen[bytes], int]] = []


def hold(connections: list[socket.socket]) -> None:
    """Keep the connections of process 0 to the others open while it lives."""
    _others.extend(connections)
    atexit.register(say_goodbye)


def watch(connection: socket.socket, name: str) -> None:
    """End this process with a line when process 0 does not live any more.

    Args:
        connection: to process 0, which `hold`s the other end.
        name: of process 0, for the line.

    """
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    alive, mine = os.pipe()
    line = f"jaxmlm: {name} has ended, and no other can continue without it: run the same command again on all hosts"
    host, port = connection.getpeername()[:2]
    words = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid()), str(alive), line, host, str(port)]
    # In a session of its own, so that Ctrl-C does not end it first.
    beside = subprocess.Popen(
        words,
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        pass_fds=(alive,),
        start_new_session=True,
    )
    os.close(alive)
    connection.close()
    _watching.append((beside, mine))
    atexit.register(say_goodbye)


def say_goodbye() -> None:
    """Tell whoever watches that this process ends by itself."""
    for connection in _others:
        try:
            connection.sendall(b".")
        except OSError:  # it has gone first
            pass
    _others.clear()
    for beside, mine in _watching:
        os.write(mine, b".")
        os.close(mine)
        beside.wait()
    _watching.clear()
