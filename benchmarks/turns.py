"""Steps of several programs that take turns, each program in a process of its own.

All see the same machine, and none has the threads and the allocator of another in its way. A benchmark calls
`in_turns`; the processes that it starts are the same file with `--only NAME`, and call `serve`.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REST = 0.3
"""Seconds between two turns, in which the threads of the one before fall asleep: OpenMP's spin for 0.2."""
ANSWER = "in turns:"
"""What an answer begins with; other lines were printed by a library."""
PRODUCT = 2048
"""Rows and columns of the matrices of which a product is timed."""


def in_turns(file: str, names: Sequence[str], arguments: Sequence[str], rounds: int) -> dict[str, Any]:
    """Time the steps of several programs.

    Args:
        file: the benchmark.
        names: its programs, ours first.
        arguments: what each process gets beside `--only NAME`.
        rounds: turns of each, after two that are not timed.

    Returns:
        "processor", and by name "seconds" of the median step, "product GFLOP/s": of a large product by its library, and
        "ratio": the median over the rounds of its seconds by those of the first.

    """
    children = {name: _Child([file, "--only", name, *arguments]) for name in names}
    for _ in range(2):  # the first compiles
        for child in children.values():
            child.step()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, child in children.items():
            time.sleep(REST)
            seconds[name].append(child.step())
    found: dict[str, Any] = {"processor": processor(), "rounds": rounds}
    for name, child in children.items():
        child.close()
        found[name] = {"seconds": round(statistics.median(seconds[name]), 4), "product GFLOP/s": child.product}
        if name != names[0]:
            pairs = [theirs / ours for ours, theirs in zip(seconds[names[0]], seconds[name], strict=True)]
            found[name]["ratio"] = round(statistics.median(pairs), 3)
    return found


def serve(step: Callable[[], Any], product: Callable[[], Any] | None = None) -> None:
    """Make a step for each line that is read, and write its seconds.

    Args:
        step: makes one and waits for it.
        product: makes a product of PRODUCT x PRODUCT matrices, and waits for it.

    """
    print(ANSWER, _speed(product) if product else 0, flush=True)
    for _ in sys.stdin:
        print(ANSWER, _seconds(step), flush=True)


def processor() -> str:
    """The name that the processor gives itself, and whether it has AVX-512."""
    about = Path("/proc/cpuinfo").read_text()
    name = next((line.partition(":")[2].strip() for line in about.splitlines() if line.startswith("model name")), "?")
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {'with' if 'avx512f' in about else 'without'} AVX-512"


class _Child:
    """A process that makes a step when it is told to."""

    def __init__(self, words: Sequence[str]):
        self._words = words
        self._process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.product = round(self._answer())

    def step(self) -> float:
        """Its seconds."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return float(line.removeprefix(ANSWER))
        raise SystemExit(f"{' '.join(self._words)}: ended with code {self._process.wait()}")


def _speed(product: Callable[[], Any]) -> float:
    """GFLOP/s, the best of five products."""
    product()
    return 2 * PRODUCT**3 / min(_seconds(product) for _ in range(5)) / 1e9


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def jax_product() -> Callable[[], Any]:
    """A product by XLA."""
    import jax

    matrix = jax.numpy.ones((PRODUCT, PRODUCT), "float32")
    return lambda: jax.block_until_ready(matrix @ matrix)


def torch_product() -> Callable[[], Any]:
    """A product by PyTorch."""
    import torch

    matrix = torch.ones(PRODUCT, PRODUCT)
    return lambda: matrix @ matrix
