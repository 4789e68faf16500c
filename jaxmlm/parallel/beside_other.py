"""The program beside each other process, which `watch` starts: its standard input is the connection to process 0.

It must start at once and run when Python's own process is aborted, so it imports nothing of the package.
"""

import os
import select
import signal
import socket
import sys
import time

CONNECTION = 0


def main(parent: int, alive: int, most: int, line: str, host: str, port: int) -> None:
    """Pass on what its process says when it ends; if process 0 has died, say so and end its process.

    Args:
        parent: the id of its process.
        alive: a file descriptor from which can be read when its process ends, and what that says.
        most: bytes of what a process says.
        line: what to say when process 0 has died.
        host: where process 0 listens as long as it lives.
        port: of the same.

    """
    ready = select.select([CONNECTION, alive], [], [])[0]
    if CONNECTION not in ready:  # this process ends first, perhaps because process 0 has: that shows soon
        told = os.read(alive, most)
        try:
            os.write(CONNECTION, told or b"!")
        except OSError:
            pass
        ready = select.select([CONNECTION], [], [], 0.2 if told else 1.5)[0]
    if CONNECTION not in ready:
        return
    try:
        goodbye = os.read(CONNECTION, 1)
    except OSError:
        goodbye = b""
    if goodbye or _listens(host, port):
        return
    if os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)
    os.write(2, b"\n" + line.encode() + b"\n")


def _listens(host: str, port: int) -> bool:
    time.sleep(0.5)  # all that it had open is closed by then
    try:
        socket.create_connection((host, port), 10).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _, _parent, _alive, _most, _line, _host, _port = sys.argv
    main(int(_parent), int(_alive), int(_most), _line, _host, int(_port))
