"""What a study found, in plain sentences that are read once: never more than the numbers carry."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxmlm.runs.statistics import Comparison
from jaxmlm.studies.comparisons import MIN_SEEDS, compare_pairs, compare_with_controls, winner_of
from jaxmlm.studies.labels import GIVEN, all_numbers, format_value, last_name
from jaxmlm.studies.likelihood import BOUND, price_sentences
from jaxmlm.studies.results import PROBES, ScoreSeries, StudyResults
from jaxmlm.wording import counted

MAX_PAIRS = 4
"""Comparisons that have a sentence of their own; the summary has all of them."""


class GroupVerdict(NamedTuple):
    """What one series says within one group of labels.

    Attributes:
        statements: the sentences, without capital and full stop.
        outcome: the same in short, for the last sentence of all.
        tendency: whether there are too few seeds for more than a tendency.

    """

    statements: list[str]
    outcome: str
    tendency: bool = False


class ControlVerdict(NamedTuple):
    """Whether pre-training beat the encoder that had none of it.

    Attributes:
        statements: the sentences.
        outcome: the same in short, for the verdict; "" where there is none.
        where: at which values that holds.

    """

    statements: list[str]
    outcome: str = ""
    where: str = ""


def sentences(results: StudyResults) -> list[str]:
    """The loss matrix, the control, each series that a verdict goes by, and last the verdict itself."""
    said = loss_matrix_sentences(results)
    verdicts: dict[str, list[str]] = {}  # outcome -> the scores by which it is
    tendencies: dict[str, list[str]] = {}
    controls: dict[str, dict[str, list[str]]] = {}  # outcome -> at which values -> the scores
    for name, title in verdict_titles(results).items():
        series = results.series[name]
        control = against_control(results, series, title)
        said += control.statements
        if control.outcome:
            controls.setdefault(control.outcome, {}).setdefault(control.where, []).append(title)
        groups: dict[tuple[bool, str], list[str]] = {}
        for group, labels in results.groups.items():
            found = group_verdict(results, series, labels)
            where = f", at {group}" if group else ""
            first, *others = found.statements
            said.append(f"{_capitalised(title)}{where}: {first}.")
            said += [f"{_capitalised(statement)}." for statement in others]
            groups.setdefault((found.tendency, found.outcome), []).append(group)
        for is_tendency, sink in ((False, verdicts), (True, tendencies)):
            outcomes = [
                outcome if at == [""] else f"at {_and(at)}, {outcome}"
                for (tendency, outcome), at in groups.items()
                if tendency == is_tendency
            ]
            if outcomes:
                sink.setdefault("; ".join(outcomes), []).append(title)
        if name == BOUND:
            said += price_sentences(results)
    said += [f"Left out, as its pre-training diverged: {cell} ({why})." for cell, why in results.diverged.items()]
    said += [f"Unfinished: {line}." for line in results.missing]
    last = _last_sentences(_by_scores(verdicts), _by_scores(tendencies))
    for outcome, places in controls.items():
        last.append(_control_sentence(outcome, places, len(verdict_titles(results))))
    return [*dict.fromkeys(said), " ".join(last)]  # how many seeds there are is said once


def _by_scores(outcomes: Mapping[str, list[str]]) -> list[str]:
    """Each outcome with the scores by which it is."""
    return [f"by {_and(titles)}, {outcome}" for outcome, titles in outcomes.items()]


def _last_sentences(verdicts: list[str], tendencies: list[str]) -> list[str]:
    """The verdict; where there are too few seeds for one, the tendency."""
    tendency = f"a tendency only, as a verdict needs {MIN_SEEDS} pre-training seeds: {'; '.join(tendencies)}"
    if verdicts:
        first, *others = verdicts
        said = [f"Verdict: {first}.", *(f"{_capitalised(verdict)}." for verdict in others)]
        return [*said, f"In addition {tendency}."] if tendencies else said
    if tendencies:
        return [f"Verdict: none, {tendency}."]
    scores = "likelihood bound, BLiMP, fine-tuning or probe score"
    return [f"Verdict: none; there is no {scores}, and a loss alone is no verdict."]


def _control_sentence(outcome: str, places: Mapping[str, list[str]], scores: int) -> str:
    """What the comparison with the untrained encoder came to, by which scores unless it is by all of them."""
    [(where, titles), *others] = places.items()
    if not others and len(titles) == scores:
        return f"{_capitalised(f'{outcome} {where}'.strip())}."
    by = "; ".join(f"by {_and(titles)} {where}".strip() for where, titles in places.items())
    return f"{_capitalised(outcome)}: {by}."


def verdict_titles(results: StudyResults) -> dict[str, str]:
    """The series that a verdict goes by, with their names in a sentence."""
    several = len(results.tasks) > 1
    tuned = "the mean fine-tuning score" if several else f"fine-tuning on {''.join(results.tasks)}"
    titles = {BOUND: "the likelihood bound", "blimp": "BLiMP accuracy", "finetune": tuned}
    titles |= {name: f"the probe of {what}" for name, what in PROBES.items()}
    return {name: title + results.series[name].suffix for name, title in titles.items() if name in results.series}


def group_verdict(results: StudyResults, series: ScoreSeries, labels: Sequence[str]) -> GroupVerdict:
    """One series within one group of labels."""
    labels = [label for label in labels if label in series.by_label]
    best = series.best_labels(labels)
    if not best:
        return GroupVerdict(["no finished cell"], "nothing is finished")
    order = sorted(labels, key=lambda label: _mean(series, label), reverse=series.higher_is_better)
    means = ", ".join(f"{results.short_label(label)} {series.shown(_mean(series, label))}" for label in order)
    if len(labels) == 1:
        return GroupVerdict([f"there is only {means}, and nothing to compare it with"], "there is nothing to compare")
    means = f"means {means}"
    family = compare_pairs(results, series)
    pairs = [pair for pair in family if pair.a in labels]
    tested = [pair for pair in pairs if not math.isnan(pair.adjusted)]
    if not tested:
        return _without_error_bar(results, series, labels, best, means)
    numbers = [means, *_other_seeds(results, series, pairs, best), _basis(family)]
    sure = [pair for pair in tested if pair.sure]
    winner = winner_of(family, labels)
    if winner is not None:
        name = results.short_label(winner)
        details = _pair_sentences(results, series, [pair for pair in sure if pair.a == winner])
        return GroupVerdict([f"{name} is best beyond noise", *numbers, *details], f"{name} is best")
    if sure:
        outcome = f"{_who_is_worse(results, sure)}; no value is best beyond noise"
        lead = _lead(results, series, pairs, best)
        return GroupVerdict([lead, *numbers, *_pair_sentences(results, series, sure)], outcome)
    widest = max(tested, key=lambda pair: abs(pair.difference))
    gap = f"the largest gap: {_pair_sentence(results, series, widest)}"
    return GroupVerdict(["no difference beyond noise", *numbers, gap], "no difference beyond noise")


def _lead(results: StudyResults, series: ScoreSeries, pairs: Sequence[Comparison], best: Sequence[str]) -> str:
    """Name the best mean when its lead is within noise, unless paired comparisons contradict it."""
    names = _and([results.short_label(label) for label in best])
    extreme = _extreme(series)
    if len(best) > 1:
        return f"{names} share the {extreme} mean"
    if _other_seeds(results, series, pairs, best):
        return "no value is best beyond noise"
    unsure = [pair for pair in pairs if best[0] in (pair.a, pair.b) and not pair.sure]
    rivals = _and([results.short_label(pair.b if pair.a == best[0] else pair.a) for pair in unsure])
    return f"{names} has the {extreme} mean, but its lead over {rivals} is not beyond noise"


def _other_seeds(
    results: StudyResults, series: ScoreSeries, pairs: Sequence[Comparison], best: Sequence[str]
) -> list[str]:
    """Name the labels whose mean is best over their own seeds, but not over the seeds that they share with a rival."""
    said = []
    for label in best:
        better = [pair.a for pair in pairs if pair.b == label and pair.a not in best and pair.difference]
        if better:
            rivals = _and([results.short_label(one) for one in better])
            said.append(
                f"{results.short_label(label)} has the {_extreme(series)} mean over its own seeds, but is behind "
                f"{rivals} over the seeds that both have"
            )
    return said


def _extreme(series: ScoreSeries) -> str:
    return "highest" if series.higher_is_better else "lowest"


def _without_error_bar(
    results: StudyResults, series: ScoreSeries, labels: Sequence[str], best: Sequence[str], means: str
) -> GroupVerdict:
    """What can be said where no pair has an error bar."""
    seeds = max(len(series.by_label[label]) for label in labels)
    if seeds < MIN_SEEDS:
        leaders = _and([results.short_label(label) for label in best])
        ahead = f"{leaders} {'is' if len(best) == 1 else 'are'} ahead"
        if len(best) == len(labels):
            ahead = "there is no difference"
        return GroupVerdict([means, f"{counted(seeds, 'seed')}, so no error bar"], ahead, tendency=True)
    why = "too few shared seeds, or the same difference in every seed, so no error bar"
    return GroupVerdict([means, why], "no verdict is possible")


def _who_is_worse(results: StudyResults, sure: Sequence[Comparison]) -> str:
    """Who is worse than whom, each loser once."""
    losers: dict[str, list[str]] = {}
    for pair in sure:
        losers.setdefault(results.short_label(pair.b), []).append(results.short_label(pair.a))
    return "; ".join(f"{loser} is worse than {_and(winners)}" for loser, winners in losers.items())


def _pair_sentences(results: StudyResults, series: ScoreSeries, pairs: Sequence[Comparison]) -> list[str]:
    """Comparisons one by one; of many the surest."""
    shown = sorted(pairs, key=lambda pair: pair.adjusted)[:MAX_PAIRS]
    said = [_pair_sentence(results, series, pair) for pair in pairs if pair in shown]
    if more := len(pairs) - len(shown):
        said.append("one more comparison is beyond noise" if more == 1 else f"{more} more comparisons are beyond noise")
    return said


def against_control(results: StudyResults, series: ScoreSeries, title: str) -> ControlVerdict:
    """Whether pre-training beat the encoder that had none of it."""
    found = compare_with_controls(results, series)
    if not found:
        return ControlVerdict([])
    given = any(label.startswith(GIVEN) for label in results.controls)
    rival = "the encoder as it was given" if given else "the untrained encoder"
    scores = []
    for label in results.controls:
        if label in series.by_label:
            where = ", ".join(label.split(", ")[1:])
            scores.append(f"{where} {series.shown(_mean(series, label))}".strip())
    when = "before" if given else "without pre-training"
    head = f"Against {rival}, {title} ({', '.join(scores)} {when}): "
    if all(math.isnan(one.adjusted) for one in found):
        gains = ", ".join(f"{one.a} {series.shown(one.difference, '+')} {series.unit}" for one in found)
        seeds = max(one.seeds for one in found)
        why = counted(seeds, "seed") if seeds < MIN_SEEDS else "the same difference in every seed"
        return ControlVerdict([f"{head}{gains}.", f"{_capitalised(why)}, so no error bar."])
    better = [one.a for one in found if one.sure and (one.difference > 0) == series.higher_is_better]
    worse = [one.a for one in found if one.sure and (one.difference < 0) == series.higher_is_better]
    unsure = [one.a for one in found if not one.sure]
    statements = []
    if better:
        statements.append(f"pre-training is better beyond noise at {_and(better)}")
    if worse:
        statements.append(f"{rival} is better, beyond noise, than {_and(worse)}")
    if unsure:
        statements.append(f"no difference beyond noise at {_and(unsure)}")
    first, *others = statements
    said = [f"{head}{first}."]
    said += [f"{_capitalised(statement)}." for statement in [*others, _basis(found)]]
    said += _gains(series, found)
    return ControlVerdict(said, *_control_outcome(rival, better, worse, len(found)))


def _control_outcome(rival: str, better: list[str], worse: list[str], number: int) -> tuple[str, str]:
    """The outcome, and at which values."""
    if worse:
        return f"{rival} is better than {'every value' if len(worse) == number else _and(worse)}", ""
    if better:
        where = "at every value" if len(better) == number else f"at {_and(better)} only"
        return f"pre-training beats {rival} beyond noise", where
    return f"pre-training does not beat {rival} beyond noise", ""


def loss_matrix_sentences(results: StudyResults) -> list[str]:
    """Which label has the lowest loss at each evaluation rate, and whether each rate is best at its own."""
    losses = results.heldout_losses()
    groups: dict[str, list[str]] = {}
    for group, labels in results.groups.items():
        best = {rate: found for rate, series in losses.items() if (found := series.best_labels(labels))}
        if not best or len(labels) < 2:
            continue
        seeds = max(len(series.by_label.get(label, {})) for series in losses.values() for label in labels)
        lowest = ", ".join(
            f"{_and([results.short_label(label) for label in found])} at {_percent(rate)} masks"
            for rate, found in best.items()
        )
        head = "lowest mean" if seeds > 1 else "one seed, lowest"
        groups.setdefault(f"{head}: {lowest}{_best_at_its_own(results, labels, best)}", []).append(group)
    said = []
    for sentence, at in groups.items():
        where = "" if at == [""] else f", at {_and(at)}"
        said.append(f"Held-out loss{where}, {sentence}.")
    if said:
        said.append("A loss at one rate favours the run trained at that rate, so none of them is the verdict.")
    return said


def _best_at_its_own(results: StudyResults, labels: Sequence[str], best: Mapping[float, Sequence[str]]) -> str:
    """Whether each rate is best where it was trained; "" where rates were not varied."""
    path = next((path for path in results.paths if last_name(path) == "rate"), None)
    if path is None or not all_numbers(results.values[label].get(path) for label in labels):
        return ""
    trained = {float(results.values[label][path]): label for label in labels}
    own = [rate for rate in best if rate in trained]
    if len(own) < 2:
        return ""
    lost = [format_value(rate) for rate in own if trained[rate] not in best[rate]]
    if not lost:
        return "; each rate is best at its own"
    return f"; {_and(lost)} {'is not best at its' if len(lost) == 1 else 'are not best at their'} own masks"


def _pair_sentence(results: StudyResults, series: ScoreSeries, pair: Comparison) -> str:
    return f"{results.short_label(pair.a)} over {results.short_label(pair.b)}: {_difference(series, pair)}"


def _gains(series: ScoreSeries, found: Sequence[Comparison]) -> list[str]:
    """What pre-training adds; of many labels the least and the most."""
    if len(found) <= MAX_PAIRS:
        return [f"{_capitalised(one.a)}: {_difference(series, one)}." for one in found]
    least, *_, most = sorted(found, key=lambda one: one.difference, reverse=not series.higher_is_better)
    return [f"The least, {least.a}: {_difference(series, least)}.", f"The most, {most.a}: {_difference(series, most)}."]


def _difference(series: ScoreSeries, pair: Comparison) -> str:
    difference = f"{series.shown(pair.difference, '+')} {series.unit}"
    if math.isnan(pair.adjusted):
        return f"{difference}, no error bar"
    low = series.shown(pair.low, "+")
    high = series.shown(pair.high, "+")
    return f"{difference}, interval {low} to {high}, {_p(pair.adjusted)}"


def _basis(family: Sequence[Comparison]) -> str:
    """By what the intervals and p values of a family are made."""
    tested = [pair for pair in family if not math.isnan(pair.adjusted)]
    least = min(pair.seeds for pair in tested)
    most = max(pair.seeds for pair in tested)
    seeds = counted(least, "seed") if least == most else f"{least} to {most} seeds"
    paired = "paired" if all(pair.paired for pair in tested) else "paired where shared"
    adjusted = f", for {len(tested)} comparisons together (Bonferroni)" if len(tested) > 1 else ""
    return f"{seeds}, {paired}; 95 % intervals and p{adjusted}"


def _p(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _mean(series: ScoreSeries, label: str) -> float:
    found = series.spread(label)
    return math.nan if found is None else found.mean


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]


def _and(words: Sequence[str]) -> str:
    """Words in a row.

    >>> _and(["a"]), _and(["a", "b"]), _and(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
