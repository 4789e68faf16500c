"""Memory that a program frees is kept for its next step: on a CPU, a quarter of a small encoder's step."""

import ctypes
import os
import sys

import jax

# malloc.h of the GNU C library
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
KEPT = 2**31 - 1
"""Bytes of freed memory that the process keeps: the most that mallopt takes."""


def keep_freed_memory() -> None:
    """Let steps on the CPU reuse their memory. Call it before JAX makes its devices.

    XLA allocates all temporary arrays of a program as one block and frees it at the end. The C library asks the system
    for so large a block, and gives it back, each time: a step of 2 x 128 touches 35,000 new pages, which takes the
    system a third of the step. Kept, they are touched once. Programs must then be started in the thread that calls
    them, as the allocator keeps memory of the main thread only; what runs on accelerators is not affected.

    Does nothing without the GNU C library, and where the environment says how much to keep (`MALLOC_TRIM_THRESHOLD_`).
    """
    if not sys.platform.startswith("linux") or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
