"""The report: numbers against hand-computed ones, honest words, and a page that stands alone."""

import itertools
import json
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from jaxmlm.runs.preview import Piece
from jaxmlm.runs.statistics import compare_seeds
from jaxmlm.studies import figures, verdict
from jaxmlm.studies.comparisons import best_beyond_noise, compare_pairs, compare_with_controls
from jaxmlm.studies.content import Report
from jaxmlm.studies.labels import CONTROL, label_of
from jaxmlm.studies.markdown import write_markdown
from jaxmlm.studies.page import write_page
from jaxmlm.studies.results import CellResult, StudyResults, collect
from jaxmlm.studies.score_table import score_columns, terminal_table, value_cells, value_headings
from jaxmlm.studies.summary import summarise


def row(values, seed, stage, task, scores, *, main=None, tuning=None, tokens=None):
    control = values is None
    point = {} if control else values
    cell = "control" if control else ",".join(f"{k.rsplit('.')[-1]}={v}" for k, v in point.items())
    return {
        "cell": f"{cell},seed={seed}", "values": point, "control": control, "seed": seed, "stage": stage, "task": task,
        "tuning_seed": tuning, "main": main, "scores": scores, "seconds": 2.0, "tokens": tokens,
        "tokens_per_second": tokens and tokens / 2,
    }  # fmt: skip


def blimp(scores: dict[float | None, list[float]]) -> list[dict]:
    """BLiMP rows: rate (None: the control) -> accuracy of seeds 0, 1, ..."""
    return [
        row(rate and {"masking.rate": rate}, seed, "blimp", "blimp", {"accuracy": v, "field/syntax": v, "set/x": v},
            main="accuracy")
        for rate, values in scores.items()
        for seed, v in enumerate(values)
    ]  # fmt: skip


def whole() -> list[dict]:
    """Two rates and the control, three seeds, every stage, one task tuned twice."""
    rows = blimp({0.15: [0.60, 0.62, 0.61], 0.4: [0.70, 0.72, 0.725], None: [0.50, 0.51, 0.49]})
    for rate, seed in itertools.product((0.15, 0.4, None), range(3)):
        point = rate and {"masking.rate": rate}
        if rate:
            rows.append(row(point, seed, "pretrain", "mlm", {"loss": 3.0}, tokens=1000))
        losses = {f"loss@{at:.2f}": 4 + abs(at - (rate or 9)) + 0.01 * seed for at in (0.15, 0.4)}
        rows.append(row(point, seed, "heldout", "mlm", losses | {"perplexity": math.exp(losses["loss@0.15"])}))
        for tuning, score in enumerate((0.5 + (rate or 0) / 10, 0.6 + (rate or 0) / 10 + 0.01 * seed)):
            rows.append(row(point, seed, "finetune", "rte", {"accuracy": score}, main="accuracy", tuning=tuning))
    return rows


def results_of(rows: list[dict]) -> StudyResults:
    """What a study finds in these lines of its results.jsonl."""
    return collect(CellResult.from_json(one) for one in rows)


def summary(rows: list[dict]) -> dict:
    return summarise(results_of(rows))


def verdict_of(rows: list[dict]) -> str:
    return " ".join(verdict.sentences(results_of(rows)))


def last(rows) -> str:
    return verdict.sentences(results_of(rows))[-1]


def test_summary_equals_numbers_by_hand():
    found = summary(whole())
    one = found["rates"]["0.40"]
    assert one["scores"]["blimp"]["metric"] == "accuracy"
    assert one["scores"]["blimp"]["mean"] == pytest.approx(0.715)
    assert one["scores"]["blimp"]["sd"] == pytest.approx(math.sqrt((0.015**2 + 0.005**2 + 0.01**2) / 2))
    # Tuning seeds are averaged first: 0.59, 0.595 and 0.6 are three replicates, not six.
    assert one["scores"]["rte"]["mean"] == pytest.approx(0.595)
    assert one["scores"]["rte"]["sd"] == pytest.approx(0.005)
    assert one["scores"]["rte"]["n"] == 3
    assert one["heldout"]["loss@0.40"]["mean"] == pytest.approx(4.01)
    assert (one["tokens"], one["tokens_per_second"], one["seconds"]) == (3000, 500, 2.0 * 15)
    assert found["control"]["scores"]["blimp"]["mean"] == pytest.approx(0.5)
    assert found["missing"] == []
    json.dumps(found, allow_nan=False)


