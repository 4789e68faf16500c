"""Adaptation to a domain: the control is the encoder as it was given, and what is compared per word."""

from pathlib import Path

import numpy as np
import pytest

from jaxmlm import config
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Run
from jaxmlm.runs.loading import load
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.studies import Study, run_study
from jaxmlm.studies.comparisons import compare_with_controls
from jaxmlm.studies.estimate import Assumed
from jaxmlm.studies.grid import cells_of, original
from jaxmlm.studies.results import CellResult, collect
from jaxmlm.studies.score_table import score_columns
from jaxmlm.studies.verdict import against_control
from jaxmlm.training import Loop

ADAPT = Path(__file__).parents[2] / "configs" / "adapt.py"


def test_the_control_is_the_encoder_as_it_was_given():
    """With its own tokenizer, so with a store of its own; one for all seeds."""
    study = config.load(ADAPT, ["--init", "runs/base", "--text", "a.txt", "--new-words", "7", "--seeds", "3", "4"])
    cells = cells_of(study)
    controls = [cell for cell in cells if cell.control]
    assert {cell.run.data.new_words for cell in cells if not cell.control} == {7}
    assert {(c.run.data.new_words, c.run.data.store, c.run.loop.seed) for c in controls} == {
        (0, "runs/adapt/store-as-given", 3)
    }
    assert [c.seed for c in controls] == [3, 4] and original(controls[1], cells) is controls[0]
    plain = cells_of(replace_path(study, "run.data.new_words", 0))
    assert {cell.run.data.store for cell in plain} == {"runs/adapt/store"}


def test_the_config_has_rates_and_a_rate_that_falls():
    study = config.load(ADAPT, ["--rates", "0.15", "0.4", "--falling", "--steps", "90", "--task", "my.csv"])
    (axis,) = study.vary
    assert axis.names == ("0.15", "0.40", "0.30 to 0.15 to 0.05")
    falling = axis.values[-1]
    assert [round(float(falling.rate * falling.schedule(step)), 4) for step in (0, 29, 30, 59, 60, 89)] == [
        0.30, 0.30, 0.15, 0.15, 0.05, 0.05
    ]  # fmt: skip
    assert (study.run.loop.steps, study.finetune[0].task, study.general) == (90, "my.csv", None)


def test_rates_that_round_alike_have_names_of_their_own():
    (axis,) = config.load(ADAPT, ["--rates", "0.12", "0.125"]).vary
    assert [masking.rate for masking in axis.named.values()] == [0.12, 0.125]
    with pytest.raises(InputError, match=r"the names 0.15, 0.15 are not all different"):
        config.load(ADAPT, ["--rates", "0.15", "0.15"])


def results(given_tokens_per_word: float, stage: str = "general"):
    def line(cell: str, control: bool, per_word: float, loss: float) -> list[dict]:
        about = {"cell": cell, "values": {} if control else {"masking": "0.15"}, "control": control, "seed": 0}
        about |= {"given": True} if control else {}
        scores = {"bound": loss, "bits_per_word": per_word * loss, "tokens_per_word": per_word, "curve@0.05": loss}
        return [
            {**about, "stage": "heldout", "task": "mlm", "scores": {"perplexity": 9.0}},
            {**about, "stage": "bound", "task": "heldout", "scores": scores},
            {**about, "stage": stage, "task": "text", "scores": {"bound": 3.0, "bits_per_word": 8.0}},
        ]

    lines = [*line("a", False, 1.5, 4.0), *line("control", True, given_tokens_per_word, 3.0)]
    return collect(CellResult.from_json(one) for one in lines)


def test_nats_per_token_of_two_tokenizers_are_not_compared():
    """The given encoder cuts words into more tokens, each of which is easier: its bound per token is lower."""
    found = results(3.0)
    for name in ("bound/bound", "bound/curve@0.05", "heldout/perplexity", "general/bound"):
        assert list(found.series[name].by_label) == ["0.15"], name
    for name in ("bound/bits_per_word", "general/bits_per_word", "bound/tokens_per_word"):
        assert list(found.series[name].by_label) == ["0.15", "as it was given"], name
    assert "as it was given" in results(1.5).series["bound/bound"].by_label


