"""Programs compiled for real TPUs, ahead of time and without one: what libtpu says is what a pod would run."""

import json
import os
import subprocess
import sys

import pytest

from jaxmlm.cli import main

pytestmark = pytest.mark.parity
pytest.importorskip("libtpu", reason="compiles for TPUs: pip install libtpu")

PROGRAM = """
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from jaxmlm.models import Encoder, EncoderConfig
from jaxmlm.models.layers import dropout
from jaxmlm.parallel import Mesh, make_mesh, spec

chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = make_mesh(Mesh(2, 1, 2), list(chips))
config = EncoderConfig(layers=2, width=256, heads=4, positions="rope", attention_dropout=0.0, window=128)


def total(encoder, ids, segments, key):
    return encoder(ids, segments, key).astype(jnp.float32).sum()


short = replace(config, attention_dropout=0.1, window=32, dtype="bfloat16")
# libtpu's seconds grow with the tokens of a float32 program, to minutes at 16 rows of 2,048: long rows are few.
for kernel, config, shape in (
    ("plain", config, (2, 2048)), ("auto", config, (2, 2048)), ("plain", short, (16, 256)), ("auto", short, (16, 256)),
    ("auto", short, (2, 2048)),
):
    with jax.set_mesh(mesh):
        encoder = jax.eval_shape(lambda: Encoder(replace(config, attention=kernel), 1000, jax.random.key(0)))
        rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, spec("batch", None)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        made = jax.jit(jax.grad(total)).trace(encoder, rows, rows, key).lower(lowering_platforms=("tpu",)).compile()
        text = made.as_text()
        calls = {name for name in ("attention_forward", "attention_backward", "dropout_mask") if name in text}
        print(json.dumps([kernel, "splash" in text, sorted(calls), made.memory_analysis().temp_size_in_bytes]))

with jax.set_mesh(mesh):
    for length in (20, 128):
        where = NamedSharding(mesh, spec("batch", None, None))
        x = jax.ShapeDtypeStruct((8, length, 512), jnp.bfloat16, sharding=where)
        made = jax.jit(lambda key, x: dropout(key, 0.1, x)).trace(key, x).lower(lowering_platforms=("tpu",)).compile()
        print(json.dumps([made.as_text().count(" xor("), made.as_text().count("tpu_custom_call")]))

for name, options, sizes in (("v6e:4x4", {}, (8, 2, 1)), ("v4:4x4x4", {"chip_config_name": "megacore"}, (32, 1, 2))):
    chips = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    print(json.dumps(list(make_mesh(Mesh(*sizes), list(chips)).shape.values())))
"""


