"""Signals as the C library has them, for two things that Python's `signal` module cannot do.

1. *Hear a signal during a long C call.* Python runs a handler between two of its own instructions: not while XLA
   compiles for a minute. So a thread reads the numbers of the signals from the pipe into which Python's C code writes
   them at once: https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
2. *Read and replace a handler that is a C function*, as JAX's (see multihost_signals.py): `signal.getsignal` knows
   only handlers that Python installed. Python also installs them in the main thread only; the C library does in any.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEFAULT = 0
"""C's SIG_DFL: the system's own handler, which ends the process."""
IGNORE = 1
"""C's SIG_IGN."""

_libc = ctypes.CDLL(None)
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


def handler_address(number: int) -> int:
    """Return the address of the C function that handles a signal: the first field of C's `struct sigaction`."""
    action = (ctypes.c_void_p * 64)()
    _libc.sigaction(number, None, action)
    return action[0] or DEFAULT


def set_handler_address(number: int, address: int) -> None:
    """Install a C function as the handler of a signal, from any thread; Python does not know of it."""
    _libc.signal(number, address)


@contextmanager
def heard_by_a_thread(numbers: tuple[int, ...], receive: Callable[[int], None]) -> Iterator[None]:
    """Within the body a thread calls `receive` with the number of each of these signals, as soon as it comes.

    Python must have a handler of its own for them: only then does it write to the pipe.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_read, args=(reader, numbers, receive), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, b"\0")
        thread.join()
        os.close(writer)
        os.close(reader)


def _read(reader: int, numbers: tuple[int, ...], receive: Callable[[int], None]) -> None:
    """Read numbers of signals from the pipe until a 0 comes."""
    while number := os.read(reader, 1)[0]:
        if number in numbers:
            receive(number)
