"""What a study found, in plain sentences that are read once: never more than the numbers carry."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxmlm.paths import counted
from jaxmlm.studies.results import GIVEN, SEEDS, Comparison, Measure, Results, against_control, numeric, pairs, text

MOST_PAIRS = 4
"""Comparisons that are told one by one; all are in the summary."""


class Standing(NamedTuple):
    """What one measure says within one group of values: in sentences, in short, and whether that is a tendency only."""

    said: list[str]
    outcome: str
    tendency: bool = False


def sentences(results: Results) -> list[str]:
    """The loss matrix, the control, each verdict measure, and last the verdict itself."""
    found = [*matrix(results)]
    verdicts, tendencies = [], []
    for name, title in titles(results).items():
        measure = results.measures[name]
        control, gain = versus_control(results, measure, title)
        found += control
        short: dict[tuple[bool, str], list[str]] = {}
        for group, labels in results.groups.items():
            standing_ = standing(results, measure, labels)
            where = f", at {group}" if group else ""
            first, *rest = standing_.said
            found += [f"{_upper(title)}{where}: {first}.", *(f"{_upper(one)}." for one in rest)]
            short.setdefault((standing_.tendency, standing_.outcome), []).append(group)
        for tendency in (False, True):
            parts = [
                out + (f" at {_and(groups)}" if groups != [""] else "")
                for (kind, out), groups in short.items()
                if kind == tendency
            ]
            if parts:
                (tendencies if tendency else verdicts).append(f"by {title}, {', '.join(parts)}{gain}")
    found += [f"Unfinished: {line}." for line in results.missing]
    return [*found, _last(results, verdicts, tendencies)]


def _last(results: Results, verdicts: list[str], tendencies: list[str]) -> str:
    """The verdict; where there are too few seeds for one, the tendency."""
    few = f"a tendency only, for a verdict needs {SEEDS} pre-training seeds: {'; '.join(tendencies)}"
    if verdicts and tendencies:
        return f"Verdict: {'; '.join(verdicts)}. Beside it {few}."
    if verdicts:
        return f"Verdict: {'; '.join(verdicts)}."
    if tendencies:
        return f"Verdict: none, {few}."
    return "Verdict: none; no BLiMP or fine-tuning scores are there, and a loss alone is no verdict."


def titles(results: Results) -> dict[str, str]:
    """The verdict measures that are there, in words."""
    found = results.measures
    several = len(results.tasks) > 1
    tuned = "the mean fine-tuning score" if several else f"fine-tuning on {''.join(results.tasks)}"
    names = {"blimp": "BLiMP accuracy", "finetune": tuned}
    return {name: title + found[name].mark for name, title in names.items() if name in found}


def standing(results: Results, measure: Measure, labels: Sequence[str]) -> Standing:
    """One measure within one group of values."""
    labels = [name for name in labels if name in measure.series]
    best = measure.best(labels)
    if best is None:
        return Standing(["no finished cell"], "nothing is finished")
    order = sorted(labels, key=lambda name: -_mean(measure, name))
    means = ", ".join(f"{results.short(name)} {_points(_mean(measure, name))}" for name in order)
    if len(labels) == 1:
        return Standing([f"only {means} is there, nothing to compare it with"], "there is nothing to compare")
    name, means = results.short(best), f"means {means}"
    every = pairs(results, measure)
    judged = [pair for pair in every if pair.a in labels]
    able = [pair for pair in judged if not math.isnan(pair.adjusted)]
    if not able:
        seeds = max(len(measure.series[name]) for name in labels)
        if seeds < SEEDS:
            ahead = f"{name} is ahead" if any(pair.difference for pair in judged) else "there is no difference"
            return Standing([means, f"{counted(seeds, 'seed')}, so no error bar"], ahead, tendency=True)
        why = "too few shared seeds, or the same difference in every seed, so no error bar"
        return Standing([means, why], "no verdict is possible")
    footing = _footing(every)
    won = [pair for pair in able if pair.sure and pair.a == best]
    if len(won) == len(labels) - 1:
        return Standing([f"{name} is best beyond noise", means, footing, *_told(results, won)], f"{name} is best")
    sure = [pair for pair in able if pair.sure]
    if sure:
        rivals = _and([results.short(pair.b) for pair in judged if pair.a == best and not pair.sure])
        lead = f"{name} has the highest mean, but its lead over {rivals} is not beyond noise"
        outcome = f"no single best beyond noise, but {_worse(results, sure)}"
        return Standing([lead, means, footing, *_told(results, sure)], outcome)
    widest = max(able, key=lambda pair: abs(pair.difference))
    said = ["no difference beyond noise", means, footing, f"the largest gap: {_pair(results, widest)}"]
    return Standing(said, "no difference beyond noise")


def _worse(results: Results, sure: Sequence[Comparison]) -> str:
    """Who is worse than whom, each loser once."""
    losers: dict[str, list[str]] = {}
    for pair in sure:
        losers.setdefault(results.short(pair.b), []).append(results.short(pair.a))
    return _and([f"{loser} is worse than {_and(winners)}" for loser, winners in losers.items()])


def _told(results: Results, found: Sequence[Comparison]) -> list[str]:
    """Comparisons one by one; of many the surest."""
    told = sorted(found, key=lambda pair: pair.adjusted)[:MOST_PAIRS]
    more = [f"so are {len(found) - len(told)} more comparisons beyond noise"] if len(found) > len(told) else []
    return [_pair(results, pair) for pair in found if pair in told] + more


def versus_control(results: Results, measure: Measure, title: str) -> tuple[list[str], str]:
    """Whether pre-training beat the encoder that had none of it -> (sentences, outcome)."""
    found = against_control(results, measure)
    if not found:
        return [], ""
    able = [pair for pair in found if not math.isnan(pair.adjusted)]
    given = any(name.startswith(GIVEN) for name in results.controls)
    rival = "the encoder as it was given" if given else "the untrained encoder"
    bases = {
        ", ".join(name.split(", ")[1:]): _points(_mean(measure, name))
        for name in results.controls
        if name in measure.series
    }
    base = ", ".join(f"{where} {points}".strip() for where, points in bases.items())
    head = f"Against {rival}, {title} ({base} {'before' if given else 'without pre-training'}): "
    if not able:
        gains = ", ".join(f"{pair.a} {_signed(pair.difference)} points" for pair in found)
        seeds = max(pair.seeds for pair in found)
        why = counted(seeds, "seed") if seeds < SEEDS else "the same difference in every seed"
        return [f"{head}{gains}.", f"{_upper(why)}, so no error bar."], ""
    better = [pair for pair in able if pair.sure and pair.difference > 0]
    worse = [pair for pair in able if pair.sure and pair.difference < 0]
    rest = [pair for pair in found if not pair.sure]
    parts = []
    if better:
        parts.append(f"pre-training is better beyond noise at {_and([pair.a for pair in better])}")
    if worse:
        parts.append(f"{rival} is better, beyond noise, than {_and([pair.a for pair in worse])}")
    if rest:
        parts.append(f"no difference beyond noise at {_and([pair.a for pair in rest])}")
    first, *others = parts
    said = [f"{head}{first}.", *(f"{_upper(part)}." for part in others), f"{_upper(_footing(found))}.", *_gains(found)]
    if worse:
        who = "every value" if len(worse) == len(found) else _and([pair.a for pair in worse])
        return said, f", but {rival} is better than {who}"
    if len(better) == len(found):
        return said, f", and pre-training beats {rival} at every value"
    if better:
        where = _and([pair.a for pair in better])
        return said, f", and pre-training beats {rival} beyond noise at {where} only"
    return said, f", and pre-training does not beat {rival} beyond noise"


def matrix(results: Results) -> list[str]:
    """What the loss matrix says: who wins at each evaluation rate, and whether each wins at its own."""
    losses = results.losses()
    said: dict[str, list[str]] = {}
    for group, labels in results.groups.items():
        best = {rate: name for rate, measure in losses.items() if (name := measure.best(labels))}
        if not best or len(labels) < 2:
            continue
        lowest = ", ".join(f"{results.short(name)} at {_percent(rate)} masks" for rate, name in best.items())
        seeds = max(len(measure.series.get(name, {})) for measure in losses.values() for name in labels)
        sentence = f"{'lowest mean' if seeds > 1 else 'one seed, lowest'}: {lowest}{_own(results, labels, best)}"
        said.setdefault(sentence, []).append(group)
    found = [f"Held-out loss{f', at {_and(groups)}' if groups != [''] else ''}, {x}." for x, groups in said.items()]
    if found:
        found.append("A loss at one rate favours the run trained at that rate, so none of them is the verdict.")
    return found


def _own(results: Results, labels: Sequence[str], best: Mapping[float, str]) -> str:
    """Whether each rate is best where it was trained; "" where rates were not varied."""
    path = next((path for path in results.paths if path.rsplit(".", 1)[-1] == "rate"), None)
    if path is None or not numeric(results.values[name].get(path) for name in labels):
        return ""
    trained = {float(results.values[name][path]): name for name in labels}
    own = [rate for rate in best if rate in trained]
    lost = [rate for rate in own if best[rate] != trained[rate]]
    if len(own) < 2:
        return ""
    return (
        f"; not every rate is best at its own, not {_and([text(r) for r in lost])}"
        if lost
        else ("; each rate is best at its own")
    )


def _pair(results: Results, pair: Comparison) -> str:
    return f"{results.short(pair.a)} over {results.short(pair.b)}: {_numbers(pair)}"


def _gains(found: Sequence[Comparison]) -> list[str]:
    """What pre-training adds; of many values the least and the most."""
    if len(found) <= MOST_PAIRS:
        return [f"{_upper(pair.a)}: {_numbers(pair)}." for pair in found]
    order = sorted(found, key=lambda pair: pair.difference)
    return [f"The least, {order[0].a}: {_numbers(order[0])}.", f"The most, {order[-1].a}: {_numbers(order[-1])}."]


def _numbers(pair: Comparison) -> str:
    points = f"{_signed(pair.difference)} points"
    if math.isnan(pair.adjusted):
        return f"{points}, no error bar"
    return f"{points}, interval {_signed(pair.low)} to {_signed(pair.high)}, {_p(pair.adjusted)}"


def _footing(found: Sequence[Comparison]) -> str:
    able = [pair for pair in found if not math.isnan(pair.adjusted)]
    least, most = min(pair.seeds for pair in able), max(pair.seeds for pair in able)
    seeds = counted(least, "seed") if least == most else f"{least} to {most} seeds"
    paired = "paired" if all(pair.paired for pair in able) else "paired where shared"
    of = f", for {len(able)} comparisons together (Bonferroni)" if len(able) > 1 else ""
    return f"{seeds}, {paired}; 95 % intervals and p{of}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _mean(measure: Measure, name: str) -> float:
    found = measure.spread(name)
    return math.nan if found is None else found.mean


def _signed(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into +0.0


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)
