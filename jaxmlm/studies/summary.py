"""The numbers of a study for --json."""

import math
from typing import Any

from jaxmlm.runs.statistics import Comparison
from jaxmlm.studies import verdict
from jaxmlm.studies.comparisons import compare_pairs, compare_with_controls
from jaxmlm.studies.likelihood import BOUND, PRICE, price
from jaxmlm.studies.results import PROBES, StudyResults
from jaxmlm.studies.score_table import PER_WORD, rows_per_example


def summarise(results: StudyResults) -> dict[str, Any]:
    """For each label its held-out losses, scores, speed and cost; the comparisons; the verdict.

    Scores are on their own scale (shares and correlations, not times 100). Standard deviations and intervals are None
    where one seed gives none.

    Returns:
        {"rates": by label what `_of_label` gives ("values" where another path than masking.rate is varied), "control":
        the one control or None, "controls": by label, "pairs", "control_pairs": comparisons, "missing", "diverged": by
        cell, why it has no scores, "notes", "sentences": the verdict by sentences, "verdict": the same as one text}.

    """
    controls = {label: _of_label(results, label) for label in results.controls}
    pairs = []
    control_pairs = []
    for name in verdict.verdict_titles(results):
        series = results.series[name]
        pairs += [_comparison(name, one) for one in compare_pairs(results, series)]
        control_pairs += [_comparison(name, one) for one in compare_with_controls(results, series)]
    sentences = verdict.sentences(results)
    by_label = {label: _of_label(results, label) for label in results.labels}
    return {
        "rates" if results.paths == ("masking.rate",) else "values": by_label,
        "control": next(iter(controls.values())) if len(controls) == 1 else None,
        "controls": controls,
        "pairs": pairs,
        "control_pairs": control_pairs,
        "missing": results.missing,
        "diverged": results.diverged,
        "notes": results.notes,
        "sentences": sentences,
        "verdict": " ".join(sentences),
    }


def _of_label(results: StudyResults, label: str) -> dict[str, Any]:
    """The numbers of one label.

    tokens_per_second is the mean over pre-trainings, tokens and seconds are sums over cells. tokens counts an example
    once, whatever the rows_per_example that the model is shown of it.
    """
    of_label = results.of_label(label)
    trained = [one for one in of_label if one.stage == "pretrain"]
    speeds = [one.tokens_per_second for one in trained if one.tokens_per_second]
    per_word = PER_WORD.values() if results.has_other_words else ()
    heldout = {}
    scores = {}
    for name, series in results.series.items():
        found = series.spread(label)
        if found is None:
            continue
        if name.startswith("heldout/"):
            heldout[name.removeprefix("heldout/")] = found._asdict()
        elif name in (BOUND, "blimp", "finetune", *results.tasks, *PROBES, *per_word):
            scores[name] = {"metric": series.metric, **found._asdict()}
            if series.generated:
                scores[name]["generated"] = True
    cost = price(results)
    if cost and (found := cost.spread(label)):
        scores[PRICE] = {"metric": cost.metric, **found._asdict()}
    fields = {name: series.spread(label) for name, series in results.blimp_fields().items()}
    return {
        "values": (results.values | results.controls)[label],
        "heldout": heldout,
        "scores": scores,
        "blimp_fields": {name: found._asdict() for name, found in fields.items() if found is not None},
        "tokens": sum(one.tokens or 0 for one in trained),
        "rows_per_example": rows_per_example(results, label),
        "tokens_per_second": sum(speeds) / len(speeds) if speeds else None,
        "seconds": sum(one.seconds or 0.0 for one in of_label),
    }


def _comparison(name: str, comparison: Comparison) -> dict[str, Any]:
    numbers = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in comparison._asdict().items()
    }
    return {"score": name, **numbers, "beyond_noise": comparison.sure}
