"""How several processes agree on the step at which they stop, and what that makes of their handlers of signals.

JAX agrees on the step (`multihost_utils.reached_preemption_sync_point`). For that `jax.distributed.initialize`
installs a C function as the handler of SIGTERM, in the place of Python's: `SigtermNotifier` in
https://github.com/openxla/xla/blob/main/xla/tsl/distributed_runtime/preemption/preemption_notifier.cc
There is no call by which Python could say that a signal came (read at jax 0.10.2, where a TODO in the docstring of
`reached_preemption_sync_point` promises one). So `preemption.py` installs its own handlers again and calls the C
function itself. When JAX has such a call, this file is that call.
"""

import ctypes
import signal
import sys
from collections.abc import Callable

from jaxmlm.signals import DEFAULT, IGNORE, handler_address


def handler_of_jax(handler_of_python: int | None) -> Callable[[int], None] | None:
    """Return JAX's handler of SIGTERM if it is installed.

    Args:
        handler_of_python: the address of the C function by which Python calls handlers; None: not known yet, because
            none was installed.

    """
    address = handler_address(signal.SIGTERM)
    if address in (DEFAULT, IGNORE, handler_of_python):
        return None
    if handler_of_python is None and callable(signal.getsignal(signal.SIGTERM)):
        return None  # it is Python's
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(address)


def is_one_of_many() -> bool:
    """Whether this process has joined others; it does not import JAX to find out."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def all_reached(call: int) -> bool:
    """Whether all processes stop at this call.

    Args:
        call: the number of the call, the same on every process. Each must be asked for once, in order.

    """
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(call)
