"""SIGTERM and SIGINT ask for a stop: the step is finished and saved, and the same command resumes the run.

Cloud providers send SIGTERM some 30 seconds before they take a machine back. A second signal ends the process at
once, by the system's own handler; the last checkpoint is complete, for Orbax renames it when it is.

How signals reach Python in time stands in signals.py, how several processes agree in multihost_signals.py.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxmlm.errors import Preempted
from jaxmlm.multihost_signals import all_reached, handler_of_jax, is_one_of_many
from jaxmlm.signals import DEFAULT, handler_address, heard_by_a_thread, set_handler_address

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _State:
    active = False
    """Within `stoppable`."""
    requested = False
    """This process got a signal."""
    first = threading.Lock()
    """Taken for good by whoever hears the first signal."""
    all_stop = False
    """What `all_hosts_stop` has said once, it says from then on."""
    calls = 0
    """Of `all_hosts_stop`, the same on every process: what they agree on."""
    handler_of_python: int | None = None
    """The address of the C function that calls Python's handlers; None before the first one was installed."""
    notify_others: Callable[[int], None] | None = None
    """JAX's own handler of SIGTERM, which tells the other processes."""


@contextmanager
def stoppable(last: bool = False) -> Iterator[None]:
    """Within the body a signal asks for a stop, to be found by `all_hosts_stop`; usable as a decorator, and nested.

    Without effect outside the main thread, where Python has no signals.

    Args:
        last: the process ends after the body, by an exit code that is known then: later signals do not change it.

    """
    if _State.active or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: (signal.getsignal(number), handler_address(number)) for number in SIGNALS}
    _State.active = True
    _State.first = threading.Lock()
    try:
        with heard_by_a_thread(SIGNALS, _request):
            install_handlers()
            try:
                yield
            finally:
                for number, (python, address) in before.items():
                    if last:
                        signal.signal(number, signal.SIG_IGN)
                        continue
                    signal.signal(number, python)
                    set_handler_address(number, address)
    finally:
        _State.active = False
        _State.requested = False  # a library's next call, outside, was not asked to stop
        _State.all_stop = False
        _State.notify_others = None


def install_handlers() -> None:
    """Hear the signals within `stoppable`, also after JAX took SIGTERM, as it does when it joins the processes."""
    if not _State.active:
        return
    _State.notify_others = handler_of_jax(_State.handler_of_python) or _State.notify_others
    if _State.requested:  # before JAX could tell the others
        _leave_to_the_system()
        _notify_others()
        return
    for number in SIGNALS:
        signal.signal(number, _request)
    _State.handler_of_python = handler_address(signal.SIGTERM)


def stop_requested() -> bool:
    """Whether this process got a signal within `stoppable`: for work that each process does by itself."""
    return _State.requested


def all_hosts_stop() -> bool:
    """Whether to stop now; of several processes all say yes in the same call, whichever of them got the signal.

    All must call it equally often: once a step, once a batch of an evaluation.
    """
    if not _State.all_stop:
        _State.calls += 1
        _State.all_stop = all_reached(_State.calls) if is_one_of_many() else _State.requested
    return _State.all_stop


def raise_if_all_hosts_stop(where: str) -> None:
    """End what all processes do together.

    Args:
        where: the place in the work, for the message: "before the first step", "within an evaluation".

    Raises:
        Preempted: `all_hosts_stop`.

    """
    if all_hosts_stop():
        raise Preempted(f"stopped by a signal {where}: run the same command again")


def raise_if_stop_requested(doing: str) -> None:
    """End work that this process does by itself.

    Args:
        doing: the work, for the message: "prepared the text".

    Raises:
        Preempted: `stop_requested`.

    """
    if stop_requested():
        raise Preempted(f"stopped by a signal while it {doing}: run the same command again")


def _request(number: int, frame: object = None) -> None:
    """Receive a signal, from Python or from the thread: one of them is enough."""
    if not _State.first.acquire(blocking=False):
        return
    _leave_to_the_system()
    _State.requested = True
    name = signal.Signals(number).name
    os.write(2, f"jaxmlm: {name}: stopping after this step; a second signal stops at once\n".encode())
    _notify_others()


def _leave_to_the_system() -> None:
    """From here on a signal ends the process, even within a long C call."""
    for number in SIGNALS:
        set_handler_address(number, DEFAULT)


def _notify_others() -> None:
    if _State.notify_others is not None:
        _State.notify_others(signal.SIGTERM)
