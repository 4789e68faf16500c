"""Pre-training runs: golden losses, resume, directories that belong to another run, bad input."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmlm.data import Data, open_rows
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.json_files import read_jsonl
from jaxmlm.masking import Masking, SpanUnits
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.runs import epochs
from jaxmlm.runs.loading import from_transformers, load
from jaxmlm.runs.pretraining import _why_not_exported, pretrain
from jaxmlm.runs.results import read_results
from jaxmlm.runs.run import Run
from jaxmlm.tasks import mlm
from jaxmlm.tasks.mlm import HELD_OUT_RATES, mlm_task
from jaxmlm.training import Loop, Optim, evaluate

ONE = Mesh(data=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Run:
    """A run of 12 steps on 600 generated documents; its store is made once."""
    directory = tmp_path_factory.mktemp("runs")
    return Run(
        workdir=str(directory / "base"),
        data=Data(text="sample:600", store=str(directory / "store"), vocab=700, length=16, valid=0.05),
        masking=Masking(rate=0.4),
        model=EncoderConfig(layers=2, width=32, heads=2, positions="rope"),
        optim=Optim(learning_rate=3e-3),
        loop=Loop(steps=12, batch=8, save_every=4, log_every=1),
    )


@pytest.fixture(scope="module")
def one_device(base):
    """The run, done, on one of the eight devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_, real=jax.devices: real()[:1])
        return pretrain(base)


def losses(workdir: str | Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_jsonl(Path(workdir) / "log.jsonl") if "eval" not in row}


def test_golden_losses(base, one_device):
    """The whole road in five numbers: text, tokenizer, rows, masks, model, loss, optimiser."""
    got = [losses(base.workdir)[step] for step in (1, 3, 6, 9, 12)]
    assert got == pytest.approx(GOLDEN, abs=2e-3), (
        "the first steps of a small run changed. That is right only after a change to the generated text, the "
        "tokenizer's training, the order of rows, the masks, the initial weights or the optimiser; then store the new "
        "numbers and say in the commit which it was"
    )


def test_held_out_scores_and_files(base, one_device):
    pretrained, heldout = one_device["rows"]
    assert pretrained["tokens"] == 12 * 8 * 16
    assert set(heldout["scores"]) == {
        *(f"{what}@{rate:.2f}" for what in ("loss", "accuracy") for rate in HELD_OUT_RATES), "perplexity"
    }  # fmt: skip
    assert heldout["scores"]["perplexity"] == pytest.approx(np.exp(heldout["scores"]["loss@0.15"]))
    directory = Path(base.workdir)
    assert (directory / "DONE").exists() and read_results(directory / "results.jsonl") == one_device["rows"]
    record = json.loads((directory / "run.json").read_text())
    assert record["config"]["masking"]["rate"] == 0.4 and record["versions"]["jax"] == jax.__version__


def test_a_run_that_diverged_says_so_and_writes_json(base, one_device, tmp_path, capsys):
    """A huge learning rate: the loss is finite and the perplexity is not."""
    run = replace_path(replace_path(base, "workdir", str(tmp_path / "run")), "optim.learning_rate", 1e6)
    run = replace_path(run, "loop.steps", 3)
    rows = pretrain(run)["rows"]
    assert "the run diverged (held-out perplexity is not finite): try a lower optim" in capsys.readouterr().err
    for name in ("log.jsonl", "results.jsonl", "run.json"):
        text = (tmp_path / "run" / name).read_text()
        assert "Infinity" not in text and "NaN" not in text, name
    found = read_results(tmp_path / "run" / "results.jsonl")
    assert found[1]["scores"]["perplexity"] is None and found[0]["diverged"] == rows[0]["diverged"]
    assert pretrain(run)["rows"] == found  # read again
    assert "the run diverged" in capsys.readouterr().err


def test_a_finished_run_is_read_not_run_again(base, one_device):
    before = (Path(base.workdir) / "log.jsonl").read_bytes()
    assert pretrain(base)["rows"] == one_device["rows"]
    assert (Path(base.workdir) / "log.jsonl").read_bytes() == before


