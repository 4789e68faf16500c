"""The main job in small: the quickstart's twin, through the command line; what is found again; what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest

from jaxmlm.cli import main
from jaxmlm.config import load
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.json_files import read_jsonl, to_json, with_checksum
from jaxmlm.masking import Masking
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Finetune, ZeroShot, recipe
from jaxmlm.runs.finetuning import check
from jaxmlm.runs.workdir import read_metadata
from jaxmlm.studies import Assumed, Vary, run_study
from jaxmlm.studies.grid import original
from jaxmlm.studies.study import _check, cells_of, store_run
from jaxmlm.studies.titles import is_generated, titled
from jaxmlm.tools.prepare import prepare

CONFIGS = Path(__file__).parents[2] / "configs"
STAGES = ["pretrain", "heldout", "bound", "blimp", "finetune"]


def command(capsys, *words: str) -> dict:
    """A command that ends well: the JSON object on its last line."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The twin, on two rates and one task."""
    study = load(CONFIGS / "quickstart.py", ["--small", "--workdir", str(tmp_path_factory.mktemp("study") / "work")])
    for path, value in (
        ("vary", (Vary("masking.rate", (0.15, 0.80)),)),
        ("finetune", study.finetune[:1]),
        ("zero_shot", ZeroShot(pairs=4)),
        ("run.loop.steps", 6),
        ("run.model.layers", 1),
        ("run.data.text", "sample:1000"),
    ):
        study = replace_path(study, path, value)
    return study


@pytest.fixture(scope="module")
def done(study):
    return run_study(study)


@pytest.mark.slow("the quickstart whole: four cells, eight fine-tunings")
def test_the_quickstart_gives_what_the_report_needs(tmp_path, capsys):
    work = tmp_path / "work"
    result = command(capsys, "study", str(CONFIGS / "quickstart.py"), "--small", "--workdir", str(work))
    assert list(result["rates"]) == ["0.15", "0.40", "0.80"] and "verdict" in result
    for rate in result["rates"].values():
        assert {"loss@0.15", "loss@0.40", "loss@0.80", "perplexity"} <= set(rate["heldout"])
        assert {"blimp", "cola", "squad"} <= set(rate["scores"])
        assert all({"mean", "sd", "n"} <= set(score) for score in rate["scores"].values())
        assert rate["tokens_per_second"] > 0 and rate["seconds"] > 0
    page = (work / "report.html").read_text()
    assert "cola (generated)" in page and "BLiMP (generated), accuracy" in page and "tuned mean (generated)" in page
    assert "no evidence about masking rates" in page and "http-equiv" not in page and 'src="http' not in page

    again = command(capsys, "study", str(CONFIGS / "quickstart.py"), "--small", "--workdir", str(work))
    assert again == result
    assert command(capsys, "report", str(work)) == result
    assert len(read_jsonl(work / "results.jsonl")) == 4 * 6  # appended once: 4 cells of 6 lines


def test_finetune_and_evaluate_from_the_command_line(study, done, capsys):
    checkpoint = str(Path(study.workdir) / "cells" / "rate=0.15,seed=0")
    tuned = command(
        capsys, "finetune", checkpoint, "--task", "cola", "--data", "sample:", "--epochs", "0.1", "--seeds", "0", "1"
    )
    assert [row["tuning_seed"] for row in tuned["rows"]] == [0, 1]
    judged = command(capsys, "evaluate", checkpoint, "--pairs", "4")
    assert 0 <= judged["rows"][0]["scores"]["accuracy"] <= 1


