"""How the project's larger programs are compiled."""

import os
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.stages import Wrapped

from jaxmlm.parallel.mesh import platform

CPU_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_backend_optimization_level": "2"}
"""XLA's CPU compiler takes the barriers between unrolled blocks away before it fuses; with them 12 layers take three
quarters of the time. A compiler that does not know this name compiles as usual. At LLVM's second level a step takes a
fifth less time to compile than at its third and the drawing of initial weights a third of it, and both run as long
(docs/results/speed.md)."""


def jit(function: Callable, **options: Any) -> Wrapped:
    """`jax.jit` with `CPU_OPTIONS` where the devices are CPUs.

    >>> jit(lambda x: x + 1)(1).item()
    2
    """
    return jax.jit(function, compiler_options=compiler_options(), **options)


def jitted(function: Callable, *arguments: Any) -> Any:
    """What a function makes of these, as a program of its own; where it is traced, as part of that program.

    A program within another cannot have compiler options.

    >>> jitted(lambda x: x + 1, 1).item()
    2
    """
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(arguments)):
        return function(*arguments)
    return jit(function)(*arguments)


def compiler_options() -> dict[str, str] | None:
    """`CPU_OPTIONS` on the CPU, without those that the user sets in XLA_FLAGS."""
    if platform() != "cpu":
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in CPU_OPTIONS.items() if f"--{name}=" not in flags}
