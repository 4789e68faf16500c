"""The optimizers: every one of them, and one of a user's own, under the same laws."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Encoder, EncoderConfig
from jaxmlm.training import Adafactor, AdamW, Lamb, Lion, Loop, Muon, Optim, train
from jaxmlm.training.optim import WeightAverageState, swap_average
from jaxmlm.training.optimizers import Optimizer, check_optimizer
from tests.training.test_loop import Killed, assert_equal, batch_at, devices, killed_at, linear_task, lines

CONFIG = EncoderConfig(layers=2, width=16, heads=2)


@dataclass(frozen=True)
class Momentum:
    """A user's own."""

    decay: float = 0.9
    slots = 1

    def build(self, schedule: Callable) -> optax.GradientTransformation:
        return optax.sgd(schedule, self.decay)


OPTIMIZERS = [AdamW(), Lamb(), Lion(), Adafactor(min_dim_size_to_factor=8), Muon(), Momentum()]


@functools.cache
def model_on(mesh: jax.sharding.Mesh) -> Any:
    with jax.set_mesh(mesh):
        return jax.jit(lambda key: Classifier(Encoder(CONFIG, 40, key), 2, key))(jax.random.key(0))


def gradients_for(model: Any) -> Any:
    """The same gradients on every mesh, each array with numbers of its own."""
    leaves, tree = jax.tree.flatten(model)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(
        tree, [jax.device_put(rng.normal(size=x.shape).astype(np.float32), x.sharding) for x in leaves]
    )


@functools.cache
def updated(optim: Optim, mesh: jax.sharding.Mesh, steps: int = 2) -> tuple[Any, Any]:
    """Model and state after updates with the same gradients."""
    with jax.set_mesh(mesh):
        model = model_on(mesh)
        grads = gradients_for(model)
        transformation = optim.transformation(10)
        state = transformation.init(model)

        @jax.jit
        def update(grads: Any, state: Any, model: Any) -> tuple[Any, Any]:
            updates, state = transformation.update(grads, state, model)
            return optax.apply_updates(model, updates), state

        for _ in range(steps):
            model, state = update(grads, state, model)
        return model, state


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(one, marks=pytest.mark.slow("compiles for eight devices")) if type(one) is Adafactor else one
        for one in OPTIMIZERS
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_optimizer_computes_the_same_on_every_mesh(optimizer):
    optim = Optim(0.1, warmup=0.0, optimizer=optimizer)
    one, _ = updated(optim, devices(1, 1, 1))
    many, state = updated(optim, devices(2, 2, 2))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5, err_msg=jax.tree_util.keystr(path))
    size = sum(x.size for x in jax.tree.leaves(many))
    held = sum(x.size for x in jax.tree.leaves(state))
    if isinstance(optimizer, Adafactor):  # rows and columns of the matrices, and small arrays as they are
        assert held < size / 2
        return
    shardings = {x.shape: x.sharding for x in jax.tree.leaves(many) if x.ndim > 1}
    for array in jax.tree.leaves(state):
        assert array.sharding == shardings.get(array.shape, array.sharding)
    # Muon holds one momentum for matrices and two moments for all others: its slots are an upper bound.
    least = size if isinstance(optimizer, Muon) else optimizer.slots * size
    assert least <= held <= optimizer.slots * size + 16


def test_muon_orthogonalizes_each_matrix_of_each_layer_by_itself():
    """The same as optax on the matrices one by one, as they would stand in an unstacked model."""
    optim = Optim(0.1, warmup=0.0, optimizer=Muon(weight_decay=0.0), schedule="constant")
    mesh = devices(1, 1, 1)
    before, grads = model_on(mesh), gradients_for(model_on(mesh))
    after, _ = updated(optim, mesh, steps=1)
    alone = contrib.muon(0.1, ns_steps=5, consistent_rms=0.2)
    update = jax.jit(alone.update)
    layer = 1

    def moved(matrix: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
        found = np.asarray(matrix(after)) - np.asarray(matrix(before))
        gradient = {"w": jnp.asarray(np.asarray(matrix(grads)))}
        weights = {"w": jnp.asarray(np.asarray(matrix(before)))}
        updates, _ = update(gradient, alone.init(weights), weights)
        return found, np.asarray(updates["w"])

    width = CONFIG.width
    matrices: list[Callable[[Any], Any]] = [
        lambda model: model.encoder.blocks.up.kernel[...][layer],
        lambda model: model.encoder.blocks.attention.out[...][layer].reshape(width, width),
        *(
            lambda model, i=i: model.encoder.blocks.attention.qkv[...][layer][:, i].reshape(width, width)
            for i in range(3)
        ),
    ]
    for matrix in matrices:
        found, expected = moved(matrix)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
        assert np.sqrt(np.square(found).mean()) == pytest.approx(0.1 * 0.2, rel=0.3)


def test_all_that_is_no_matrix_of_a_block_is_updated_by_adamw_under_muon():
    mesh = devices(1, 1, 1)
    muon, _ = updated(Optim(0.1, warmup=0.0, optimizer=Muon()), mesh)
    adamw, _ = updated(Optim(0.1, warmup=0.0, optimizer=AdamW()), mesh)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(muon), jax.tree.leaves(adamw), strict=True):
        name = jax.tree_util.keystr(path)
        matrix = "blocks" in name and not name.removesuffix(".value").endswith(("bias", "scale"))
        assert np.array_equal(a, b) != matrix, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS[:5], ids=lambda one: type(one).__name__)
