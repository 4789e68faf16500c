"""The loop on a linear model: what is computed and what is written."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Encoder, EncoderConfig
from jaxmlm.models.layers import Dense, dropout
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.training import (
    AdamW,
    Batch,
    Checkpoints,
    Eval,
    Loop,
    Mean,
    Optim,
    Task,
    TrainState,
    evaluate,
    train,
)
from jaxmlm.training.optimizers import decayed
from jaxmlm.training.step import init_state, make_step

STEPS = 6
OPTIM = Optim(learning_rate=0.01, warmup=0.3)


def batch_at(step: int) -> Batch:
    """Rows whose weights differ from row to row and from step to step; "bad" is 0."""
    rng = np.random.default_rng(step)
    x, weight = rng.normal(size=(8, 8)).astype(np.float32), rng.uniform(0, 1 + step, 8).astype(np.float32)
    return {"ids": np.full((8, 8), step, np.int32), "x": x, "weight": weight, "bad": np.zeros(8, np.float32)}


@functools.lru_cache  # the same function each time, so that a step which is compiled is found again
def linear_loss(drop: float) -> Callable:
    """Of the outputs of a linear map, which it makes small; with dropout of its inputs, so that keys matter."""

    def loss(model: Any, batch: Batch, key: jax.Array, step: jax.Array) -> tuple[Mean, dict[str, Mean]]:
        out = model(dropout(key, drop, batch["x"]))
        # Finite at bad = 1, with a gradient that is not: 0 times the infinite slope of a root at 0.
        rows = jnp.sqrt(jnp.square(out - 1).sum(-1) * (1 - batch["bad"]))
        return Mean((rows * batch["weight"]).sum(), batch["weight"].sum()), {"size": Mean(out.sum(), jnp.ones(()))}

    return loss


@functools.lru_cache
def linear_init(width: int) -> Callable:
    return jax.jit(lambda key: Dense(key, (8, width), ("embed", "vocab"), 0.1))


def linear_task(
    batch_at: Callable[[int], Batch] = batch_at, width: int = 4, drop: float = 0.5, evals: dict | None = None
) -> Task:
    return Task(linear_init(width), linear_loss(drop), batch_at, evals or {}, 4)


def devices(*sizes: int) -> jax.sharding.Mesh:
    return make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def assert_equal(a: Any, b: Any) -> None:
    """Two states are the same bits."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), jax.tree_util.keystr(path)


class Killed(Exception):
    pass


def killed_at(step: int) -> Callable[[int], Batch]:
    def at(k: int) -> Batch:
        if k == step:
            raise Killed
        return batch_at(k)

    return at


def start(mesh: jax.sharding.Mesh, task: Task | None = None) -> TrainState:
    with jax.set_mesh(mesh):
        return init_state(task or linear_task(), OPTIM.transformation(STEPS), jax.random.key(9))


def restored(directory: Path, mesh: jax.sharding.Mesh, task: Task | None = None) -> TrainState:
    checkpoints = Checkpoints(directory / "checkpoints")
    try:
        with jax.set_mesh(mesh):
            return checkpoints.restore(start(mesh, task))
    finally:
        checkpoints.close()


def test_a_step_whose_gradients_are_not_finite_is_skipped():
    def at(step: int) -> Batch:
        return batch_at(step) | ({"bad": np.ones(8, np.float32)} if step == 1 else {})

    before, skipped, after = (train(linear_task(at), OPTIM, Loop(n, 8), devices(1, 1, 1)).state for n in (1, 2, 3))
    assert skipped.step == 2 and skipped.opt_state.total_notfinite == 1
    assert_equal(skipped.model, before.model)
    assert not np.array_equal(after.model.kernel[...], before.model.kernel[...])
    assert np.isfinite(after.model.kernel[...]).all()


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing():
    rates = np.array([Optim(0.5, warmup=0.06).rate(100)(step) for step in range(100)])
    assert rates[0] == pytest.approx(0.5 / 6) and rates[6] == pytest.approx(rates.max()) == pytest.approx(0.5)
    assert (np.diff(rates[:6]) > 0).all() and (np.diff(rates[6:]) < 0).all()
    assert rates[53] == pytest.approx(0.5 * 47 / 94) and rates[-1] == pytest.approx(0.5 / 94, rel=1e-5)
    for short in (1, 2, 3):
        assert all(Optim(0.5).rate(short)(step) > 0 for step in range(short))
    assert Optim(0.5, warmup=0.0).rate(10)(0) == 0.5
    with pytest.raises(InputError, match="learning_rate"):
        Optim(learning_rate=0.0)


