"""`jaxmlm bench`: how fast a run trains on the devices at hand, where its time goes, and beside a peer."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console
from rich.table import Table

from jaxmlm.checks import check_choices, check_numbers, integers
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.parallel import check_sizes, make_mesh, place
from jaxmlm.rng import make_key
from jaxmlm.runs.run import Run
from jaxmlm.tasks.mlm import mlm_task
from jaxmlm.tools.flops import step_flops
from jaxmlm.tools.hardware import peak_flops, peak_memory
from jaxmlm.tools.peer import PeerProcess
from jaxmlm.tools.stand_ins import BlankStore
from jaxmlm.training import Task
from jaxmlm.training.step import init_state, make_step


@dataclasses.dataclass(frozen=True)
class Bench:
    """What `jaxmlm bench` takes beside the options of the configuration."""

    rounds: int = 10
    """Number of timed steps, after two that are not timed."""
    tokens: Literal["random", "text"] = "random"
    """What to train on: random tokens, or the configuration's text (which is prepared if it is not)."""
    peer: Literal["none", "transformers"] = "none"
    """Train the same model in PyTorch, in a process of its own, the two taking turns."""
    profile: str | None = None
    """Directory for a trace of three steps, for xprof or Perfetto; None: no trace."""

    def __post_init__(self) -> None:
        check_choices(self, "--")
        check_numbers(self, "--", rounds=integers(2))  # a spread needs two


def bench(run: Run, options: Bench) -> dict[str, Any]:
    """Time a run's training step; nothing is written but the trace that was asked for.

    Returns {"tokens_per_second" and "mfu" of the median step, "step": seconds {"median", "least", "most"}, "share" of a
    step of each part, "compile": seconds, "memory": bytes at most, "peak": FLOP/s of all devices, "flops" of a step,
    "device", "peer": its tokens/s and "ratio": how many of its tokens one of its seconds is worth here}.
    """
    if run.init:
        raise InputError("a benchmark takes random weights: leave out init")
    if run.data.format == "sentences" and options.tokens == "text":
        raise InputError("batches of sentences have several lengths, a benchmark one: take --data.format packed")
    if run.data.format != "packed" and options.peer != "none":
        raise InputError(f"the peer reads rows without padding, not {run.data.format}: take --data.format packed")
    mesh = make_mesh(run.mesh)
    check_sizes(mesh.shape, run.sizes)
    if options.tokens == "text":
        store = open_store(run.text, Path(run.workdir), "bench: prepare", run.needs_phrases)
    else:
        store = BlankStore(run.data, 4 * run.loop.batch, run.loop.seed)
    other = PeerProcess(run, options.tokens == "text") if options.peer == "transformers" else None
    with jax.set_mesh(mesh):
        task = mlm_task(store, run.data, run.masking, run.model, run.loop.batch, run.loop.seed)
        ours = _Ours(run, task, mesh)
        started = time.perf_counter()
        ours.compile()
        compiling = time.perf_counter() - started
        for one in (ours, other) if other else (ours,):
            one.step()
            one.step()
        seconds: dict[str, list[float]] = {"jaxmlm": [], "peer": []}
        for _ in range(options.rounds):  # turn by turn: both see the same machine
            seconds["jaxmlm"].append(_timed(ours.step))
            if other:
                seconds["peer"].append(other.step())
        if other:
            other.close()
        if options.profile:
            with jax.profiler.trace(os.path.expanduser(options.profile)):
                for _ in range(3):
                    ours.step()
        parts = ours.parts()
    median = statistics.median(seconds["jaxmlm"])
    counted = step_flops(run, store.tokenizer.size)
    tokens = run.loop.batch * run.data.length
    peak, by = peak_flops(list(mesh.devices.flat), run.model.dtype)
    result = {
        "device": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
        "tokens_per_second": tokens / median,
        "step": {"median": median, "least": min(seconds["jaxmlm"]), "most": max(seconds["jaxmlm"])},
        "mfu": counted.training / median / peak if peak else None,
        "peak": peak,
        "peak_by": by,
        "flops": {**counted._asdict(), "training": counted.training},
        "share": {name: part / median for name, part in parts.items()},
        "compile": compiling,
        "memory": ours.memory(),
        "peer": None,
        "ratio": None,
    }
    if other:
        pairs = [theirs / own for own, theirs in zip(seconds["jaxmlm"], seconds["peer"], strict=True)]
        theirs = statistics.median(seconds["peer"])
        result["peer"] = {"name": other.name, "tokens_per_second": tokens / theirs, "step": theirs}
        result["ratio"] = statistics.median(pairs)
    Console(stderr=True).print(table(run, result))
    return result