def test_paired_difference_equals_the_t_test_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3); t quantile of 2 degrees of freedom 4.302653.
    found = compare_seeds("a", "b", {"a": {0: 2.0, 1: 4.0, 2: 6.0}, "b": {0: 1.0, 1: 2.0, 2: 3.0}})
    assert found.paired and found.seeds == 3 and found.difference == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert found.p == pytest.approx(0.0741799, rel=1e-4)


def test_seeds_that_are_not_shared_fall_back_to_welch():
    found = compare_seeds("a", "b", {"a": {0: 2.0, 1: 4.0}, "b": {5: 1.0, 6: 2.0}})
    # Variances 2 and 0.5, both over 2: error sqrt(1.25), t = 1.5 / 1.118 on 1.4706 degrees of freedom.
    assert not found.paired
    assert found.p == pytest.approx(0.3498856, rel=1e-5)


def test_one_seed_and_equal_differences_give_no_p():
    assert math.isnan(compare_seeds("a", "b", {"a": {0: 2.0}, "b": {0: 1.0}}).p)
    assert math.isnan(compare_seeds("a", "b", {"a": {0: 2.0, 1: 2.0}, "b": {0: 1.0, 1: 1.0}}).p)
    assert compare_seeds("a", "b", {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}).p == 1.0


def test_pairs_are_one_family_and_the_better_is_first():
    results = results_of(blimp({0.15: [0.60, 0.62, 0.61], 0.4: [0.70, 0.72, 0.725], 0.8: [0.6, 0.61, 0.63]}))
    found = compare_pairs(results, results.series["blimp"])
    assert len(found) == 3 and all(pair.difference >= 0 for pair in found)
    assert min(found, key=lambda pair: pair.p).adjusted == pytest.approx(3 * min(pair.p for pair in found))
    assert all(pair.adjusted >= pair.p for pair in found)


def test_lower_is_better_for_a_loss():
    results = results_of(whole())
    series = results.series["heldout/loss@0.15"]
    assert best_beyond_noise(results, series) == set()  # the same difference in every seed
    assert series.best_labels(results.labels) == ["0.15"]


def test_a_better_control_is_said_and_nothing_is_bold():
    rows = blimp({0.15: [0.40, 0.42, 0.41], 0.4: [0.45, 0.462, 0.464], None: [0.60, 0.61, 0.605]})
    assert last(rows).endswith("The untrained encoder is better than every value.")
    results = results_of(rows)
    assert best_beyond_noise(results, results.series["blimp"]) == set()


def test_a_loss_alone_is_no_verdict_and_the_matrix_is_read():
    rows = [r for r in whole() if r["stage"] in ("pretrain", "heldout")]
    words = verdict_of(rows)
    assert words.startswith("Held-out loss, lowest mean: 0.15 at 15 % masks, 0.40 at 40 % masks; each rate is best at")
    assert words.endswith("a loss alone is no verdict.")
    for r in rows:
        r["scores"]["loss@0.40"] = 4.0 if r["values"] == {"masking.rate": 0.15} else 5.0
    assert "0.40 is not best at its own masks" in verdict_of(rows)


def test_what_is_unfinished_is_named():
    rows = [r for r in whole() if (r["cell"], r["stage"]) != ("rate=0.4,seed=2", "blimp")]
    rows[-1]["scores"]["accuracy"] = math.nan
    missing = summary(rows)["missing"]
    assert missing[0] == "rate=0.4,seed=2 has no result yet for: blimp"
    assert missing[1] == "control,seed=2, rte: not a finite number, left out: accuracy"
    assert summary(rows)["rates"]["0.40"]["scores"]["blimp"]["n"] == 2


