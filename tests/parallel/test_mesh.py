"""The table of axes, the mesh, and where rows go."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.parallel import Mesh, all_reduce, check_sizes, gathered, host_shard, keep_unreduced, make_mesh, place, spec


@pytest.mark.parametrize(
    ("logical", "physical"),
    [
        (("batch", None, None), (("data", "fsdp"), None, None)),
        (("embed", None, "heads", None), ("fsdp", None, "tensor", None)),
        (("mlp", "embed"), ("tensor", "fsdp")),
        (("vocab", "embed"), ("tensor", "fsdp")),
        ((), ()),
    ],
    ids=str,
)
def test_logical_axes_lie_on_mesh_axes(logical, physical):
    assert spec(*logical) == jax.P(*physical)


def test_an_unknown_axis_is_an_error():
    with pytest.raises(KeyError, match="width"):
        spec("width")


def test_minus_one_takes_the_devices_that_are_left():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(Mesh(fsdp=2, tensor=2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert make_mesh(Mesh(), jax.devices()[:3]).devices.size == 3
    assert set(make_mesh().axis_types) == {jax.sharding.AxisType.Explicit}


@pytest.mark.parametrize("wrong", [Mesh(3), Mesh(16), Mesh(4, 1, 1), Mesh(fsdp=3)], ids=str)
def test_a_mesh_that_does_not_use_the_devices_is_refused(wrong):
    with pytest.raises(InputError, match=f"data={wrong.data} fsdp={wrong.fsdp} .*8 devices.*product is 8"):
        make_mesh(wrong)


@pytest.mark.parametrize("sizes", [{"data": 0}, {"data": -2}, {"fsdp": 0}, {"tensor": -1}], ids=str)
def test_a_mesh_of_no_devices_is_refused(sizes):
    with pytest.raises(InputError, match=r"mesh\.\w+ is -?\d: it must"):
        Mesh(**sizes)


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
def test_rows_are_cut_over_data_and_fsdp(mesh):
    rows = np.arange(24, dtype=np.int32).reshape(8, 3)
    placed = place({"x": rows, "weight": rows[:, 0]}, mesh)
    assert placed["x"].sharding.spec == jax.P(("data", "fsdp"), None) and placed["weight"].shape == (8,)
    for shard in placed["x"].addressable_shards:
        np.testing.assert_array_equal(shard.data, rows[shard.index])
        assert shard.data.shape == (2, 3)
        at = np.argwhere(mesh.devices == shard.device)[0]
        assert shard.index[0].start == 2 * (2 * at[0] + at[1])


@pytest.mark.mesh(fsdp=4, tensor=2)
def test_gathered_parameters_are_whole_along_embed_only(mesh):
    stored = jax.device_put(np.ones((8, 4), np.float32), jax.NamedSharding(mesh, spec("vocab", "embed")))
    used = jax.jit(lambda x: gathered(x, "vocab", "embed"))(stored)
    assert used.sharding.spec == jax.P("tensor", None)
    gradient = jax.jit(jax.grad(lambda x: gathered(x, "vocab", "embed").sum()))(stored)
    assert gradient.sharding.spec == stored.sharding.spec


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
def test_gradients_that_are_apart_are_joined_to_those_of_all_rows(mesh):
    """Over `data` by hand; over `fsdp`, where a parameter is cut, by the scatter that gathering it implies."""
    stored = jax.device_put(np.ones((8, 4), np.float32), jax.NamedSharding(mesh, spec("embed", "mlp")))
    rows = jax.device_put(np.arange(32, dtype=np.float32).reshape(4, 8), jax.NamedSharding(mesh, spec("batch", None)))

    def total(parameter: jax.Array, rows: jax.Array) -> jax.Array:
        used = gathered(parameter, "embed", "mlp")
        return jax.numpy.einsum("bf,fd->bd", rows, used, out_sharding=spec("batch", "mlp")).sum()

    gradient = jax.jit(lambda p, rows: jax.grad(total)(keep_unreduced(p), rows))(stored, rows)
    assert jax.typeof(gradient).sharding.spec == jax.P("fsdp", "tensor", unreduced={"data"})
    whole = jax.jit(all_reduce)(gradient)
    assert whole.sharding == stored.sharding
    np.testing.assert_array_equal(whole, np.tile(np.arange(32).reshape(4, 8).sum(0)[:, None], (1, 4)))


pytestmark = pytest.mark.usefixtures("eight_devices")

BASE = [("model.width", 96, "embed"), ("model.heads", 6, "heads"), ("the vocabulary", 128, "vocab")]


@pytest.mark.parametrize(
    ("mesh", "batch", "message"),
    [
        (
            Mesh(8),
            12,
            r"loop.batch is 12, .* data=8 fsdp=1 .* 8 parts: take 16, .* --mesh.data 4 --mesh.fsdp 1 --mesh.tensor 2",
        ),
        (Mesh(2, 1, 4), 8, r"model.heads is 6, .* 4 parts: .*--mesh.data 2 --mesh.fsdp 2 --mesh.tensor 2"),
        (Mesh(1, 1, 8), 7, r"model.heads is 6, .* 8 parts: no mesh of 8 devices divides it and all else: take 8"),
        (Mesh(4, 2), 9, r"loop.batch is 9, .*8 parts: no mesh of 8 devices divides it and all else: take 8"),
    ],
    ids=str,
)
def test_a_mesh_that_does_not_divide_is_refused_with_the_nearest_that_does(mesh, batch, message):
    sizes = [("loop.batch", batch, "batch"), *BASE]
    with pytest.raises(InputError, match=message):
        check_sizes(make_mesh(mesh).shape, sizes)
    check_sizes(make_mesh(Mesh(4, 1, 2)).shape, [("loop.batch", 12, "batch"), *BASE])


@dataclass(frozen=True)
class Chip:
    """What a mesh is asked about its devices."""

    process_index: int


@pytest.mark.parametrize(
    ("shape", "process", "share"),
    [
        ((4, 2, 1), 1, (1, 4)),  # two rows of the batch's eight parts on each host
        ((2, 2, 2), 3, (3, 4)),
        ((1, 2, 4), 1, (0, 2)),  # tensor joins two hosts: they place the same rows
        ((1, 2, 4), 2, (1, 2)),
        ((1, 1, 8), 3, (0, 1)),
    ],
    ids=str,
)
def test_hosts_place_the_rows_of_their_devices(monkeypatch, shape, process, share):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    layout = np.empty(8, object)
    for i in range(8):
        layout[i] = Chip(i // 2)
    mesh = jax.sharding.Mesh(layout.reshape(shape), ("data", "fsdp", "tensor"))
    assert host_shard(mesh) == share


def test_rows_that_hosts_share_in_part_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    layout = np.empty(6, object)
    for i in range(6):
        layout[i] = Chip(i // 3)
    mesh = jax.sharding.Mesh(layout.reshape(3, 1, 2), ("data", "fsdp", "tensor"))
    with pytest.raises(InputError, match="divides rows of a batch among hosts"):
        host_shard(mesh)