def test_a_killed_run_goes_on_bit_for_bit(base, one_device, tmp_path, monkeypatch):
    """Killed at step 7, after the checkpoint of step 4: the rest is the uninterrupted run, to the last bit."""
    monkeypatch.setattr(jax, "devices", lambda *_, real=jax.devices: real()[:1])
    run = replace(base, workdir=str(tmp_path / "killed"))
    from jaxmlm import logs

    record = logs.Log.record

    def dies(self, values, at):
        record(self, values, at)
        if at == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(logs.Log, "record", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain(run)
    monkeypatch.setattr(logs.Log, "record", record)
    pretrain(run)
    assert losses(run.workdir) == losses(base.workdir)
    a, b = (load(directory).model for directory in (run.workdir, base.workdir))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_jax_default_prng_changes_no_mask_weight_or_dropout(base, one_device, tmp_path, monkeypatch):
    """As JAX_DEFAULT_PRNG_IMPL=rbg, usual on TPUs, sets it: under vmap rbg's bits depend on the size of the batch."""
    monkeypatch.setattr(jax, "devices", lambda *_, real=jax.devices: real()[:1])
    run = replace(base, workdir=str(tmp_path / "rbg"))
    with jax.default_prng_impl("rbg"):
        assert str(jax.random.key_impl(jax.random.key(0))) == "rbg"
        pretrained = pretrain(run)
    assert losses(run.workdir) == losses(base.workdir)
    assert pretrained["rows"][1]["scores"] == one_device["rows"][1]["scores"]


@pytest.mark.slow("starts a process")
def test_the_environment_changes_no_mask(tmp_path):
    """Examples 4 to 7 get the same masks in a batch of four and in one of eight, and as without the variable."""
    program = """
import jax
import jax.numpy as jnp
import numpy as np
from jaxmlm.masking import Masking, Tokens, Vocab, mask_batch
from jaxmlm.rng import step_key
vocab = Vocab(90, 4, 0, np.arange(10, 90))
def masks(first):
    ids = jnp.arange(first, 8)
    row = jnp.broadcast_to(jnp.arange(10, 50), (8 - first, 40))
    tokens = Tokens(row, row > 12, jnp.ones_like(row, jnp.uint8))
    return np.asarray(mask_batch(Masking(0.4), step_key(3, 5), ids, tokens, vocab, 5).inputs)[-4:].tolist()
assert masks(4) == masks(0)
print(jax.config.jax_default_prng_impl, masks(0))
"""
    said = {}
    for kind in ("rbg", "threefry2x32"):
        environment = os.environ | {"JAX_DEFAULT_PRNG_IMPL": kind, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found, _, said[kind] = done.stdout.partition(" ")
        assert found == kind
    assert said["rbg"] == said["threefry2x32"]


@pytest.mark.slow("pre-trains on eight devices")
def test_the_mesh_changes_no_loss(base, one_device, tmp_path, eight_devices):
    """Eight devices, data x fsdp x tensor = 2 x 2 x 2, dropout included: the same run within rounding."""
    run = replace(base, workdir=str(tmp_path / "mesh"), mesh=Mesh(2, 2, 2))
    pretrain(run)
    there, here = losses(base.workdir), losses(run.workdir)
    assert [here[step] for step in there] == pytest.approx(list(there.values()), abs=1e-3)


def test_held_out_scores_do_not_depend_on_the_batch(base, one_device):
    mesh = make_mesh(ONE, jax.devices()[:1])
    store = open_store(base.data, Path(base.workdir))
    with jax.set_mesh(mesh):
        model = load(base.workdir).model
        scores = []
        for batch in (8, 24):
            task = mlm_task(store, base.data, base.masking, base.model, batch, 0)
            scores.append(evaluate(task.evals["heldout"], model, mesh))
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    assert scores[0] == pytest.approx(one_device["rows"][1]["scores"], rel=1e-5)


def test_held_out_scores_are_of_all_texts_of_the_split(base, one_device, monkeypatch):
    """A split has its texts one after the other, and the first rows are of the first file alone."""
    monkeypatch.setattr(mlm, "HELD_OUT_ROWS", 8)
    store = open_store(base.data, Path(base.workdir))
    rows = open_rows(store, "valid", base.data.length, base.data.format).rows
    taken = [batch["example"] for batch in mlm.heldout(store, base.data, batch=3).batches()]
    found = np.unique(np.concatenate(taken))
    assert len(found) == 8 and found[0] < rows // 2 <= rows * 3 // 4 < found[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("masking.rate", 0.2), r"holds another run: masking.rate is 0.4 there and 0.2 here: name another --workdir"),
        (("loop.steps", 13), r"loop.steps is 12 there and 13 here: .* and continue from this one with --init"),
        (("data.vocab", 650), r"data.vocab is 700 there and 650 here"),
    ],
)
def test_a_folder_of_another_run_is_refused(base, one_device, change, message):
    before = sorted(p.name for p in Path(base.workdir).iterdir())
    with pytest.raises(InputError, match=message):
        pretrain(replace_path(base, *change))
    assert sorted(p.name for p in Path(base.workdir).iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.text": "no/such/file.txt"}, r"no text file at 'no/such/file.txt'"),
        ({"data.text": "sample:many"}, r"write sample:N"),
        ({"data.text": "sample:3", "data.vocab": 20}, r"too small for the characters"),
        ({"data.text": "sample:3"}, r"too large for this text, which gives at most"),
        ({"loop.batch": 10_000}, r"loop.batch is 10000, but the text has only"),
        ({"mesh": Mesh(3)}, r"does not use exactly the 2 devices"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(base, tmp_path, changes, message):
    run = replace_path(base, "workdir", str(tmp_path / "bad"))
    if "data.text" in changes:
        run = replace_path(run, "data.store", None)
    for path, value in changes.items():
        run = replace_path(run, path, value)
    with pytest.raises(InputError, match=message):
        pretrain(run)
    assert not list(tmp_path.iterdir())


def test_rows_longer_than_the_position_table_are_refused(base):
    with pytest.raises(InputError, match="data.length 16 is above model.max_positions 8"):
        replace(base, model=replace(base.model, positions="learned", max_positions=8))


def test_a_folder_without_a_run_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="not the directory of a run"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("files", "asked", "said"),
    [
        (("study.json", "cells/a/run.json", "cells/b/run.json"), "", "the directory of a study; .*cells/a, .*cells/b"),
        (("study.json",), "", "a study without a cell that has begun"),
        (("finetune.json", "model/run.json"), "", "a fine-tuning; its best model is .*x/model"),
        (("finetune.json",), "", "a fine-tuning that has no model yet"),
        (("run.json", "checkpoints/8/model/a"), "checkpoints", "a part of a run; give .*x, or one of its steps"),
        (("run.json", "checkpoints/8/model/a"), "checkpoints/8/model", "a part of a run; give .*x, or"),
        (("rte/model/run.json", "cola/model/run.json"), "", "such directories in it: .*cola/model, .*rte/model"),
        (("snapshots/1f/config.json",), "", "such directories in it: .*snapshots/1f"),
        (("manifest.json",), "", "a token store, which holds text and no model"),
        (("a.txt",), "a.txt", "it is a file: give its directory"),
        ((), "none", "there is no directory "),
    ],
)
@pytest.mark.parametrize("read", [load, from_transformers])
def test_a_folder_that_is_no_checkpoint_is_told_what_it_is(read, files, asked, said, tmp_path):
    for file in files:
        (tmp_path / "x" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / file).touch()
    with pytest.raises(InputError, match=said):
        read(tmp_path / "x" / asked)


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_a_name_of_the_hub_without_its_prefix_is_a_folder(name):
    for read in (load, from_transformers):
        with pytest.raises(InputError, match=f"there is no directory {name}; .* name it hf:{name}"):
            read(name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"data": Data(model_type="bpe")}, "no tokenizer of the same ids"),
        ({"data": Data(byte_fallback=True)}, "no tokenizer of the same ids"),
        ({"model": EncoderConfig(biases=False)}, "cannot hold this encoder"),
    ],
    ids=str,
)
def test_what_export_will_refuse_is_said_at_the_start(change, why):
    assert why in _why_not_exported(Run(**change)) and bool(why) == bool(_why_not_exported(Run(**change)))