def test_a_killed_study_goes_on(study, done):
    """A cell whose fine-tuning is missing gets only that; nothing else is run again."""
    cell = Path(study.workdir) / "cells" / "rate=0.15,seed=0"
    lines = (cell / "results.jsonl").read_text().splitlines(keepends=True)
    log = (cell / "log.jsonl").read_bytes()
    (cell / "results.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])  # a kill in the middle of a line
    again = run_study(study)
    assert [again["rates"][rate]["heldout"] for rate in again["rates"]] == [
        done["rates"][rate]["heldout"] for rate in done["rates"]
    ]
    assert again["rates"]["0.15"]["scores"] == done["rates"]["0.15"]["scores"]  # tuned again, to the same score
    assert (cell / "log.jsonl").read_bytes() == log
    assert [row["stage"] for row in read_jsonl(cell / "results.jsonl")] == STAGES


def test_the_report_says_where_the_cells_were_trained(study, done):
    """Not where it was drawn; a cell of another machine is told apart."""
    work = Path(study.workdir)
    path = work / "cells" / "rate=0.8,seed=0" / "run.json"
    before = path.read_text()
    path.write_text(to_json(with_checksum(read_metadata(path) | {"device": "8 x TPU v9", "git": "abc1234"})))
    run_study(study)
    origin = json.loads((work / "report.json").read_text())["origin"]
    assert "8 x TPU v9, Python" in origin["machine"] and origin["machine"].count("(2 cells)") == 1
    assert "abc1234 (1 cell)" in origin["commit"] and ";" not in origin["versions"]
    path.write_text(before)


def test_equal_pretrainings_are_shared(study):
    """Two names for one value: two cells, one training."""
    twice = replace_path(study, "vary", (Vary("masking.rate", (0.15, 0.15), ("a", "b")),))
    cells = cells_of(twice)
    assert [c.name for c in cells] == ["rate=a,seed=0", "rate=b,seed=0", "control,seed=0"]
    assert original(cells[1], cells) is cells[0] and original(cells[2], cells) is cells[2]


def test_the_control_is_the_encoder_of_its_cells(study):
    """What makes another encoder before any training has a control of its own, what does not has none."""
    models = tuple(EncoderConfig(layers=n, width=16, heads=2) for n in (1, 2))
    axes = (Vary("masking.rate", (0.15, 0.80)), Vary("model", models, ("one", "two")))
    controls = [cell for cell in cells_of(replace_path(study, "vary", axes)) if cell.control]
    assert [cell.name for cell in controls] == ["control,model=one,seed=0", "control,model=two,seed=0"]
    assert [cell.run.model for cell in controls] == list(models)
    assert [cell.run.masking for cell in controls] == [study.run.masking] * 2


@pytest.mark.slow("runs a study")
def test_a_study_that_goes_on_from_an_encoder_has_it_as_its_control(study, done, tmp_path):
    """And reads it before anything else: what does not fit it is refused."""
    start = Path(study.workdir) / "cells" / "control,seed=0"
    on = replace_path(replace_path(study, "workdir", str(tmp_path / "on")), "run.init", str(start))
    for path, value in (
        ("run.loop.steps", 1),
        ("run.data.text", "sample:200"),
        ("vary", ()),
        ("zero_shot", None),
        ("finetune", ()),
    ):
        on = replace_path(on, path, value)
    fits = replace_path(on, "finetune", (Finetune("cola", "sample:", batch=15),))
    with pytest.raises(InputError, match="batch size 15 is not divisible by 2 devices"):
        run_study(fits)
    assert not list(tmp_path.iterdir())
    assert list(run_study(on)["controls"]) == ["as it was given"]


@pytest.mark.slow("runs a study in three parts")
def test_machines_share_the_cells_of_a_study(study, done, tmp_path):
    """Each does its share and draws no report; whoever runs the study whole finds all of it."""
    shutil.copytree(study.workdir, tmp_path / "shared")
    shared = replace_path(study, "workdir", str(tmp_path / "shared"))
    missing, report = tmp_path / "shared" / "cells" / "rate=0.8,seed=0", tmp_path / "shared" / "report.html"
    shutil.rmtree(missing)
    report.unlink()
    first = run_study(replace_path(shared, "cells", "0/2"))
    assert first["cells"] == ["rate=0.15,seed=0", "control,seed=0"] and not missing.exists()
    assert run_study(replace_path(shared, "cells", "1/2"))["cells"] == ["rate=0.8,seed=0"] and not report.exists()
    assert run_study(shared)["rates"]["0.80"]["heldout"] == done["rates"]["0.80"]["heldout"] and report.exists()
    with pytest.raises(InputError, match="cells is '2/2': write I/N, from 0/N to N-1/N"):
        replace_path(shared, "cells", "2/2")


def test_a_share_without_cells_says_so(study, done, capsys):
    assert run_study(replace_path(study, "cells", "3/9"))["cells"] == []
    assert "note: share 3/9 has none of the 3 cells" in capsys.readouterr().err


@pytest.mark.slow("runs a study")
def test_a_cell_that_diverges_is_named_and_does_not_stop_the_others(study, done, tmp_path, capsys):
    """Nor is it trained again when the study is resumed."""
    work = tmp_path / "work"
    shutil.copytree(Path(study.workdir) / "store", work / "store")
    rates = (1e30, 1e-3)
    found = replace_path(replace_path(study, "workdir", str(work)), "run.loop.log_every", 1)
    for path, value in (("vary", (Vary("optim.learning_rate", rates),)), ("zero_shot", None), ("control", False)):
        found = replace_path(found, path, value)
    found = replace_path(found, "finetune", ())
    for _ in range(2):
        summary = run_study(found)
        assert "learning_rate=1e+30 seed=0: pretrain: diverged (step " in capsys.readouterr().err
        (cell,) = summary["diverged"]
        assert cell == "learning_rate=1e+30,seed=0" and "not finite" in summary["diverged"][cell]
        assert any(
            sentence.startswith(f"Left out, as its pre-training diverged: {cell} (")
            for sentence in summary["sentences"]
        )
        assert not summary["missing"]
        losses = [summary["values"][label]["heldout"].get("loss@0.15") for label in ("1e+30", "0.001")]
        assert losses[0] is None and losses[1]["n"] == 1
        assert [row["stage"] for row in read_jsonl(work / "results.jsonl") if row["cell"] == cell] == ["pretrain"]
    assert "the pre-training diverged: step" in (work / "report.html").read_text()


def test_prepare_makes_the_store_that_the_study_finds(study, tmp_path):
    prepared = prepare(store_run(replace_path(study, "workdir", str(tmp_path / "work"))))
    assert prepared["store"] == cells_of(study)[0].run.data.store.replace(study.workdir, str(tmp_path / "work"))
    assert (tmp_path / "work" / "store" / "manifest.json").is_file()


def test_a_value_can_be_added_but_not_another_base(study, done):
    more = replace_path(study, "vary", (Vary("masking.rate", (0.15, 0.80, 0.5)),))

    _check(more, cells_of(more))
    with pytest.raises(InputError, match="holds another study: model.width is 32 there and 48 here"):
        run_study(replace_path(study, "run.model.width", 48))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vary", (Vary("masking.rat", (0.1,)),), "no field 'masking.rat'; did you mean masking.rate"),
        ("vary", (Vary("masking.rate", (0.1, 1.5)),), "masking.rate must be above 0 and at most 1"),
        ("finetune", (Finetune("cola", data="no/such/directory"),), "is missing"),
        ("finetune", (Finetune("cola"),), "cola needs its data: give --data DIRECTORY"),
        ("run.data.text", "no/such/file", "no text file"),
        (
            "finetune",
            (Finetune("cola", "sample:", batch=15),),
            "cola: batch size 15 is not divisible by 2 devices",
        ),
        (
            "finetune",
            (Finetune("cola", "sample:", length=300),),
            "cola: length 300 is above the 256 positions of the encoder",
        ),
        ("finetune", (Finetune("cola", recipe="nonsense"),), "no recipe 'nonsense'"),
        ("finetune", (Finetune("cola", recipe="paper"),), r"sets nothing by itself: start from jaxmlm.runs.recipe"),
        ("zero_shot", ZeroShot(batch=101), "zero_shot.batch is 101"),
        ("run.loop.save_every", 0, "loop.save_every is 0, so there are no weights to evaluate"),
        ("vary", (Vary("data.vocab", (300, 400)),), "share a token store and differ in data.vocab"),
        ("vary", (Vary("loop.batch", (32, 33)),), "loop.batch is 33"),
    ],
)
def test_bad_studies_are_refused_before_anything_is_written(study, tmp_path, path, value, message):
    study = replace_path(study, "run.model", EncoderConfig(layers=1, width=16, heads=2, max_positions=256))
    bad = replace_path(replace_path(study, "workdir", str(tmp_path / "bad")), path, value)
    with pytest.raises(InputError, match=message):
        run_study(bad)
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_is_followed_is_taken():
    assert recipe("mosaicbert", "mnli").recipe == "mosaicbert"
    check(replace_path(recipe("mosaicbert", "rte"), "data", "sample:"))