def test_weight_decay_is_for_tables_and_kernels_alone():
    key = jax.random.key(0)
    model = jax.eval_shape(lambda: Classifier(Encoder(EncoderConfig(width=32), 67, key), 2, key))
    marked = {jax.tree_util.keystr(path): on for path, on in jax.tree_util.tree_leaves_with_path(decayed(model))}
    on = {name.removesuffix(".value").removeprefix(".") for name, on in marked.items() if on}
    blocks = {f"encoder.blocks.{name}" for name in ("attention.qkv", "attention.out", "up.kernel", "down.kernel")}
    assert on == blocks | {"encoder.embedding", "encoder.position", "dense.kernel", "out.kernel"}
    # And the optimiser heeds the marks: without gradients only what decays moves, by rate times decay.
    optimizer = Optim(0.5, warmup=0.0, optimizer=AdamW(weight_decay=0.1)).transformation(10)
    ones = jax.tree.map(jnp.ones_like, start(jax.sharding.get_mesh()).model)
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, ones), optimizer.init(ones), ones)
    np.testing.assert_allclose(updates.kernel[...], -0.05, rtol=1e-5)
    assert not updates.bias[...].any()


def test_a_grid_of_learning_rates_compiles_one_step():
    """The peak is a number of the state: the update is the peak's, the program is not."""
    task, mesh = linear_task(), jax.sharding.get_mesh()
    moved, programs = {}, set()
    for peak in (0.5, 0.125, 0.5):
        optimizer = Optim(peak, warmup=0.0).transformation(STEPS)
        state, step = init_state(task, optimizer, jax.random.key(9)), make_step(task, optimizer)
        before = np.asarray(state.model.kernel[...])
        state, _ = step(state, place(task.batch_at(0), mesh), jax.random.key(1))
        moved[peak] = np.asarray(state.model.kernel[...]) - before
        programs.add(step)
    assert len(programs) == 1 and programs.pop()._cache_size() == 1
    np.testing.assert_allclose(moved[0.5], 4 * moved[0.125], rtol=1e-4)


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
def test_a_lower_layer_learns_more_slowly():
    """Rates 1/2 and 1/4 of the head's for the layers of two, from the top, 1/8 for the embeddings."""
    config = EncoderConfig(layers=2, width=16, heads=2)
    model = jax.jit(lambda key: Classifier(Encoder(config, 40, key), 2, key))(jax.random.key(0))

    def moved(decay: float) -> Any:
        optimizer = Optim(0.1, warmup=0.0, layer_decay=decay).transformation(10)
        step = jax.jit(lambda model: optimizer.update(model, optimizer.init(model), model)[0])
        return step(model)

    ratio = jax.tree.map(lambda a, b: a / jnp.where(b == 0, 1, b), moved(0.5), moved(1.0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(ratio):
        name = jax.tree_util.keystr(path)
        share = {"encoder": 1 / 8, "final_norm": 1 / 2}
        expected = next((share[part] for part in ("final_norm", "encoder") if part in name), 1.0)
        rates = [1 / 4, 1 / 2] if "blocks" in name else [expected]
        for part, rate in zip(leaf if "blocks" in name else [leaf], rates, strict=True):
            found = np.asarray(part)
            assert np.allclose(found[found != 0], rate), name
    with pytest.raises(InputError, match=r"layer_decay is 1.5"):
        Optim(layer_decay=1.5)


def test_loss_and_gradient_are_sum_over_count(tmp_path):
    task = linear_task(drop=0.0)
    optimizer = optax.sgd(1.0)
    state = init_state(task, optimizer, jax.random.key(0))
    kernel, batch = np.asarray(state.model.kernel[...]), batch_at(3)
    out = batch["x"] @ kernel - 1
    norm = np.sqrt(np.square(out).sum(-1))
    share = batch["weight"] / batch["weight"].sum()
    state, metrics = make_step(task, optimizer)(state, place(batch, jax.sharding.get_mesh()), jax.random.key(0))
    np.testing.assert_allclose(metrics["loss"].total / metrics["loss"].count, (norm * share).sum(), rtol=1e-5)
    gradient = batch["x"].T @ (out / norm[:, None] * share[:, None])
    np.testing.assert_allclose(state.model.kernel[...], kernel - gradient, rtol=1e-4, atol=1e-6)
    # Over the steps of one line of the log, too: not the mean of the steps' means.
    train(task, Optim(1e-12), Loop(4, 8, seed=0, log_every=4), jax.sharding.get_mesh(), tmp_path)
    rows = [np.sqrt(np.square(batch_at(k)["x"] @ kernel - 1).sum(-1)) for k in range(4)]
    weights = [batch_at(k)["weight"] for k in range(4)]
    assert lines(tmp_path)[0]["loss"] == pytest.approx(np.average(np.ravel(rows), weights=np.ravel(weights)), abs=2e-5)


@pytest.mark.mesh(data=4, tensor=2)
def test_the_step_compiles_once_and_draws_anew_each_time(mesh):
    task, optimizer = linear_task(), Optim(1e-30).transformation(STEPS)  # the weights stay
    state, step, losses = init_state(task, optimizer, jax.random.key(0)), make_step(task, optimizer), set()
    for _ in range(4):
        state, metrics = step(state, place(batch_at(0), mesh), jax.random.key(0))
        losses.add(float(metrics["loss"].total))
    assert step._cache_size() == 1 and state.step == 4 and len(losses) == 4


@pytest.mark.mesh(data=4)
def test_evaluate_drops_padding_and_keeps_the_order(mesh):
    def batches() -> Iterator[Batch]:
        for first in range(0, 20, 8):
            index = np.arange(first, first + 8)
            yield {"ids": np.minimum(index, 18)[:, None], "weight": (index < 19).astype(np.float32)}

    scored = []
    predict = lambda model, batch: {"id": batch["ids"][:, 0], "pair": batch["ids"] * jnp.ones((1, 2))}  # noqa: E731
    held_out = Eval(batches, predict, lambda outputs: scored.append(outputs) or {"rows": 1.0 * len(outputs["id"])})
    assert evaluate(held_out, start(mesh).model, mesh) == {"rows": 19}
    assert scored[0]["id"].tolist() == list(range(19))
    assert scored[0]["pair"].tolist() == [[k, k] for k in range(19)]


def counting_eval(calls: list[int]) -> dict[str, Eval]:
    def score(outputs: dict[str, np.ndarray]) -> dict[str, float]:
        calls.append(len(outputs["rows"]))
        return {"mean": float(outputs["rows"].mean())}

    batches = lambda: iter([batch_at(7) | {"weight": np.ones(8, np.float32)}])  # noqa: E731
    return {"mean_output": Eval(batches, lambda model, batch: {"rows": model(batch["x"]).mean(-1)}, score)}


def test_the_log_and_the_evaluations(tmp_path):
    calls: list[int] = []
    loop = Loop(5, 8, save_every=0, eval_every=2, log_every=2)
    done = train(linear_task(evals=counting_eval(calls)), OPTIM, loop, devices(1, 1, 1), tmp_path)
    assert calls == [8, 8, 8]
    found = lines(tmp_path)
    assert [(line["step"], line.get("eval")) for line in found] == [
        (2, None), (2, "mean_output"), (4, None), (4, "mean_output"), (5, None), (5, "mean_output"),
    ]  # fmt: skip
    steps = [line for line in found if "eval" not in line]
    assert [line["tokens"] for line in steps] == [128, 256, 320] and [line["step"] for line in steps] == [2, 4, 5]
    assert steps[-1]["loss"] == pytest.approx(done.loss, abs=1e-5) and found[-1]["mean"] == pytest.approx(
        done.evals["mean_output"]["mean"], abs=1e-5
    )
    assert done.tokens == 5 * 64 and done.tokens_per_second > 0 and all(line["tokens_per_second"] > 0 for line in steps)
    rates = OPTIM.rate(5)
    assert [line["learning_rate"] for line in steps] == pytest.approx([rates(k) for k in (1, 3, 4)])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl"]  # save_every = 0


def test_tokens_and_seconds_are_those_of_all_starts(tmp_path):
    """Batches of several lengths: the log once took the last one's for all; a resumed run began to count anew."""

    def at(step: int) -> Batch:
        if step == 4 and not done:
            time.sleep(0.2)
            raise Killed
        return batch_at(step) | {"ids": np.zeros((8, 8 * (step % 3 + 1)), np.int32)}

    done = False
    with pytest.raises(Killed):
        train(linear_task(at), OPTIM, Loop(STEPS, 8, log_every=2, save_every=2), devices(1, 1, 1), tmp_path)
    before = Checkpoints(tmp_path / "checkpoints", read=True).notes()
    done = True
    with open(tmp_path / "log.jsonl", "a") as f:
        f.write('{"step": 4, "lo')  # a full disk
    trained = train(linear_task(at), OPTIM, Loop(STEPS, 8, log_every=2, save_every=2), devices(1, 1, 1), tmp_path)
    assert [line["tokens"] for line in lines(tmp_path)] == [192, 448, 768] and trained.tokens == 768
    assert before["tokens"] in (192, 448) and trained.seconds > before["seconds"] > 0


def test_an_evaluation_that_does_not_exist_is_refused_at_the_start(tmp_path):
    with pytest.raises(
        InputError, match=r"loop.best is 'def/mean': the evaluations there are, each with /METRIC: mean_output"
    ):
        task = linear_task(evals=counting_eval([]))
        train(task, OPTIM, Loop(2, 8, save_every=0, best="def/mean"), devices(1, 1, 1))


def test_the_best_state_is_not_kept_of_a_run_that_can_be_resumed(tmp_path):
    """A resumed run would lack what was best before, and return another state than the uninterrupted one."""
    task = linear_task(evals=counting_eval([]))
    with pytest.raises(InputError, match="loop.best keeps the best state in memory.*set loop.save_every to 0"):
        train(task, OPTIM, Loop(2, 8, save_every=1, best="mean_output/mean"), devices(1, 1, 1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_final_evaluation_writes_its_predictions(tmp_path):
    """What `save` gets is what `score` gets: in order, without padding rows; those before the end write nothing."""
    saved: list[Path] = []

    def save(outputs: dict[str, np.ndarray], directory: Path) -> None:
        saved.append(directory)
        np.save(directory / "rows.npy", outputs["rows"])

    (one,) = counting_eval([]).values()
    evals = {"mean_output": one._replace(save=save), "silent": one}
    done = train(linear_task(evals=evals), OPTIM, Loop(4, 8, save_every=0, eval_every=2), devices(1, 1, 1),
                 predictions=tmp_path / "said")  # fmt: skip
    assert saved == [tmp_path / "said"] and len(list(saved[0].iterdir())) == 1
    assert np.load(saved[0] / "rows.npy").mean() == pytest.approx(done.evals["mean_output"]["mean"])


def test_no_steps_save_and_evaluate_the_initial_model(tmp_path):
    calls: list[int] = []
    task, loop = linear_task(evals=counting_eval(calls)), Loop(0, 8, seed=9)
    for _ in range(2):  # the second time the checkpoint is there
        done = train(task, OPTIM, loop, devices(1, 1, 1), tmp_path)
        assert_equal(done.state.model, start(devices(1, 1, 1)).model)
    assert calls == [8, 8]
    assert_equal(restored(tmp_path, devices(1, 1, 1)).model, done.state.model)


def test_nothing_is_sent_to_the_device_in_secret(tmp_path):
    def at(step: int) -> Batch:
        if step == 3:  # the first step is done: all is compiled and made
            jax.config.update("jax_transfer_guard", "disallow")
        return batch_at(step)

    loop = Loop(8, 8, save_every=4, eval_every=2, log_every=1)
    try:
        train(linear_task(at, evals=counting_eval([])), OPTIM, loop, devices(1, 1, 1), tmp_path)
    finally:
        jax.config.update("jax_transfer_guard", "allow")


def test_a_loop_that_cannot_be_is_refused():
    for wrong in ({"steps": -1}, {"batch": 0}, {"log_every": 0}):
        with pytest.raises(InputError, match=f"loop.{next(iter(wrong))} is .*: it must"):
            Loop(**wrong)
