"""The step and its options: accumulation, clipping, schedules, a budget of time, what is read when."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest

from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.parallel.compiling import CPU_OPTIONS, compiler_options
from jaxmlm.training import Loop, Mean, Optim, Task, budget, meter, train
from jaxmlm.training import loop as loop_module
from jaxmlm.training.step import init_state, make_step
from tests.training.test_loop import OPTIM, STEPS, batch_at, linear_task


def one_step(mesh: jax.sharding.Mesh, optimizer: optax.GradientTransformation, accumulate: int = 1) -> Any:
    """The state and the metrics after step 0, without dropout."""
    task = linear_task(drop=0.0)
    with jax.set_mesh(mesh):
        state = init_state(task, optimizer, jax.random.key(0))
        return make_step(task, optimizer, accumulate)(state, place(batch_at(3), mesh), jax.random.key(0))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 2)], ids=str)
def test_accumulation_changes_nothing(sizes):
    """Weights differ from row to row, so a mean of the parts' means would be another number."""
    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
    (whole, told), (parts, told_too) = (one_step(mesh, optax.sgd(1.0), n) for n in (1, 4))
    np.testing.assert_allclose(parts.model.kernel[...], whole.model.kernel[...], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*(np.ravel(jax.tree.leaves(m["loss"])) for m in (told, told_too)), rtol=1e-6)
    assert parts.model.kernel[...].sharding == whole.model.kernel[...].sharding


@pytest.mark.mesh(data=2)
def test_micro_batches_draw_dropout_of_their_own(mesh):
    """The same rows in both parts: with the same dropout they would give the same loss twice."""
    task, optimizer = linear_task(), optax.sgd(0.0)
    batch = {name: np.repeat(x[:4], 2, axis=0) for name, x in batch_at(3).items()}  # rows i and i + 1 are the same
    totals = []
    for accumulate in (1, 2):
        rows = batch if accumulate == 2 else {name: x[::2] for name, x in batch.items()}
        state = init_state(task, optimizer, jax.random.key(0))
        _, metrics = make_step(task, optimizer, accumulate)(state, place(rows, mesh), jax.random.key(0))
        totals.append(float(metrics["loss"].total))
    assert totals[1] != pytest.approx(2 * totals[0], rel=1e-3)


@pytest.mark.slow("compiles fourteen unrolled blocks")
def test_work_on_the_cpu_grows_with_the_layers():
    """XLA's fusions once computed the sum of all blocks below again for each block: with the square of the layers."""

    def additions(layers: int) -> int:
        config = EncoderConfig(layers=layers, width=8, heads=1)

        def loss(model: Any, batch: Any, key: jax.Array, step: jax.Array) -> tuple[Mean, dict[str, Mean]]:
            hidden = model(batch["ids"], jax.numpy.ones_like(batch["ids"]))
            return Mean(jax.numpy.square(hidden).sum(), jax.numpy.ones(())), {}

        task = Task(lambda key: Encoder(config, 128, key), loss, lambda step: {"ids": np.ones((2, 8), np.int32)}, {}, 1)
        optimizer, key = optax.sgd(1.0), jax.random.key(0)
        step = make_step(task, optimizer).lower(init_state(task, optimizer, key), task.batch_at(0), key)
        return step.compile().as_text().count(" add(")

    few, some, many = map(additions, (2, 4, 8))
    assert many - some < 2.2 * (some - few)


def test_clipping_is_of_the_global_norm():
    mesh = jax.sharding.get_mesh()
    start = init_state(linear_task(), optax.sgd(1.0), jax.random.key(0)).model
    moved, (clipped, _) = [], one_step(mesh, optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(1.0)))
    for model in (one_step(mesh, optax.sgd(1.0))[0].model, clipped.model):
        moved.append(
            np.concatenate([np.ravel(a - b) for a, b in zip(*map(jax.tree.leaves, (model, start)), strict=True)])
        )
    assert np.linalg.norm(moved[1]) == pytest.approx(0.01, rel=1e-4) and np.linalg.norm(moved[0]) > 0.1
    np.testing.assert_allclose(moved[1] / np.linalg.norm(moved[1]), moved[0] / np.linalg.norm(moved[0]), atol=1e-4)
    # Adam's first step is of one size whatever the gradient's; its moments tell what it was given.
    for clip, factor in ((None, 1.0), (1e30, 1.0), (0.01, 0.01 / np.linalg.norm(moved[0]))):
        state, _ = one_step(mesh, replace(OPTIM, clip=clip).transformation(STEPS))
        first = next(x for x in jax.tree.leaves(state.opt_state) if x.shape == (8, 4))
        np.testing.assert_allclose(first, 0.1 * factor * -moved[0][-32:].reshape(8, 4), rtol=1e-3, atol=1e-7)


