"""The rows of docs/results/small_data_cells.md, one a cell and seed, are those of the lines of results."""

from tests.small_data_pages import (
    CELLS,
    LAWS,
    PARTS,
    SERIES,
    cells_of,
    label_of,
    leads,
    lines,
    lines_of_masks,
    majorities,
    probed_at,
    probes_of,
    scores,
    share,
    tables,
)


def test_rates():
    results = lines("rates")
    rows = cells_of("Rates")
    assert len(rows) == 15
    for rate, seed, bound, parts, *others in rows:
        label = share(rate)
        assert [bound, *others] == scores(results, label, int(seed))
        assert parts == ", ".join(f"{results.series[name].by_label[label][int(seed)]:.3f}" for name in PARTS)


def test_held_out_rows_of_both_texts():
    results = lines("heldout")
    rows = cells_of("Held-out")
    assert len(rows) == 6
    for rate, seed, *losses in rows:
        label = share(rate)
        found = [results.series[name].by_label[label][int(seed)] for name in SERIES if name.startswith("heldout")]
        assert losses == [f"{loss:.3f}" for loss in found]


def test_learning_rates():
    at_others = lines("learning_rates")
    rates = lines("rates")
    rows = cells_of("Learning rates")
    assert len(rows) == 4
    for trained, learning_rate, seed, *others in rows:
        label = share(trained)
        if learning_rate == "4e-3":
            assert others == scores(rates, label, int(seed))[:-1]
        else:
            of = f"rate={label},learning_rate={float(learning_rate):g}"
            found = [at_others.series[name].by_label[of][int(seed)] for name in SERIES[:-1]]
            assert others == [f"{one:.3f}" for one in found]


def test_steps():
    results = lines("steps")
    rows, along = tables("Steps", CELLS)
    assert len(rows) == 6
    for rate, seed, *others in rows:
        label = share(rate)
        assert others == scores(results, label, int(seed)) + probes_of(results, label, int(seed))[:2]
    assert along == leads()


def test_fine_tuning():
    results = lines("finetune")
    rows = cells_of("Fine-tuning")
    assert len(rows) >= 7
    for trained, seed, *scores_of in rows:
        label = "not pre-trained" if trained == "not pre-trained" else label_of(f"tokens, {trained}")
        for task, found in zip(("cola", "rte", "mrpc", "stsb", "sst2", "squad"), scores_of, strict=True):
            assert found == f"{100 * results.series[task].by_label[label][int(seed)]:.1f}", (trained, seed, task)


def test_sizes():
    results = lines("sizes")
    rates = lines("rates")
    rows = cells_of("Sizes")
    assert len(rows) >= 6
    for size, seed, bounds, *differences, blimps in rows:
        of = rates if size == "2 x 128" else results
        labels = [rate if of is rates else f"rate={rate},model={size}" for rate in ("0.15", "0.40")]
        two = [[of.series[name].by_label[label][int(seed)] for label in labels] for name in SERIES]
        assert bounds.split(", ") == [f"{one:.3f}" for one in two[0]]
        assert differences == [f"{high - low:.3f}" for low, high in two[:-1]]
        assert blimps.split(", ") == [f"{100 * one:.1f}" for one in two[-1]]


def test_strategies():
    strategies = lines("strategies")
    rates = lines("rates")
    rows = cells_of("Strategies")
    assert len(rows) == 24
    for masking, seed, *others in rows:
        unit, rate = masking.split(", ")
        of, label = (rates, share(rate)) if unit == "tokens" else (strategies, label_of(masking))
        bound, at_15, at_40, _, blimp = scores(of, label, int(seed))
        assert others == [bound, at_15, at_40, blimp], masking


def test_masks_of_others():
    lines_of = lines_of_masks()
    rows = cells_of("Masks of others")
    assert len(rows) == sum(map(len, lines_of.values()))
    for masking, seed, *others, whole, parts in rows:
        line = lines_of[label_of(masking)][int(seed)]
        for unit, cell in zip(("tokens", "words", "phrases", "spans"), others, strict=True):
            assert cell == f"{line[unit + ' 15%']:.3f}, {line[unit + ' 40%']:.3f}", (masking, seed)
        assert [whole, parts] == [f"{line[one]:.3f}" for one in ("words of one token", "parts of longer words")]


def test_probes():
    results = lines("probes")
    strategies, rates = tables("Probes", CELLS)
    assert len(strategies) == 24 and len(rates) >= 6
    for masking, seed, *others in strategies:
        if masking == "most frequent class":
            assert others == majorities(results)
        else:
            label = "not pre-trained" if masking == "untrained" else label_of(masking)
            assert others == probes_of(results, label, int(seed)), masking
    for encoder, seed, *others in rates:
        two = [probes_of(results, label, int(seed)) for label in probed_at(encoder)]
        assert others == [", ".join(both) for both in zip(*two, strict=True)]


def test_laws():
    rates = lines("rates")
    laws = lines("laws")
    rows = cells_of("Laws")
    assert len(rows) >= 19
    for masking, seed, *others in rows:
        of, label = (rates, share(masking)) if masking.endswith("fixed") else (laws, LAWS[masking])
        assert others == scores(of, label, int(seed)), masking


def test_replacement():
    results = lines("replacement")
    rates = lines("rates")
    rows = cells_of("Replacement")
    assert len(rows) >= 5
    for rate, seed, mask, bert, random in rows:
        assert mask == ", ".join(scores(rates, share(rate), int(seed)))
        assert bert == ", ".join(scores(results, f"replace=80-10-10,rate={share(rate)}", int(seed)))
        if random:
            assert random == ", ".join(scores(results, f"replace=5 random,rate={share(rate)}", int(seed)))
    assert sum(bool(random) for *_, random in rows) == 4