def test_a_given_encoder_that_is_fine_tuned_once_is_no_sample_of_three():
    """Its one fine-tuning stands under every seed: three equal scores would be a control without any variance."""

    def line(cell: str, seed: int, score: float) -> CellResult:
        about = {"cell": f"{cell},{seed}", "control": cell == "control", "seed": seed, "stage": "finetune"}
        about |= {"values": {}, "given": True} if cell == "control" else {"values": {"masking": cell}}
        return CellResult.from_json({**about, "task": "rte", "main": "accuracy", "scores": {"accuracy": score}})

    scores = {"0.15": (0.61, 0.63, 0.62), "0.40": (0.65, 0.66, 0.64), "control": (0.5, 0.5, 0.5)}
    found = collect(line(cell, seed, score) for cell, of in scores.items() for seed, score in enumerate(of))
    assert found.series["rte"].spread("as it was given") == (0.5, None, 1)
    compared = compare_with_controls(found, found.series["rte"])
    assert [one.difference for one in compared] == pytest.approx([0.12, 0.15])
    assert all(np.isnan(one.p) for one in compared)
    said = against_control(found, found.series["rte"], "RTE").statements
    assert said[-1] == "1 seed, so no error bar."


def test_the_general_text_is_a_score_of_its_own():
    found = results(1.5)
    assert found.series["bound/bound"].by_label["0.15"] == {0: 4.0}
    assert [column.heading for column in score_columns(found)][:4] == [
        "bound (nats)", "bits per word", "general: bits per word", "tokens per word"
    ]  # fmt: skip
    assert "tokens per word" not in [column.heading for column in score_columns(results(1.5, stage="bound"))]


def test_a_general_text_needs_the_bound():
    with pytest.raises(InputError, match="general is a text for the likelihood bound, which is left out"):
        Study(general="a.txt", bound=None)


def test_a_dry_run_counts_the_encoder_that_is_continued(checkpoint, tmp_path):
    """Not the sizes that the configuration would give to a new one."""
    (tmp_path / "my.txt").write_text("the old baker lives by the river.\n\n" * 2000)
    words = ["--text", str(tmp_path / "my.txt"), "--rates", "0.4", "--seeds", "0", "--steps", "10"]
    words += ["--workdir", str(tmp_path / "work"), "--run.data.length", "16", "--run.loop.batch", "8"]
    given = config.load(ADAPT, ["--init", checkpoint, *words])
    given = replace_path(given, "assume", Assumed("a slow machine", 1e6))
    loaded = load(checkpoint)
    own = replace_path(replace_path(given, "run.init", None), "run.model", loaded.config)
    own = replace_path(own, "run.data.vocab", loaded.encoder.vocab)
    first, second = (run_study(one, dry_run=True)["cells"][0]["estimated_seconds"] for one in (given, own))
    assert first == second > 100
    bigger = replace_path(own, "run.model", EncoderConfig())
    assert run_study(bigger, dry_run=True)["cells"][0]["estimated_seconds"] > 2 * first


@pytest.mark.slow("runs a study that continues from a run")
def test_adapting_a_run_gives_a_table_of_before_and_after(tmp_path):
    small = ["--data.text", "sample:200", "--data.length", "16", "--data.valid", "0.1"]
    base = config.from_flags(Run, [*small, "--workdir", str(tmp_path / "base"), "--data.vocab", "400"], Run())
    for path, value in (("model.layers", 1), ("model.width", 16), ("model.heads", 2), ("loop", Loop(0, 8))):
        base = replace_path(base, path, value)
    pretrain(base)
    (tmp_path / "my.txt").write_text("the old baker has a tachycardia by the river.\n\n" * 200)
    (tmp_path / "general.txt").write_text("the old baker lives by the river.\n\n" * 9)
    words = ["--init", str(tmp_path / "base"), "--text", str(tmp_path / "my.txt"), "--new-words", "1", "--rates", "0.4"]
    words += ["--general", str(tmp_path / "general.txt"), "--steps", "1", "--seeds", "0", "1"]
    words += ["--workdir", str(tmp_path / "work"), "--run.data.length", "16", "--run.loop.batch", "8"]
    study = config.load(ADAPT, words)
    found = run_study(study)
    before, after = found["controls"]["as it was given"]["scores"], found["values"]["0.40"]["scores"]
    assert before["bound/tokens_per_word"]["mean"] > 1.2 * after["bound/tokens_per_word"]["mean"]
    assert {"bound/bits_per_word", "general/bits_per_word"} <= set(before) & set(after) and "bound/bound" not in before
    with pytest.raises(InputError, match="nothing.txt"):
        run_study(replace_path(study, "general", str(tmp_path / "nothing.txt")))