def test_flags_of_the_user_win_over_the_compiler_options(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3 --xla_dump_to=there")
    assert compiler_options().keys() == CPU_OPTIONS.keys() - {"xla_backend_optimization_level"}
    monkeypatch.delenv("XLA_FLAGS")
    assert compiler_options() == CPU_OPTIONS


def rates(steps: int, **options: Any) -> np.ndarray:
    rate = Optim(0.5, **options).rate(steps)
    return np.array([rate(step) for step in range(steps)])


def test_schedules_after_the_warm_up():
    for name in ("linear", "cosine", "wsd", "wsd_sqrt", "inverse_sqrt", "constant"):
        found = rates(100, schedule=name, warmup=0.1)
        assert found[0] == pytest.approx(0.05) and found[10] == 0.5 and (np.diff(found[:9]) > 0).all()
    assert (rates(100, schedule="constant", warmup=0.1)[10:] == 0.5).all()
    wsd = rates(100, schedule="wsd", warmup=0.1, decay=0.2)
    assert (wsd[10:81] == 0.5).all()
    np.testing.assert_allclose(wsd[80:], 0.5 * (1 - np.arange(20) / 20), rtol=1e-6)
    wsd = rates(100, schedule="wsd_sqrt", warmup=0.1, decay=0.2)
    assert (wsd[10:81] == 0.5).all()
    np.testing.assert_allclose(wsd[80:], 0.5 * (1 - np.sqrt(np.arange(20) / 20)), rtol=1e-5)
    cosine = rates(100, schedule="cosine", warmup=0.1)
    np.testing.assert_allclose(cosine[10:], 0.25 * (1 + np.cos(np.pi * np.arange(90) / 90)), rtol=1e-4, atol=1e-6)
    falling = rates(100, schedule="inverse_sqrt", warmup=0.1)
    np.testing.assert_allclose(falling[10:], 0.5 * np.sqrt(10 / np.arange(10, 100)), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (Optim, {"clip": 0.0}, "optim.clip is 0: it must be above 0"),
        (Optim, {"decay": 1.5}, "optim.decay is 1.5: it must be between 0 and 1"),
        (Optim, {"schedule": "wsd", "warmup": 0.6, "decay": 0.5}, "together with optim.warmup 0.6 at most 1"),
        (Optim, {"schedule": "wsd_sqrt", "warmup": 0.6, "decay": 0.5}, "together with optim.warmup 0.6 at most 1"),
        (Optim, {"ema": 1.0}, "optim.ema is 1: it must lie between 0 and 1, both excluded"),
        (Loop, {"batch": 6, "accumulate": 4}, "loop.accumulate is 4: it must be at least 1 and divide loop.batch 6"),
        (Loop, {"accumulate": 0}, "loop.accumulate is 0"),
        (Loop, {"budget": "a day"}, "loop.budget is 'a day': write a time above 0 as 24h"),
        (Loop, {"budget": "0h"}, "loop.budget is '0h'"),
    ],
)
def test_options_that_cannot_be_are_refused(kind, wrong, message):
    with pytest.raises(InputError, match=message):
        kind(**wrong)


def test_a_budget_times_no_compilation(monkeypatch):
    """Rows of several lengths are several programs: compiled within the time, few steps would seem to fit."""
    happened: list[Any] = []
    step = lambda state, batch, key: happened.append(batch["ids"].shape) or (state, {})  # noqa: E731
    monkeypatch.setattr(budget, "make_step", lambda *_: step)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: float(happened.append("clock") or len(happened)))
    task = linear_task(lambda at: batch_at(at) | {"ids": np.zeros((8, 8 * (at % 3 + 1)), np.int32)})
    assert budget.steps_within("100s", task, OPTIM, jax.sharding.get_mesh(), timed=9) == 90
    before, timed = happened[: (at := happened.index("clock"))], happened[at + 1 : -1]
    assert len(timed) == 9 and sorted(before) == sorted(set(timed))


def test_the_state_is_donated():
    """Its buffers are those of the next state: nothing is held twice."""
    task, optimizer = linear_task(), OPTIM.transformation(STEPS)
    state = init_state(task, optimizer, jax.random.key(0))
    step, batch = make_step(task, optimizer), place(batch_at(0), jax.sharding.get_mesh())
    held = sum(x.nbytes for x in jax.tree.leaves(state))
    memory = step.lower(state, batch, jax.random.key(0)).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= held - 1  # all but last_finite, one byte that no step reads
    after, _ = step(state, batch, jax.random.key(0))
    assert all(x.is_deleted() for x in jax.tree.leaves(state) if x.nbytes > 1) and not after.step.is_deleted()


def test_what_a_step_gave_is_read_while_the_next_one_runs(monkeypatch):
    happened = []

    def watched(name: str, function: Any) -> Any:
        called = lambda *args: happened.append(name) or function(*args)  # noqa: E731
        called.lower = getattr(function, "lower", None)
        return called

    make, sums = loop_module.make_step, meter._sums
    monkeypatch.setattr(loop_module, "make_step", lambda *args: watched("step", make(*args)))
    monkeypatch.setattr(meter, "_sums", watched("read", sums))
    train(linear_task(), OPTIM, Loop(4, 8, log_every=1, save_every=0), jax.sharding.get_mesh())
    assert happened == ["step", "step", "read", "step", "read", "step", "read", "read"]


@pytest.mark.mesh(fsdp=4, tensor=2)
def test_the_optimizer_state_is_sharded_like_the_parameters(mesh):
    state, _ = one_step(mesh, replace(OPTIM, clip=1.0).transformation(STEPS), accumulate=2)
    kernel = state.model.kernel[...]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 2)}
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == kernel.shape]
    assert len(moments) == 2 and all(x.sharding == kernel.sharding for x in moments)
