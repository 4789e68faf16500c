"""Plans without a compiler for TPUs: FLOPs, memory, HLO, topologies, bad input. With one: tests/parity/test_tpu.py."""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from jaxmlm.cli import main
from jaxmlm.masking import Masking
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM, count_parameters
from jaxmlm.models.flops import flops
from jaxmlm.parallel import Mesh, spec, undivided
from jaxmlm.runs.run import Run
from jaxmlm.tools import hlo as compiled
from jaxmlm.tools import plan as plans
from jaxmlm.tools.hardware import GENERATIONS, chip_of, topology
from jaxmlm.tools.memory import alternatives, memory
from jaxmlm.training import Loop
from jaxmlm.wording import install_command

CONFIGS = {
    "pre": EncoderConfig(layers=2, width=32, heads=4),
    "post, own table": EncoderConfig(layers=3, width=16, heads=2, norm="post", tied=False, token_types=2),
    "modern": EncoderConfig(layers=2, width=32, heads=2, mlp=48, activation="geglu", biases=False, positions="rope"),
}


def products(jaxpr) -> float:
    """Floating-point operations of the matrix products in a traced program, loops turned as often as they turn."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (over, _), _ = equation.params["dimension_numbers"]
            shared = 1
            for axis in over:
                shared *= equation.invars[0].aval.shape[axis]
            total += 2.0 * equation.outvars[0].aval.size * shared
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            total += turns * products(inner)
    return total


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_flops_and_parameters_are_those_of_the_traced_model(config):
    vocab, rows, length, predicted = 128, 3, 24, 10
    model = jax.eval_shape(lambda key: MaskedLM(Encoder(config, vocab, key), key), jax.random.key(0))
    ids, at = jnp.zeros((rows, length), jnp.int32), jnp.zeros((rows, predicted), jnp.int32)
    traced = jax.make_jaxpr(lambda model, ids, at: model.logits(model.hidden(ids, ids), at))(model, ids, at)
    assert products(traced.jaxpr) == flops(config, vocab, rows, length, predicted).forward
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == count_parameters(config, vocab)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_computed_again_is_that_of_the_traced_gradient(config):
    counted = flops(config, 128, 3, 24, 10)
    ids, at = jnp.zeros((3, 24), jnp.int32), jnp.zeros((3, 10), jnp.int32)
    for remat, again in (("none", 0.0), ("dots", counted.attention), ("full", counted.recomputed)):
        encoder = replace(config, remat=remat)
        model = jax.eval_shape(lambda key, e=encoder: MaskedLM(Encoder(e, 128, key), key), jax.random.key(0))
        traced = jax.make_jaxpr(jax.grad(lambda m: jnp.square(m.logits(m.hidden(ids, ids), at)).sum()))(model)
        assert products(traced.jaxpr) == pytest.approx(counted.training + again), remat


def test_a_window_costs_what_is_seen():
    every = EncoderConfig(layers=4, width=32, heads=2, positions="rope")
    near = replace(every, window=8, global_every=4)
    length = 64
    seen = sum(min(i + 4, length - 1) - max(i - 4, 0) + 1 for i in range(length)) / length
    whole = flops(every, 128, 1, length, 1).attention / 4
    assert flops(near, 128, 1, length, 1).attention == pytest.approx(whole * (1 + 3 * seen / length))


@pytest.mark.mesh(fsdp=4)
def test_a_loop_counts_as_often_as_it_turns():
    def layers(x, kernels, unroll):
        def layer(x, kernel):
            kernel = jax.sharding.reshard(kernel, spec(None, None))  # FSDP's all-gather
            return jnp.tanh(jnp.einsum("BD,DF->BF", x, kernel, out_sharding=spec("batch", None))), None

        return jax.lax.scan(layer, x, kernels, unroll=unroll)[0]

    x = jax.device_put(jnp.ones((8, 64)), spec("batch", None))
    kernels = jax.device_put(jnp.ones((6, 64, 64)), spec(None, "embed", None))
    looped, flat = (
        compiled.read(jax.jit(lambda x, k, n=n: layers(x, k, n)).lower(x, kernels).compile().as_text()) for n in (1, 6)
    )
    assert any(line.op == "while" for lines in looped.computations.values() for line in lines)
    for program in (looped, flat):
        found = program.collectives()
        assert {one.kind for one in found} == {"all-gather"} and sum(one.times for one in found) == 6
        assert sum(one.bytes for one in found) == 6 * 64 * 64 * 4 * 3 / 4
    assert looped.moved() > 6 * 64 * 64 * 4


TPU = """HloModule step, is_scheduled=true