class _Ours:
    """A run's training step, ready to be called again and again."""

    def __init__(self, run: Run, task: Task, mesh: jax.sharding.Mesh):
        self.task, self.mesh, self.run = task, mesh, run
        self.optimizer = run.optim.transformation(max(run.loop.steps, 1))
        self.key = make_key(run.loop.seed)
        self.at = 0

    def compile(self) -> None:
        """Make the first state, and the program; what is timed beside this finds it in memory."""
        self.state = init_state(self.task, self.optimizer, self.key)
        self.next = self.batch(0)
        step = make_step(self.task, self.optimizer, self.run.loop.accumulate)
        self.program = step.lower(self.state, self.next, self.key).compile()

    def batch(self, step: int) -> Any:
        return place(self.task.batch_at(step), self.mesh)

    def step(self) -> None:
        """One step to its end; the next one's batch is made while the device works, as in the training loop."""
        self.state, metrics = self.program(self.state, self.next, self.key)
        self.at += 1
        self.next = self.batch(self.at)
        jax.block_until_ready((self.state.step, metrics))

    def parts(self) -> dict[str, float]:
        """Seconds of each part, by programs that do one part more each: what a part adds is its own."""
        task = self.task
        key = jax.random.fold_in(self.key, 0)
        step = self.state.step
        part = self.run.loop.accumulate
        model = self.state.model
        batch = self.batch(0)
        corrupt = jax.jit(task.corrupt)
        # The loss sees one part of the batch at a time.
        some = jax.tree.map(lambda x: x[: len(x) // part], task.batch_at(0))
        ready = corrupt(place(some, self.mesh), key, step)
        loss = jax.jit(lambda model, batch: task.loss(model, batch, key, step)[0].total)
        gradient = jax.jit(jax.grad(lambda model, batch: task.loss(model, batch, key, step)[0].total))
        update = jax.jit(lambda grads, state, model: self.optimizer.update(grads, state, model))
        grads = gradient(model, ready)
        forward = part * _best(lambda: loss(model, ready))
        both = part * _best(lambda: gradient(model, ready))
        return {
            "input": _best(lambda: self.batch(1)),
            "masking": _best(lambda: corrupt(batch, key, step)),
            "forward": forward,
            "backward": max(both - forward, 0.0),
            "update": _best(lambda: update(grads, self.state.opt_state, model)),
        }

    def memory(self) -> int:
        """The most bytes that a device has held; where it does not count them, what the compiler says of the step."""
        counted = self.mesh.devices.flat[0].memory_stats() or {}
        return int(counted.get("peak_bytes_in_use") or peak_memory(self.program))


def table(run: Run, result: dict[str, Any]) -> Table:
    """The result for the terminal."""
    c = run.model
    step = result["step"]
    shown = Table(
        title=f"{c.layers} x {c.width}, batch {run.loop.batch} x {run.data.length}, {c.dtype}", show_header=False
    )
    mfu = f"{result['mfu']:.1%} of {result['peak'] / 1e12:,.1f} TFLOP/s ({result['peak_by']})" if result["mfu"] else "?"
    lines = {
        "device": result["device"],
        "tokens/s": f"{result['tokens_per_second']:,.0f}",
        "step": f"{step['median']:.4f} s ({step['least']:.4f} to {step['most']:.4f})",
        "MFU": mfu,
        "share of the step": "  ".join(f"{name} {share:.1%}" for name, share in result["share"].items()),
        "compilation": f"{result['compile']:.1f} s",
        "memory of a device": f"{result['memory'] / 2**30:.2f} GiB",
    }
    if result["peer"]:
        lines[result["peer"]["name"]] = f"{result['peer']['tokens_per_second']:,.0f} tokens/s"
        lines["times as fast"] = f"{result['ratio']:.3f}"
    for name, value in lines.items():
        shown.add_row(name, value)
    return shown


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _best(work: Callable[[], Any], rounds: int = 3) -> float:
    """Seconds of the median of a few calls, after one that compiles."""
    jax.block_until_ready(work())
    return statistics.median(_timed(lambda: jax.block_until_ready(work())) for _ in range(rounds))