def test_what_is_missing_at_one_more_rate_says_which():
    rows = [*whole(), row({"masking.rate": 0.15}, 0, "heldout", "mlm at 0.30", {"loss@0.30": 4.0}, main="loss@0.30")]
    assert "rate=0.4,seed=0 has no result yet for: heldout mlm at 0.30" in results_of(rows).missing


def test_a_cell_that_diverged_is_named_and_left_out(tmp_path):
    rows = whole()
    for one in rows:
        if one["cell"] == "rate=0.4,seed=1" and one["stage"] in ("pretrain", "heldout"):
            one["scores"] = dict.fromkeys(one["scores"])  # null, as it stands in results.jsonl
            one |= {"diverged": "held-out perplexity is not finite"} if one["stage"] == "pretrain" else {}
    found = summary(rows)
    assert found["rates"]["0.40"]["heldout"]["perplexity"]["n"] == 2
    assert "rate=0.4,seed=1: the pre-training diverged: held-out perplexity is not finite" in found["notes"]
    curves = {"rate=0.4,seed=1": [{"step": 1, "loss": 5.0, "tokens": 4}, {"step": 2, "loss": None, "tokens": 8}]}
    _, page = drawn(tmp_path, rows, curves=curves)
    assert all(note in page.text for note in found["notes"] + found["missing"])
    json.dumps(found, allow_nan=False)


def test_a_finetuning_that_diverged_is_named_and_what_was_not_whole(tmp_path):
    rows = [one for one in whole() if one["stage"] == "finetune"]
    part = "train: 100 of 2,490 rows (limit)"
    for one in rows:
        one |= {"notes": [part], "degenerate": False}
    rows[0] |= {"scores": {}, "notes": [part, "the loss is nan at step 3"], "degenerate": True}
    rows[1] |= {"degenerate": True}
    found = summary(rows)
    assert found["missing"] == [
        "rate=0.15,seed=0, rte, tuning seed 0: no accuracy, so left out: the loss is nan at step 3"
    ]
    assert found["notes"] == [
        f"rte: {part}", "rate=0.15,seed=0, rte, tuning seed 1: one class, or one number, for all of dev"
    ]  # fmt: skip
    _, page = drawn(tmp_path, rows)
    assert all(line in page.text for line in found["missing"] + found["notes"])


def test_a_table_of_ones_own_and_the_speed_of_pretraining_are_in_the_summary():
    rows = whole()
    for one in rows:
        if one["stage"] == "finetune":
            one |= {"task": "data/mine.csv", "tokens_per_second": 7.0}
    one = summary(rows)["rates"]["0.40"]
    assert set(one["scores"]) == {"blimp", "data/mine.csv", "finetune"} and one["tokens_per_second"] == 500
    assert summary(rows)["control"]["tokens_per_second"] is None


def test_a_row_written_twice_counts_once():
    rows = blimp({0.15: [0.6, 0.7]})
    again = json.loads(json.dumps(rows[0]))
    again["scores"]["accuracy"] = 0.5
    assert summary([*rows, again])["rates"]["0.15"]["scores"]["blimp"]["mean"] == pytest.approx(0.6)


def test_two_paths_are_compared_within_the_second():
    rows = [
        row({"masking.rate": rate, "model.layers": layers}, seed, "blimp", "blimp",
            {"accuracy": 0.5 + rate * layers / 20 + (0.001, 0.004, 0.002)[(seed + layers + int(20 * rate)) % 3]})
        for rate, layers, seed in itertools.product((0.15, 0.4), (2, 4), range(3))
    ]  # fmt: skip
    results = results_of(rows)
    assert list(results.groups) == ["layers 2", "layers 4"]
    assert results.labels[0] == label_of({"masking.rate": 0.15, "model.layers": 2}) == "rate=0.15,layers=2"
    assert {(pair.a, pair.b) for pair in compare_pairs(results, results.series["blimp"])} == {
        ("rate=0.40,layers=2", "rate=0.15,layers=2"),
        ("rate=0.40,layers=4", "rate=0.15,layers=4"),
    }
    assert last(rows) == "Verdict: by BLiMP accuracy, at layers 2 and layers 4, 0.40 is best."
    assert "values" in summary(rows)