def test_a_budget_is_for_what_is_trained(study):
    """The control has no steps, and the estimate counts the time that the others have."""
    timed = replace_path(study, "run.loop.budget", "2h")
    *trained, control = cells_of(timed)
    assert (control.run.loop.steps, control.run.loop.budget) == (0, None)
    assert all(cell.run.loop.budget == "2h" for cell in trained)
    plan = run_study(replace_path(timed, "assume", Assumed("a machine", 1e12)), dry_run=True)["cells"]
    assert plan[0]["estimated_seconds"] == pytest.approx(7200, rel=0.05) and plan[-1]["tokens"] == 0


def test_unknown_task_suggests():
    with pytest.raises(InputError, match="no task 'cloa'; did you mean cola"):
        Finetune("cloa")


STUDIES = ["rates", "sizes", "steps", "strategies", "corruption_vs_prediction", "replacement", "schedules", "laws"]


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", ["cpu", pytest.param("pod", marks=pytest.mark.slow("dry runs of pods"))])
def test_the_papers_studies_list_their_cells(name, scale, capsys, tmp_path):
    words = [
        "study",
        str(CONFIGS / "paper" / f"{name}.py"),
        "--scale",
        scale,
        "--workdir",
        str(tmp_path / "w"),
        "--dry-run",
    ]
    if scale == "pod":
        assert main(words) == 2
        assert "--text and --glue and --blimp would be the small generated world: give them" in capsys.readouterr().err
        words.append("--sample")
    plan = command(capsys, *words)
    cells = plan["cells"]
    assert len({cell["cell"] for cell in cells}) == len(cells) >= 8
    assert max(cell["tokens"] for cell in cells) >= (12e9 if scale == "pod" else 1.8e6)
    assert plan["estimated_seconds"] > 0 and not list(tmp_path.iterdir())
    most = max(cell["epochs"] for cell in cells)
    assert most > 5000 if scale == "pod" else 1 < most < 5