@pytest.fixture(scope="module")
def said():
    """What the program prints, line by line."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(map(json.loads, done.stdout.splitlines()))


def test_long_rows_get_the_kernel_and_need_less_memory(said):
    plain, auto = said[:2]
    assert not plain[1]
    assert auto[1]
    assert auto[3] < plain[3] / 2


def test_short_rows_get_the_kernel_with_dropout_within_and_need_less_memory(said):
    plain, auto = said[2:4]
    assert plain[2] == ["dropout_mask"]  # of the hidden states
    assert auto[2] == ["attention_backward", "attention_forward", "dropout_mask"]
    assert auto[3] < plain[3] / 2


def test_long_rows_with_attention_dropout_get_a_kernel_that_makes_no_scores(said):
    kernel, splash, calls, memory = said[4]
    assert (kernel, splash) == ("auto", False)
    assert calls == ["attention_backward", "attention_forward", "dropout_mask"]
    assert memory < 2 * 2048**2 * 4, "the scores of a device's row and two heads, in float32"


def test_dropout_does_not_compute_a_block_of_random_bits_for_each_entry(said):
    # Threefry's 20 rounds have an exclusive or each: two programs, for the two words of a block, and not four.
    odd, even = said[5:7]
    assert 20 <= odd[0] < 50
    assert odd[1] == 0
    assert even == [0, 1], "drawn by a kernel"


def test_an_axis_of_the_mesh_may_take_part_of_an_axis_of_the_slice(said):
    assert said[7:] == [[8, 2, 1], [32, 1, 2]]


def test_a_topology_that_libtpu_does_not_know_is_refused_with_those_it_knows(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    assert main(["plan", "configs/large.py", "--topology", "v5e:3x5", "--loop.batch", "60", "--mesh.fsdp", "1"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "v5e:3x5" in told and "v5e:2x2" in told


SMALL = ["--data.vocab", "2048", "--model.layers", "2", "--model.width", "256", "--model.heads", "4"]
QUICK = [*SMALL, "--model.dropout", "0", "--model.attention-dropout", "0", "--model.remat", "none"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Plan the large recipe, made small, with these options: the exit code and the plan of the first topology."""
    cache = tmp_path_factory.mktemp("plans")

    def run(capsys, *options: str, config: str = "configs/large.py"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JAXMLM_CACHE", str(cache))
            code = main(["plan", config, *QUICK, *options, "--json"])
        return code, json.loads(capsys.readouterr().out)["plans"][0]

    return run


DATA = ["--topology", "v5e:2x2", "--loop.batch", "64"]


def test_data_parallel_chips_add_up_each_gradient_once(planned, capsys):
    code, found = planned(capsys, *DATA)
    assert code == 0 and found["fits"] and found["chips"] == 4
    assert set(found["collectives"]) == {"all-reduce"}
    size = found["parameters"] // 4
    # A ring sends 2 (n - 1) / n of what it adds up. The maps' gradients are bfloat16, the table's float32.
    sent = found["collectives"]["all-reduce"]["bytes"] / (2 * 3 / 4)
    assert 2 * size < sent < 4.2 * size


def test_parts_of_a_batch_send_their_gradients_as_one_sum(planned, capsys):
    """In float32, as it is added up; each part by itself would send as much as the batch in one."""
    code, found = planned(capsys, *DATA, "--loop.accumulate", "4")
    assert code == 0 and set(found["collectives"]) == {"all-reduce"}
    sent = found["collectives"]["all-reduce"]["bytes"] / (2 * 3 / 4)
    assert sent < 1.1 * found["parameters"]


def test_fsdp_gathers_each_parameter_forward_and_backward(planned, capsys):
    code, found = planned(capsys, *DATA, "--mesh.fsdp", "2")  # groups of chips that are no neighbours
    assert code == 0
    _, whole = planned(capsys, *DATA)
    # Position tables and biases are whole on every chip.
    for part in ("parameters", "optimizer"):
        assert 0.5 < found[part] / whole[part] < 0.55
    kernels = 2 * 12 * 256**2  # of both layers, in bfloat16, forward and again backward
    assert 1 <= found["collectives"]["all-gather"]["bytes"] / (2 * kernels * 2 / 2) < 1.3
    assert all(part["bytes"] > 0 for part in found["collectives"].values())


def test_two_slices_are_compiled(planned, capsys):
    code, found = planned(capsys, *DATA, "--slices", "2")
    assert code == 0 and found["fits"] and found["chips"] == 8


LAW = """
from dataclasses import replace
from runpy import run_path

from jaxmlm.masking import Masking, Uniform


def config():
    return replace(run_path("configs/large.py")["config"](), masking=Masking(Uniform(0, 1)))
"""


def test_a_law_of_the_rate_is_compiled(planned, capsys, tmp_path):
    """Its rates are drawn for each row by its place, and the slots are pooled: as many as at the mean of the law."""
    (tmp_path / "law.py").write_text(LAW)
    code, law = planned(capsys, *DATA, config=str(tmp_path / "law.py"))
    assert code == 0, law
    _, constant = planned(capsys, *DATA, "--masking.rate", "0.5")
    assert law["moved"] < 1.15 * constant["moved"]