def test_one_step_of_a_run_is_a_checkpoint(base, one_device):
    steps = Path(base.workdir) / "checkpoints"
    with jax.set_mesh(make_mesh(Mesh())):
        newest, twelve, eight = (jax.tree.leaves(load(at).model) for at in (base.workdir, steps / "12", steps / "8"))
    assert all(map(np.array_equal, newest, twelve)) and not all(map(np.array_equal, newest, eight))
    assert load(steps / "8").about["config"]["loop"]["steps"] == 8
    with pytest.raises(InputError, match="checkpoints/9 is not a complete checkpoint: there are 8, 12"):
        load(steps / "9")
    assert Run(init=str(steps / "8")).text.tokenizer == base.workdir


GOLDEN = [6.5702, 6.404, 6.2952, 6.1811, 6.0588]


def test_what_no_run_can_have_is_refused():
    with pytest.raises(InputError, match="loop.best is for fine-tuning"):
        Run(loop=Loop(best="heldout/loss@0.15"))
    with pytest.raises(InputError, match="longest 10 is longer than a row's 6 tokens"):
        Run(data=Data(length=8), masking=Masking(units=SpanUnits()))


@pytest.mark.slow("pre-trains twice")
def test_a_run_goes_on_from_another_at_another_rate_on_other_text(base, one_device, tmp_path):
    """The weights and the tokenizer are those of the first run, the text and the masks are not."""
    run = Run(
        workdir=str(tmp_path / "on"),
        init=base.workdir,
        data=Data(text="sample:100", length=16, valid=0.05),
        masking=Masking(rate=0.15),
        model=EncoderConfig(dropout=0.0),
        loop=Loop(steps=0, batch=8),
    )
    rows = pretrain(run)["rows"]
    before, after = load(base.workdir), load(run.workdir)
    assert after.tokenizer.model == before.tokenizer.model
    assert (after.config.width, after.config.dropout, before.config.dropout) == (32, 0.0, 0.1)
    assert all(map(np.array_equal, jax.tree.leaves(before.model), jax.tree.leaves(after.model)))
    assert rows[1]["scores"]["loss@0.15"] < 0.98 * np.log(700)  # it has learned something already
    trained = replace_path(replace_path(run, "workdir", str(tmp_path / "more")), "loop.steps", 3)
    pretrain(trained)
    assert not all(map(np.array_equal, jax.tree.leaves(before.model), jax.tree.leaves(load(trained.workdir).model)))
    record = json.loads((tmp_path / "more" / "run.json").read_text())
    assert record["config"]["model"]["width"] == 32 and record["config"]["init"] == base.workdir


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": EncoderConfig(layers=3)}, "model.layers is 3 and the encoder in .* has 2: leave it out"),
        ({"init": "no/such/run"}, "there is no directory no/such/run"),
        ({"data": Data(tokenizer="a", length=16)}, "init and data.tokenizer are both given"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(base, one_device, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        pretrain(Run(**{"workdir": str(tmp_path / "x"), "init": base.workdir, "data": base.data, **changes}))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow("compiles for two devices and measures")
def test_a_budget_is_measured_once_and_then_a_number_of_steps(base, tmp_path, monkeypatch, capsys):
    """The number stands in run.json; a resume takes it from there, and says so when the budget is another."""
    from jaxmlm.runs import pretraining as module

    timed = []
    real = module.steps_within
    monkeypatch.setattr(
        module, "steps_within", lambda *a, **k: timed.append(min(real(*a, **k, timed=2), 4)) or timed[-1]
    )
    run = replace(base, workdir=str(tmp_path / "run"), mesh=Mesh(2), loop=replace(base.loop, budget="10s"))
    rows = pretrain(run)["rows"]
    assert timed == [4] and rows[0]["tokens"] == 4 * 8 * 16 and max(losses(run.workdir)) == 4
    (tmp_path / "run" / "DONE").unlink()
    pretrain(run)
    assert len(timed) == 1
    with pytest.raises(InputError, match="loop.budget is '10s' there and '20s' here"):
        pretrain(replace_path(run, "loop.budget", "20s"))
    of_a_pass = epochs.tokens_in(run.data, tmp_path / "run") / (8 * 16)
    few = replace(run, workdir=str(tmp_path / "few"), most_epochs=3.5 / of_a_pass)
    pretrain(few)
    assert max(losses(few.workdir)) == 3
    assert "is time for 4 steps, and 3 read the text" in capsys.readouterr().err


def test_how_the_work_is_cut_up_may_change_in_a_resume(base, one_device, tmp_path):
    directory = shutil.copytree(base.workdir, tmp_path / "again")
    run = replace_path(replace(base, workdir=str(directory)), "loop.accumulate", 2)
    assert pretrain(replace_path(run, "model.remat", "dots"))["rows"] == one_device["rows"]