%all-reduce-scatter.1 (input: f32[64,128]) -> f32[64,32] {
  %input = f32[64,128]{1,0} parameter(0)
  ROOT %all-reduce.5 = f32[64,128]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
}

%start (p: bf16[8,16]) -> (bf16[8,16], bf16[8,64]) {
  %p = bf16[8,16]{1,0:S(1)} parameter(0)
  %all-gather.1 = bf16[8,64]{1,0} all-gather(%p), replica_groups=mesh['a'=1,'b'=4] {'b'}, dimensions={1}
  ROOT %custom-call.1 = (bf16[8,16], bf16[8,64]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[8,16]) -> bf16[8,64] {
  %p = bf16[8,16]{1,0:S(1)} parameter(0)
  ROOT %all-gather.2 = bf16[8,64]{1,0} all-gather(%p), replica_groups=mesh['a'=1,'b'=4] {'b'}, dimensions={1}
}

%slices (p: f32[10,256], i: s32[]) -> f32[1,256] {
  %p = f32[10,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %dynamic-slice.1 = f32[1,256]{1,0} dynamic-slice(%p, %i, %zero), dynamic_slice_sizes={1,256}
}

%laid (p: f32[10,256]) -> f32[10,256] {
  %p = f32[10,256]{1,0} parameter(0)
  ROOT %copy.1 = f32[10,256]{0,1} copy(%p)
}

%within (p: f32[10,256], i: s32[]) -> f32[1,256] {
  %p = f32[10,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %otherwise = f32[10,256]{0,1} fusion(%p), kind=kLoop, calls=%laid
  ROOT %slice.1 = f32[1,256]{1,0} fusion(%otherwise, %i), kind=kLoop, calls=%slices
}

%condition (s: (s32[], f32[10,256])) -> pred[] {
  %ten = s32[]{:T(128)} constant(10)
  %s = (s32[]{:T(128)}, f32[10,256]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  ROOT %lt = pred[] compare(%i, %ten), direction=LT
}

%body (s: (s32[], f32[10,256])) -> (s32[], f32[10,256]) {
  %s = (s32[], f32[10,256]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %all = f32[10,256]{1,0} get-tuple-element(%s), index=1
  %one = f32[1,256]{1,0:T(8,128)S(1)} fusion(%all, %i), kind=kOutput, calls=%within
  %q = bf16[8,16]{1,0:S(1)} constant(0)
  %begun = (bf16[8,16]{1,0:S(1)}, bf16[8,64]{1,0:S(1)}) fusion(%q), kind=kCustom, calls=%start
  %goes = bf16[8,64]{1,0:S(1)} fusion(%q), kind=kOutput, calls=%async_collective_fusion.1
  ROOT %t = (s32[], f32[10,256]{1,0}) tuple(%i, %all)
}

ENTRY %main (a: f32[10,256], g: f32[64,128]) -> f32[64,32] {
  %a = f32[10,256]{1,0} parameter(0)
  %g = f32[64,128]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %state = (s32[], f32[10,256]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[10,256]{1,0}) while(%state), condition=%condition, body=%body
  ROOT %summed = f32[64,32]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_what_tpus_write_is_read():
    program = compiled.read(TPU)
    kinds = {one.kind: one for one in program.collectives()}
    assert kinds["reduce-scatter"][1:] == (1, 4, 64 * 128 * 4 * 3 / 4, False)
    assert kinds["all-gather"][1:] == (10, 4, 10 * 8 * 64 * 2 * 3 / 4, True)
    # Ten slices of a KiB and the counter beside them, and the gradient with what is left of it.
    assert program.moved() == 10 * (1024 + 4) + 64 * 128 * 4 + 64 * 32 * 4


def test_an_array_that_a_kernel_reads_in_several_places_is_moved_once():
    text = """HloModule step, is_scheduled=true

ENTRY %main (x: bf16[4,128]) -> bf16[2,128] {
  %x = bf16[4,128]{1,0} parameter(0)
  ROOT %kernel.1 = bf16[2,128]{1,0} custom-call(%x, %x, %x), custom_call_target="tpu_custom_call"
}
"""
    assert compiled.read(text).moved() == (4 + 2) * 128 * 2


def test_topologies():
    for generation, one in GENERATIONS.items():
        assert all(topology(f"{generation}:{size}").generation == generation for size in one.slices)
    assert topology("v5e:16x16").chips == 256 and topology("v4:2x2x2").options["chip_config_name"] == "megacore"


@pytest.mark.parametrize(
    ("name", "said"), [("v9:4x4", "v5e:"), ("v5e:4", "v5e:4x4"), ("v5e:4x4x4", "v5e:16x16"), ("v5e:32x32", "256 chips")]
)
def test_a_topology_that_is_none_is_refused_with_those_there_are(name, said, capsys):
    assert main(["plan", "configs/large.py", "--topology", name]) == 2
    told = capsys.readouterr().err
    assert name in told and said in told and told.count("\n") == 1


def test_a_plan_without_libtpu_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    assert main(["plan", "configs/large.py", "--topology", "v5e:4x4", "--json"]) == 2
    assert install_command("tpu") in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--loop.batch", "100"], "take 96, or the nearest mesh"),
        (["--mesh.fsdp", "3"], "16 devices"),
        (["--mesh.tensor", "16", "--model.heads", "8"], "--mesh.tensor 8"),
        (["--init", "somewhere"], "leave out init"),
        (["--slices", "0"], "slices"),
        (["--slices", "2", "--mesh.fsdp", "32"], "data=1 does not divide over 2 slices"),
        (["--masking.rate", "0.2", "--masking.predict", "0.4", "--loop.batch", "8"], "loop.batch is 8, which"),
    ],
)
def test_what_cannot_be_cut_up_is_refused(flags, said, capsys):
    assert main(["plan", "configs/large.py", "--topology", "v5e:4x4", *flags]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_other_ways_divide_and_take_less_memory():
    model = EncoderConfig(layers=4, width=256, heads=4, dtype="bfloat16")
    run = Run(masking=Masking(0.4), model=model, loop=Loop(batch=256))
    ways = list(alternatives(run, 16))
    assert len(ways) > 20
    assert not any(undivided(way.mesh.over(16), way.sizes) for way in ways)
    odd = replace(run, loop=Loop(batch=96))  # a multiple of 32 only
    assert {way.loop.accumulate for way in alternatives(odd, 1)} == {1, 2, 4, 8, 16, 32}
    assert ways[0].loop.accumulate == 1 and ways[0].model.remat == "none"
    usual = memory(run, 4096, 16)
    less = memory(replace(run, model=replace(model, remat="full")), 4096, 16)
    assert less.kept < usual.kept / 4 and less.parameters == usual.parameters
    parted = memory(replace(run, loop=replace(run.loop, accumulate=4)), 4096, 16)
    assert parted.kept == usual.kept / 4 and parted.head == usual.head / 4
    assert memory(replace(run, mesh=Mesh(-1, 4, 1)), 4096, 16).optimizer == usual.optimizer / 4
    assert all(way.mesh.over(16)["data"] % 4 == 0 for way in alternatives(run, 16, slices=4))
    # The kernel for long rows makes no scores: memory grows with the length, not with its square.
    long = replace(
        run, model=replace(model, attention_dropout=0.0, positions="rope"), data=replace(run.data, length=8192)
    )
    assert memory(long, 4096, 16).block == pytest.approx(8 * memory(replace(
        long, data=replace(run.data, length=1024)), 4096, 16).block
    )  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "by_formula", "tries", "code"), [(512, 1.0, 2, 0), (512, 10.0, 3, 1), (4096, 1.0, 2, 0)]
)
def test_another_way_is_compiled_until_one_fits(batch, by_formula, tries, code, monkeypatch, tmp_path, capsys):
    """The compiler is played here (real ones: docs/results/plan.md); what it says may be more than the formula's.

    The batch of 4,096 wants eleven times the memory there is: of that the formula alone decides.
    """
    asked = []

    def compiler(run, where, slices):
        asked.append(run)
        total = by_formula * memory(run, run.data.vocab, where.chips * slices).total
        limit = 15.75 * 2**30
        fits = {"fits": True, "temporaries": 0, "moved": 1e9, "collectives": {}} if total <= limit else {"fits": False}
        return fits | {"total": total, "limit": limit, "parameters": 1, "optimizer": 2, "seconds": 0.0}

    monkeypatch.setattr(plans, "compiled_for", compiler)
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    words = ["plan", "configs/large.py", "--topology", "v5e:2x2", "--model.remat", "none", "--json"]
    words += ["--loop.batch", str(batch)]
    assert main(words) == code
    told = capsys.readouterr()
    [found] = json.loads(told.out)["plans"]
    compiled = tries - (batch == 4096)
    assert len(asked) == compiled and len(found["tried"]) == tries and not found["fits"]
    assert [one["fits"] for one in found["tried"]] == [False] * (tries - 1) + [code == 0]
    if code == 0:
        assert found["instead"] == found["tried"][-1]["flags"] != "" and found["bound"] > 0
    else:
        assert found["instead"] is None and "bound" not in found and "no way was found that fits" in told.err
    assert main(words) == code and len(asked) == compiled  # found again
    assert main([*words, "--data.text", "other/*.txt"]) == code and len(asked) == compiled
    main([*words, "--model.norm", "post"])
    assert len(asked) == 2 * compiled


def test_only_a_plan_of_the_same_program_is_found_again(monkeypatch, tmp_path):
    """How the work is cut up is not part of what makes two runs the same run, but it is of the program."""
    asked = []
    made = {"fits": True, "temporaries": 0, "moved": 1e9, "collectives": {}, "total": 1.0, "seconds": 0.0}
    made |= {"parameters": 1, "optimizer": 2, "limit": 1.0}
    monkeypatch.setattr(plans, "compiled_for", lambda *program: asked.append(program) or made)
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    ways = ["", "--model.remat dots", "--model.logits-chunk 8", "--loop.accumulate 2", "--mesh.fsdp 2", "--slices 2"]
    for number, way in enumerate([*ways, *ways]):
        words = ["plan", "configs/large.py", "--topology", "v5e:2x2", "--loop.batch", "64", "--json"]
        assert main([*words, *way.split()]) == 0
        assert len(asked) == min(number + 1, len(ways))
    for kept in (tmp_path / "plans").iterdir():  # a number in it is another one, or it is torn
        kept.write_text(kept.read_text().replace("1.0", "3.0"))
    assert main([*words, *ways[-1].split()]) == 0 and len(asked) == len(ways) + 1
    for kept in (tmp_path / "plans").iterdir():
        kept.write_text(kept.read_text()[:20])
    assert main([*words, *ways[-1].split()]) == 0 and len(asked) == len(ways) + 2


@pytest.mark.parametrize(
    ("flags", "fits", "tries"),
    [
        (["--model.remat", "none", "--loop.batch", "64"], True, 3),  # the fastest way already
        (["--model.remat", "full", "--loop.batch", "64"], False, 3),
        (["--mesh.data", "1", "--mesh.tensor", "4", "--loop.batch", "1"], True, 1),  # no other way divides
    ],
)
def test_a_search_finds_a_faster_way_or_the_run_as_it_is(flags, fits, tries, monkeypatch, tmp_path, capsys):
    made = {"fits": True, "temporaries": 0, "moved": 1e9, "collectives": {}, "total": 1.0, "seconds": 0.0}
    monkeypatch.setattr(plans, "compiled_for", lambda *_: made | {"parameters": 1, "optimizer": 2, "limit": 1.0})
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    assert main(["plan", "configs/large.py", "--topology", "v5e:2x2", *flags, "--search", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["plans"]
    assert found["fits"] == fits and (found["instead"] is None) == fits and len(found["tried"]) == tries
    assert found["bound"] == min(one["bound"] for one in found["tried"])


def test_a_search_goes_by_what_was_compiled_and_not_by_the_formula(monkeypatch, tmp_path, capsys):
    """The formula puts remat none first; the program of `dots`, here, moves the fewest bytes and is bound by them."""
    made = {"fits": True, "temporaries": 0, "collectives": {}, "total": 1.0, "seconds": 0.0}
    made |= {"parameters": 1, "optimizer": 2, "limit": 1.0}
    moved = {"none": 3e12, "dots": 2e12, "full": 4e12}
    monkeypatch.setattr(plans, "compiled_for", lambda run, *_: made | {"moved": moved[run.model.remat]})
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    words = ["plan", "configs/large.py", "--topology", "v5e:2x2", "--loop.batch", "64", "--search", "--json"]
    assert main(words) == 0
    [found] = json.loads(capsys.readouterr().out)["plans"]
    assert found["instead"] == "--model.remat dots" and found["bounds"]["memory"] == found["bound"]
    assert sorted(one["flags"] for one in found["tried"]) == ["", "--model.remat dots", "--model.remat none"]


def test_chips_are_found_by_what_jax_calls_them():
    assert chip_of("NVIDIA H200").name == "H200" and chip_of("NVIDIA H100 PCIe").name == "H100 PCIe"
    assert chip_of("TPU v6 lite").flops == 918e12 and chip_of("a toaster") is None
    json.dumps(chip_of("TPU v4"))