def test_weight_decay_follows_the_learning_rate_and_spares_biases(optimizer):
    """Without gradients an array that decays shrinks by the learning rate times the decay, and no other moves."""
    optim = Optim(0.5, warmup=0.0, schedule="linear", optimizer=replace(optimizer, weight_decay=0.1))
    model = model_on(devices(1, 1, 1))
    transformation = optim.transformation(10)
    state = transformation.init(model)
    zeros = jax.tree.map(jnp.zeros_like, model)
    update = jax.jit(transformation.update)
    for step in range(3):
        updates, state = update(zeros, state, model)
        share = -0.1 * optim.rate(10)(step)
        for path, value in jax.tree_util.tree_leaves_with_path(updates):
            name = jax.tree_util.keystr(path)
            weights = np.asarray(dict_of(model)[name])
            if name.removesuffix(".value").endswith(("bias", "scale")):
                assert not np.asarray(value).any(), name
            elif not isinstance(optimizer, Lamb):  # whose trust ratio is of decay and gradient together
                np.testing.assert_allclose(value, share * weights, rtol=1e-4, atol=1e-7, err_msg=name)


def dict_of(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_average_of_the_weights_is_what_is_evaluated_and_resumed(tmp_path):
    """By hand: the decay of update n is at most (1 + n) / (10 + n). A resumed run has the same average, bit for bit."""
    optim = Optim(0.05, warmup=0.0, ema=0.5, schedule="constant")  # so that runs of other lengths begin alike

    def kernel_after(steps: int) -> np.ndarray:
        plain = replace(optim, ema=None)
        done = train(linear_task(drop=0.0), plain, Loop(steps, 8, save_every=0), devices(1, 1, 1))
        return np.asarray(done.state.model.kernel[...])

    average = kernel_after(0)
    for updates in range(3):
        decay = min(0.5, (1 + updates) / (10 + updates))
        average = decay * average + (1 - decay) * kernel_after(updates + 1)
    complete = train(linear_task(drop=0.0), optim, Loop(3, 8, save_every=1), devices(1, 1, 1), tmp_path / "complete")
    np.testing.assert_allclose(complete.state.model.kernel[...], average, rtol=1e-5)
    assert not np.allclose(complete.state.model.kernel[...], kernel_after(3), rtol=1e-3)
    with pytest.raises(Killed):
        train(linear_task(killed_at(2), drop=0.0), optim, Loop(3, 8, save_every=1), devices(1, 1, 1), tmp_path / "run")
    resumed = train(linear_task(drop=0.0), optim, Loop(3, 8, save_every=1), devices(1, 1, 1), tmp_path / "run")
    assert_equal(resumed.state, complete.state)


def test_the_average_changes_places_with_the_weights():
    state = {"inner": WeightAverageState({"w": jnp.ones(2)}, jnp.zeros((), jnp.int32)), "other": jnp.zeros(3)}
    model, swapped = swap_average({"w": jnp.zeros(2)}, state)
    assert model["w"].tolist() == [1, 1] and swapped["inner"].average["w"].tolist() == [0, 0]
    again, _ = swap_average(model, swapped)
    assert again["w"].tolist() == [0, 0]
    assert swap_average("weights", {"no": "average"}) == ("weights", {"no": "average"})


def test_norms_and_skipped_updates_are_logged(tmp_path, capfd):
    """Norms are means over the steps of a line in which they were finite, skipped updates their sum."""

    def at(step: int) -> Any:
        return batch_at(step) | ({"bad": np.ones(8, np.float32)} if step == 1 else {})

    train(linear_task(at, drop=0.0), Optim(0.01), Loop(4, 8, log_every=2, save_every=0), devices(1, 1, 1), tmp_path)
    first, second = lines(tmp_path)
    assert first["skipped_updates"] == 1 and second["skipped_updates"] == 0
    assert all(line[name] > 0 for line in (first, second) for name in ("grad_norm", "param_norm", "update_norm"))
    assert "step 2: 1 updates skipped since the last line: gradients were not finite" in capfd.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    ["adam", optax.sgd(0.1), type("NotFrozen", (), {"slots": 1, "build": None})()],
    ids=["string", "transformation", "class"],
)
def test_what_is_not_an_optimizer_is_refused(wrong):
    with pytest.raises(InputError, match=r"optim.optimizer is a \w+: give a frozen dataclass with build\(schedule\)"):
        check_optimizer(wrong)


def test_an_optimizer_can_be_hashed():
    @dataclass(frozen=True)
    class Listed(Momentum):
        decays: list = field(default_factory=lambda: [0.9, 0.99])

    with pytest.raises(InputError, match="optim.optimizer: Listed cannot be hashed: write decays as tuples"):
        Optim(0.1, optimizer=Listed())


def test_slots_are_a_number():
    @dataclass(frozen=True)
    class Wrong(Momentum):
        slots: Any = -1

    with pytest.raises(InputError, match="Wrong.slots is a number of arrays, at least 0; got -1"):
        check_optimizer(Wrong())
    assert issubclass(Momentum, Optimizer) and not issubclass(EncoderConfig, Optimizer)


def test_an_update_needs_no_mesh(no_mesh):
    """In plain JAX code."""
    weights = {"w": jnp.ones((8, 8))}
    transformation = Optim(0.1, warmup=0.0, optimizer=Adafactor(min_dim_size_to_factor=4)).transformation(4)
    updates, _ = jax.jit(transformation.update)(weights, transformation.init(weights), weights)
    assert np.isfinite(updates["w"]).all() and jax.sharding.get_abstract_mesh().empty
