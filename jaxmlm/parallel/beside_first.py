"""The program beside process 0, which `watch` starts: it holds the connections to all others.

It must start at once and run when Python's own process is aborted, so it imports nothing of the package.
"""

import os
import select
import signal
import sys
import time


def main(parent: int, alive: int, most: int, grace: float, lines: dict[int, str]) -> None:
    """Wait until a connection or process 0 ends; print why, and end process 0 if it does not end by itself.

    Args:
        parent: the id of process 0.
        alive: a file descriptor from which can be read when process 0 ends.
        most: maximum bytes of an exit message.
        grace: seconds that process 0 has to end by itself after another process has died.
        lines: what to say when a connection breaks, by its file descriptor.

    """
    missed, said, until = "", b"", None
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        ready = select.select([alive, *lines], [], [], left)[0]
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
                told = os.read(fd, most)
            except OSError:
                told = b""
            line = lines.pop(fd)
            explained = told[:1] == b"i" and said == b"f"  # why one failed counts, not that others failed with it
            if told != b"." and (explained or not missed):
                missed = told[1:].decode(errors="replace") or line
                said, until = told[:1], time.monotonic() + grace
    if missed:
        os.write(2, b"\n" + missed.encode() + b"\n")


if __name__ == "__main__":
    _, _parent, _alive, _most, _grace, *_lines = sys.argv
    _named = {int(fd): line for fd, line in zip(_lines[::2], _lines[1::2], strict=True)}
    main(int(_parent), int(_alive), int(_most), float(_grace), _named)
