"""SIGTERM and SIGINT ask for a stop: the step is finished and saved, and the same command resumes the run.

Cloud providers send SIGTERM some 30 seconds before they take a machine back. A second signal ends the process at
once, by the system's own handler; the last checkpoint is complete, for Orbax renames it when it is.

Python runs its handlers between two of its own instructions: not while XLA compiles for a minute. So a thread hears
the signals too, through the pipe into which Python's C code writes their numbers.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxmlm.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _State:
    active = False
    asked = False
    heard = threading.Lock()
    """Taken for good by whoever hears the first signal."""
    agreed = False
    calls = 0
    """Of `stop_agreed`, the same on every process: what they agree on."""
    ours: int | None = None
    """The address of the C function that calls Python's handlers."""
    notify: Callable[[int], Any] | None = None
    """JAX's own handler of SIGTERM, which tells the other processes."""


@contextmanager
def stoppable(last: bool = False) -> Iterator[None]:
    """Within the body a signal asks for a stop, to be found by `stop_agreed`; usable as a decorator, and nested.

    `last`: the process ends after the body, by an exit code that is known then: later signals do not change it.
    Without effect outside the main thread, where Python has no signals.
    """
    if _State.active or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: (signal.getsignal(number), _handler(number)) for number in SIGNALS}
    _State.active, _State.asked, _State.agreed, _State.heard = True, False, False, threading.Lock()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    others = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(told,), daemon=True)
    watch.start()
    listen()
    try:
        yield
    finally:
        for number, (python, native) in before.items():
            signal.signal(number, signal.SIG_IGN if last else python)
            if not last:
                _set_handler(number, native)
        signal.set_wakeup_fd(others)
        os.write(tell, b"\0")
        watch.join()
        os.close(tell)
        os.close(told)
        _State.active, _State.notify = False, None


def listen() -> None:
    """Hear the signals within `stoppable`, also after somebody else took them: JAX does when it joins the hosts."""
    if not _State.active:
        return
    native = _handler(signal.SIGTERM)
    python = signal.getsignal(signal.SIGTERM)
    foreign = native not in (0, 1, _State.ours) and not (callable(python) and _State.ours is None)
    if foreign:
        _State.notify = ctypes.CFUNCTYPE(None, ctypes.c_int)(native)
    if not _State.asked:
        for number in SIGNALS:
            signal.signal(number, _ask)
        _State.ours = _handler(signal.SIGTERM)
        return
    for number in SIGNALS:  # it came before JAX could tell the others
        _set_handler(number, 0)
    if _State.notify is not None:
        _State.notify(signal.SIGTERM)


def stop_asked() -> bool:
    """Whether this process got a signal: for work that each process does by itself."""
    return _State.asked


def stop_agreed() -> bool:
    """Whether to stop now; of several processes all say yes in the same call, whichever of them got the signal.

    All must call it equally often: once a step, once a batch of an evaluation.
    """
    if not _State.agreed:
        _State.calls += 1
        _State.agreed = _all_reached(_State.calls) if _one_of_many() else _State.asked
    return _State.agreed


def stop_before(what: str) -> None:
    """Raise Preempted if `stop_agreed`: nothing is under way."""
    if stop_agreed():
        raise Preempted(f"stopped by a signal before {what}: run the same command again")


def stop_within(what: str) -> None:
    """Raise Preempted if `stop_agreed`: what is under way is begun again by the next command."""
    if stop_agreed():
        raise Preempted(f"stopped by a signal within {what}: run the same command again")


def stop_here(doing: str) -> None:
    """Raise Preempted if this process got a signal."""
    if _State.asked:
        raise Preempted(f"stopped by a signal while it {doing}: run the same command again")


def _watch(told: int) -> None:
    """Hear signals until a 0 comes, also while the main thread is within a long C call."""
    while number := os.read(told, 1)[0]:
        if number in SIGNALS:
            _ask(number)


def _ask(number: int, frame: object = None) -> None:
    if not _State.heard.acquire(blocking=False):  # the thread and Python's handler: one of them is enough
        return
    for other in SIGNALS:  # from here on the system's own: the second one ends the process, even within a long C call
        _set_handler(other, 0)
    _State.asked = True
    name = signal.Signals(number).name
    os.write(2, f"jaxmlm: {name}: stopping after this step; a second signal stops at once\n".encode())
    if _State.notify is not None:
        _State.notify(signal.SIGTERM)


def _one_of_many() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _all_reached(call: int) -> bool:
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(call)


_libc = ctypes.CDLL(None)
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


def _set_handler(number: int, native: int) -> None:
    """Install a C function, 0 for the system's own; any thread may. Python knows only handlers of its own."""
    _libc.signal(number, native)


def _handler(number: int) -> int:
    """The C function that is installed: the first field of C's `struct sigaction`."""
    action = (ctypes.c_void_p * 64)()
    _libc.sigaction(number, None, action)
    return action[0] or 0