def test_a_dry_run_says_epochs_chip_hours_and_price(capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("A heron stands in the reeds and waits for fish.\n\n" * 4000)
    words = ["study", str(CONFIGS / "paper" / "rates.py"), "--scale", "pod", "--text", str(text), "--glue", "g",
             "--blimp", "b", "--workdir", str(tmp_path / "w"), "--dry-run"]  # fmt: skip
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"the text has about [456]\d,\d{3} tokens, and the steps would read it 2\d\d,\d{3} times, more than "
        "most_epochs 100: give more text or fewer steps, or ask for it with --run.most-epochs 1000000", said,
    )  # fmt: skip
    assert main([*words, "--run.loop.steps", "5", "--assume.price", "1.5"]) == 0
    out = capsys.readouterr().out
    hours, price = re.search(r"([\d.,]+) chip-hours; price ([\d,]+)", " ".join(out.split())).groups()
    assert float(price.replace(",", "")) == pytest.approx(1.5 * float(hours.replace(",", "")), abs=1)
    assert re.search(r"rate=0.4,seed=0 +│ 2,621,440 │ +[45]\d\.\d │", out) and max(map(len, out.splitlines())) <= 80
    assert main([*words, "--run.most-epochs", "None"]) == 0
    assert "for a price give --assume.price" in " ".join(capsys.readouterr().out.split())


def test_a_study_that_reads_its_text_too_often_is_refused_before_it_is_prepared(capsys, tmp_path):
    words = ["study", str(CONFIGS / "quickstart.py"), "--small", "--workdir", str(tmp_path / "w")]
    assert main([*words, "--run.loop.steps", "60000"]) == 2
    assert "the steps would read it" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_sentence_as_each_masking_leaves_it(study, done):
    from jaxmlm.data import Store
    from jaxmlm.masking import Replace
    from jaxmlm.runs.preview import preview

    store = Store(Path(study.workdir) / "store")
    for masking in (Masking(0.5), Masking(0.5, replace=Replace(0.0, 0.5, 0.5))):
        pieces = preview(masking, store, study.sentence)
        states = [state for _, state in pieces]
        assert len(states) == len(store.tokenizer.encode(study.sentence))
        assert abs(sum(state != "plain" for state in states) - 0.5 * len(states)) <= 1
        assert ("mask" in states) == (masking.replace.mask > 0)


@pytest.mark.parametrize(
    ("words", "title", "generated"),
    [
        (["wiki_small.py", "--text", "books/novels.txt"], "novels.txt, 5 M tokens, 2 x 128: which", False),
        (
            ["wiki_small.py", "--run.data.text", "a.gz,b.gz", "--run.loop.steps", "100"],
            "a.gz + b.gz, 102 k",
            False,
        ),
        (["my_text.py", "--text", "books/*.txt", "--tokens", "3e6"], "*.txt, 3 M tokens, 2 x 128: which", False),
        (["wiki_gpu.py", "--run.model.layers", "4"], "wiki.train.txt.xz, 197 M tokens, 4 x 512: which", False),
        (["quickstart.py"], "Quickstart: which masking rate is best on the generated sample?", True),
        (["quickstart.py", "--run.data.text", "mine.txt", "--title", "On {text}"], "On mine.txt", False),
    ],
)
def test_a_title_is_made_from_what_is_used(words, title, generated):
    study = load(CONFIGS / words[0], words[1:])
    assert titled(study).startswith(title) and is_generated(study.run.data.text) == generated
    assert "evidence" not in study.note


@pytest.mark.slow("runs a study")
def test_every_cell_is_judged_at_its_own_rate_too(study, done, tmp_path):
    """Also those that were finished before the rate was added; the usual columns stay."""
    shutil.copytree(study.workdir, tmp_path / "more")
    more = replace_path(study, "workdir", str(tmp_path / "more"))
    more = replace_path(more, "vary", (Vary("masking.rate", (0.15, 0.80, 0.605)),))
    found = run_study(more)
    for name, one in found["rates"].items():
        assert {"loss@0.15", "loss@0.40", "loss@0.80", "loss@0.605", "accuracy@0.605", "perplexity"} <= set(
            one["heldout"]
        )
        if name in done["rates"]:
            same = {key: value for key, value in one["heldout"].items() if not key.endswith("@0.605")}
            assert same == done["rates"][name]["heldout"]
    assert found["control"]["heldout"]["loss@0.605"]["n"] == 1
    with pytest.raises(InputError, match="loop.save_every is 0"):
        _check(replace_path(more, "run.loop.save_every", 0), cells_of(more))