def test_each_model_is_compared_with_itself_before_the_pretraining(tmp_path):
    """Where the model is varied there is a control of each; one that the runs went on from is not called untrained."""
    rows = [
        row({"masking.rate": rate, "model": model}, seed, "blimp", "blimp", {"accuracy": base + rate + noise})
        for rate, (model, base), (seed, noise) in itertools.product(
            (0.15, 0.4), (("tiny", 0.2), ("mini", 0.3)), enumerate((0.001, 0.004, 0.002))
        )
    ]
    for model, base in (("tiny", 0.2), ("mini", 0.3)):
        values = [row(None, seed, "blimp", "blimp", {"accuracy": base}) for seed in range(3)]
        rows += [one | {"values": {"model": model}, "cell": f"control,{model},{one['seed']}"} for one in values]
    results = results_of(rows)
    assert results.all_labels[-2:] == ["not pre-trained, model tiny", "not pre-trained, model mini"]
    assert value_cells(results, "not pre-trained, model mini") == ["not pre-trained", "mini"]
    found = {pair.a: (pair.b, pair.difference) for pair in compare_with_controls(results, results.series["blimp"])}
    assert found["rate=0.15,model=mini"] == ("not pre-trained, model mini", pytest.approx(0.15 + 0.007 / 3))
    assert found["rate=0.40,model=tiny"] == ("not pre-trained, model tiny", pytest.approx(0.4 + 0.007 / 3))
    assert "(model tiny 20.0, model mini 30.0 without pre-training)" in verdict_of(rows)
    assert set(summary(rows)["controls"]) == set(results.controls) and drawn(tmp_path, rows)
    for one in rows:
        one["given"] = one["control"]
    assert "as it was given, model tiny" in results_of(rows).controls
    assert "beats the encoder as it was given beyond noise at every value" in verdict_of(rows)
    old = [one | {"values": {}} if one["control"] else one for one in rows]  # one control for several encoders
    assert compare_with_controls(results_of(old), results_of(old).series["blimp"]) == []


