"""report.html: one file, figures and style inside it, no script, light and dark, readable on a telephone."""

from collections.abc import Sequence
from html import escape

from jaxmlm.plotting import svg
from jaxmlm.studies import figures
from jaxmlm.studies import verdict as words
from jaxmlm.studies.report import Report, columns, entry, heads, names, points
from jaxmlm.studies.results import Results, collect, leaders, row_label

STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1c1e21; --soft: #5d6570; --line: #d9dde2; --card: #f5f6f8;
  --mask: #30343a; --maskink: #fff; --random: #ffd9b8; --keep: #cfe8d8; --mark: #0062a3; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --ink: #e8eaed; --soft: #a0a8b2; --line: #363b42;
  --card: #1e2125; --mask: #c9ced6; --maskink: #15171a; --random: #7a4314; --keep: #1f5a38; --mark: #6bb7f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main, footer { max-width: 74rem; margin: 0 auto; padding: 1rem 1.25rem; overflow-wrap: anywhere; }
h1 { margin: .6rem 0; font-size: 1.7rem; line-height: 1.2; } h2 { margin: 2.2rem 0 .4rem; font-size: 1.2rem; }
p { margin: .4rem 0; max-width: 52rem; } .soft, footer, figcaption { color: var(--soft); font-size: .88rem; }
.note { border-left: 4px solid var(--mark); padding: .3rem .8rem; background: var(--card); }
.lead { font-size: 1.12rem; font-weight: 600; } ul { max-width: 56rem; padding-left: 1.2rem; font-size: .95rem; }
li { margin: .3rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.left { text-align: left; } .plain td, .plain th { white-space: nowrap;
    } .first td, .first th { overflow-wrap: normal; }
.first th, .first td { padding: .4rem .38rem; }
.spread { color: var(--soft); font-size: .8em; font-weight: 400; white-space: nowrap;
  display: block; }
.first .value { font-weight: 600; } .first .sentence { min-width: 15rem; max-width: 26rem; }
.sentence { text-align: left; line-height: 1.7; } .best { font-weight: 700; color: var(--mark); }
.mask, .random, .keep { border-radius: 3px; padding: 0 .2em; }
.mask { background: var(--mask); color: var(--maskink); font-size: .72em; letter-spacing: .03em; }
.random { background: var(--random); } .keep { background: var(--keep); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: 6px; }
figure svg { display: block; width: 100%; height: auto; max-width: 40rem; margin: 0 auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; } dd { margin: 0; }
dd, code { font-family: ui-monospace, monospace; font-size: .85rem; }
@media (max-width: 44rem) {
  .first thead { display: none; }
  .first, .first tbody, .first tr, .first td { display: block; width: auto; }
  .first tr { margin: 0 0 .8rem; padding: .5rem .7rem; background: var(--card); border-radius: 6px; }
  .first td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .12rem 0; }
  .first td::before { content: attr(data-head); color: var(--soft); }
  .first .sentence { display: block; max-width: none; padding: .3rem 0; } .first .sentence::before { content: none; }
  .first td:empty { display: none; } .spread { display: inline; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
}
"""


def html(report: Report) -> str:
    """The whole page; every text from outside is escaped, so it can hold any character."""
    results = collect(report.rows)
    said = words.sentences(results)
    note = f'<p class="note">{escape(report.note)}</p>' if report.note else ""
    rest = "".join(f"<li>{escape(sentence)}</li>" for sentence in said[:-1])
    body = [
        f"<h1>{escape(report.title)}</h1>{note}",
        f'<p class="lead">{escape(said[-1])}</p>' + (f"<ul>{rest}</ul>" if rest else ""),
        first_table(results, report),
        _section("Scores", _scores(results)),
        _section("Training loss", _losses(results, report)),
        _section("Loss matrix", _matrix(results)),
        _section("BLiMP by field", _fields(results)),
        _section("Every seed", every_seed(results)),
        _section("Cost", cost(results)),
        _section("Notes", f"<ul>{''.join(f'<li>{escape(x)}</li>' for x in results.notes)}</ul>")
        if results.notes
        else "",
    ]
    foot = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in report.provenance.items())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + f"\n</main><footer><h2>Where this came from</h2><dl>{foot}</dl></footer></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _figure(figure: figures.Figure, name: str, caption: str) -> str:
    drawn = svg(figure, name, caption)
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def _soft(words: str) -> str:
    return f'<p class="soft">{escape(words)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A plain table of texts; the first `left` columns are aligned left."""

    def line(tag: str, cells: Sequence[str]) -> str:
        made = (f"<{tag}{' class=left' if i < left else ''}>{escape(c)}</{tag}>" for i, c in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line("td", cells) for cells in rows)
    return _wide("plain", line("th", head), body)


def _wide(name: str, head: str, body: str) -> str:
    """A table that scrolls sideways by itself where the screen is narrow."""
    return f'<div class="wide"><table class="{name}"><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def sentence(pieces: Sequence[tuple[str, str]]) -> str:
    """One sentence as the model sees it: masked places dark, random and kept pieces coloured.

    >>> sentence([("▁a", "plain"), ("▁b", "mask")])
    'a <span class="mask">[MASK]</span>'
    """
    made = []
    for piece, state in pieces:
        gap = " " if piece.startswith("▁") or state == "mask" else ""
        shown = "[MASK]" if state == "mask" else escape(piece.replace("▁", " ").strip())
        made.append(gap + (shown if state == "plain" else f'<span class="{escape(state)}">{shown}</span>'))
    return "".join(made).strip()


def first_table(results: Results, report: Report) -> str:
    """Value | sentence | perplexity | scores: the paper's first table."""
    if not results.rows:
        return _soft("No cell has finished yet.")
    listed, shown = columns(results), bool(report.sentences)
    best = [leaders(results, column.measure) for column in listed]
    head = [
        *heads(results),
        *(["as the model sees it"] if shown else []),
        *(column.heading for column in listed),
    ]
    left = len(heads(results)) + shown
    lines = ["".join(f"<th{' class=left' if i < left else ''}>{escape(h)}</th>" for i, h in enumerate(head))]
    for name in names(results):
        cells = [
            f'<td class="left value" data-head="{escape(h)}">{escape(value)}</td>'
            for h, value in zip(heads(results), points(results, name), strict=True)
        ]
        if shown:
            cells.append(f'<td class="sentence">{sentence(report.sentences.get(name, []))}</td>')
        for column, leading in zip(listed, best, strict=True):
            mean, _, rest = entry(column, name).partition(" ")
            mark = ' class="best"' if name in leading else ""
            number = f'<span>{escape(mean)} <span class="spread">{escape(rest)}</span></span>'
            cells.append(f'<td{mark} data-head="{escape(column.heading)}">{number}</td>')
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    states = {state for pieces in report.sentences.values() for _, state in pieces}
    legend = "".join(
        f' <span class="{state}">{said}</span>'
        for state, said in (
            ("mask", "[MASK]"),
            ("random", "random piece"),
            ("keep", "predicted, but unchanged"),
        )
        if state in states
    )
    metrics = ", ".join(f"{task}{m.mark} {m.metric}" for task in results.tasks if (m := results.measures.get(task)))
    text = "Mean ± standard deviation (number of pre-training seeds; tuning seeds averaged first); scores times 100"
    text += f": {metrics}." if metrics else "."
    rival = "value" if len(results.paths) < 2 else f"{heads(results)[0]}, all else equal,"
    text += f" Bold: better than every other {rival} beyond noise (paired t, Bonferroni, 5 %; three seeds or more)."
    if any(column.heading.startswith("perplexity") for column in listed):
        text += " Perplexity at 15 % masks favours training at 15 %: see the loss matrix."
    lacking = [
        stage
        for stage, there in (
            ("fine-tuning", bool(results.tasks)),
            ("BLiMP", "blimp" in results.measures),
            ("held-out", bool(results.losses())),
        )
        if not there
    ]
    text += f" Not in these results: {', '.join(lacking)} scores." if lacking else ""
    return _wide("first", f"<tr>{lines[0]}</tr>", body) + f'<p class="soft">{escape(text)}{legend}</p>'


def _scores(results: Results) -> str:
    drawn = []
    for name in figures.score_names(results):
        figure = figures.scores(results, [name])
        if figure is not None:
            title = figures.title(results.measures[name])
            drawn.append(f"<figure>{svg(figure, f'score-{len(drawn)}', title)}</figure>")
    if not drawn:
        return _soft("No BLiMP or fine-tuning scores yet: nothing to draw.")
    dashed = " Dashed: the encoder before the pre-training, ± sd." if results.controls else ""
    text = f"Mean and standard deviation over pre-training seeds; small dots: every seed.{dashed}"
    return f'{_soft(text)}<div class="figures">{"".join(drawn)}</div>'


def _losses(results: Results, report: Report) -> str:
    figure = figures.losses(results, report.curves)
    if figure is None:
        return _soft("No training log here: no curves.")
    caption = "Loss on the training batches, a line per cell. Each is measured at its own masking, so curves of "
    return _figure(figure, "losses", caption + "different maskings show how training went, not which is better.")


def _matrix(results: Results) -> str:
    figure = figures.matrix(results)
    if figure is None:
        return _soft("No held-out losses yet.")
    caption = (
        "Held-out loss in nats, mean over seeds; framed: the lowest of the column. A loss at 15 % favours the "
        "cell trained at 15 %, so no single one is the verdict."
    )
    return _figure(figure, "matrix", caption)


def _fields(results: Results) -> str:
    figure = figures.fields(results)
    if figure is None:
        return _soft("No BLiMP scores by field in these results.")
    mark = next(iter(results.fields().values())).mark
    return _figure(
        figure, "fields", f"Accuracy by linguistic field{mark}: every pre-training seed a dot, the bar their mean."
    )


def every_seed(results: Results) -> str:
    """Every number behind the page: a line per cell, tuning seeds averaged."""
    shown = {x: m for x, m in results.measures.items() if x in results.tasks or not x.startswith("blimp/")}
    cells = {(row_label(row), row["seed"]): row["cell"] for row in results.rows}
    order = sorted(cells, key=lambda key: (names(results).index(key[0]), key[1]))
    rows = []
    for name, seed in order:
        found = [measure.series.get(name, {}).get(seed) for measure in shown.values()]
        rows.append([cells[name, seed], *("–" if v is None else f"{v:.1f}" if v >= 100 else f"{v:.4f}" for v in found)])
    return _table(["cell", *(name.removeprefix("heldout/") + m.mark for name, m in shown.items())], rows, 1)


def cost(results: Results) -> str:
    """Tokens, speed and seconds of every cell."""
    rows = []
    for cell in dict.fromkeys(row["cell"] for row in results.rows):
        mine = [row for row in results.rows if row["cell"] == cell]
        stages: dict[str, float] = {}
        for row in mine:
            stages[row["stage"]] = stages.get(row["stage"], 0.0) + (row.get("seconds") or 0.0)
        trained = next((row for row in mine if row["stage"] == "pretrain"), {})
        tokens, speed = trained.get("tokens"), trained.get("tokens_per_second")
        rows.append(
            [
                cell,
                f"{tokens:,}" if tokens else "–",
                f"{speed:,.0f}" if speed else "–",
                *(f"{stages[s]:,.0f}" if s in stages else "–" for s in STAGES),
                f"{sum(stages.values()):,.0f}",
            ]
        )
    return _table(["cell", "tokens", "tokens/s", *(f"{stage} s" for stage in STAGES), "all s"], rows, 1)


STAGES = ("pretrain", "heldout", "blimp", "finetune")