class Page(HTMLParser):
    """Checks that tags close in order, and keeps attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.attributes, self.ids, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "path", "use", "rect"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def drawn(tmp_path, rows, **fields) -> tuple[str, Page]:
    write_page(tmp_path, Report("A <b>title</b> & more", results_of(rows), **fields))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(source)
    assert page.stack == []
    return source, page


def test_the_page_stands_alone_and_escapes_what_it_is_given(tmp_path):
    curves = {"rate=0.4,seed=0": [{"step": 10 * i, "loss": 5 - i / 9, "tokens": 640 * i} for i in range(1, 9)]}
    pieces = [("▁a", "plain"), ("▁<i>", "random"), ("▁bird", "mask"), ("s", "keep"), ("▁&amp;", "plain")]
    sentences = {"0.40": [Piece(*piece) for piece in pieces]}
    source, page = drawn(
        tmp_path, whole(), curves=curves, sentences=sentences, note="no <evidence>",
        provenance={"command": "jaxmlm study 'a&b' <x>"},
    )  # fmt: skip
    assert source.count("<svg") == 5  # BLiMP and rte against the rate, losses, matrix, fields.
    assert "<b>title" not in source and "<i>" not in source and "A <b>title</b> & more" in page.text
    assert "no <evidence>" in page.text and "jaxmlm study 'a&b' <x>" in page.text and "&amp;" in page.text
    assert "[MASK]" in page.text and "bird" not in page.text
    assert not re.search(r"https?:|<script|<link|<img|@import|url\((?!#)", source)
    references = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") and value[1:] in page.ids for value in references)
    assert len(page.ids) == len(set(page.ids))
    assert '<td class="best" data-head="BLiMP">' in source
    assert CONTROL in page.text


def test_the_document_says_the_same_as_the_page(tmp_path):
    curves = {"rate=0.4,seed=0": [{"step": 10 * i, "loss": 5 - i / 9, "tokens": 640 * i} for i in range(1, 9)]}
    sentences = {"0.40": [Piece("▁a", "plain"), Piece("▁*b*", "random"), Piece("▁bird", "mask")]}
    report = Report("A_title", results_of(whole()), curves, sentences, {"command": "jaxmlm study a|b"}, "no <evidence>")
    path = write_markdown(tmp_path, report)
    _, page = drawn(tmp_path, whole(), curves=curves, sentences=sentences)
    text = path.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\n]*\]\((figures/[\w-]+\.png)\)", text)
    assert len(pictures) == 5
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert "a *\\*b\\** `[MASK]`" in text and "bird" not in text
    assert "# A\\_title" in text and "\\<evidence>" in text and "a\\|b" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    # Every word of the document is on the page; its figures have their captions there.
    said = re.sub(r"!\[.*?\]\(.*?\)|\||---|[#*`]|(?<!\\)_", " ", text.partition("Where this came from")[0])
    shown = page.text + " A_title no <evidence>"
    assert [word for word in re.sub(r"\\", "", said).split() if word not in shown and word.strip("-")] == []


def test_the_same_results_give_the_same_page(tmp_path):
    assert drawn(tmp_path / "a", whole())[0] == drawn(tmp_path / "b", whole())[0]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [r for r in whole() if r["stage"] == "pretrain"],
        [r for r in whole() if r["stage"] == "heldout" and r["seed"] == 0],
        [r for r in whole() if r["control"]],
        [row({}, 0, "blimp", "blimp", {"accuracy": 0.5})],
        [row({"masking.units": u}, 0, "blimp", "blimp", {"accuracy": 0.5, "field/a": 0.5}) for u in ("word", "span")],
        blimp({round(0.1 * i, 1): [0.5, 0.5 + 0.01 * i] for i in range(1, 10)}),
    ],
    ids=["nothing", "pretrain", "heldout", "control", "one-cell", "words", "nine"],
)
def test_missing_parts_are_left_out_in_words(tmp_path, rows):
    _, page = drawn(tmp_path, rows)
    assert "Verdict:" in page.text
    json.dumps(summary(rows), allow_nan=False)
    terminal_table(results_of(rows))


def test_the_terminal_shows_the_same_table():
    for width in (150, 80, 40):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(terminal_table(results_of(whole())))
        shown = captured.get()
        assert "71.5 ± 1.3 (3)" in shown and "59.5 ± 0.5 (3)" in shown and CONTROL in shown
        assert max(map(len, shown.splitlines())) <= width and "…" not in shown


def test_figures_are_saved_without_the_sentences(tmp_path):
    rows = whole()
    paths = figures.save_all(results_of(rows), {}, tmp_path)
    assert [path.name for path in paths] == ["scores.png", "matrix.png", "fields.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_cost_of_several_views_is_shown_wherever_runs_are_compared(tmp_path):
    rows = whole()
    assert "rows per example" not in value_headings(results_of(rows))  # one row each: nothing to say
    for found in rows:
        if found["stage"] == "pretrain":
            found["views"] = 2 if found["values"]["masking.rate"] == 0.4 else 1
    results = results_of(rows)
    assert value_headings(results) == ["masking rate", "rows per example"]
    assert [value_cells(results, name)[-1] for name in results.all_labels] == ["1", "2", ""]
    assert summary(rows)["rates"]["0.40"]["rows_per_example"] == 2
    write_page(tmp_path, Report("views", results))
    assert "rows per example" in (tmp_path / "report.html").read_text()


def test_scores_of_generated_data_are_called_so():
    """In tables, figures and the verdict; those of the others are not."""
    rows = [one | ({"generated": True} if one["stage"] == "finetune" else {}) for one in whole()]
    results = results_of(rows)
    assert [c.heading for c in score_columns(results)][1:] == ["rte (generated)", "BLiMP"]
    assert figures.title(results.series["rte"]) == "rte (generated), accuracy × 100"
    assert list(verdict.verdict_titles(results).values()) == ["BLiMP accuracy", "fine-tuning on rte (generated)"]
    scores = summary(rows)["rates"]["0.40"]["scores"]
    assert scores["rte"]["generated"] and "generated" not in scores["blimp"]
    pairs = [one | {"generated": True} for one in blimp({0.15: [0.6], 0.4: [0.7]})]
    assert [c.heading for c in score_columns(results_of(pairs))] == ["BLiMP (generated)"]
