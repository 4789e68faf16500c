"""Plans beside what they promise, as Markdown: python benchmarks/plans.py memory | fsdp (needs libtpu)

memory: the formula that searches for meshes, and what the compiler says, for small encoders cut up in many ways.
fsdp: what a chip sends a step when every chip has the same rows, for 4 to 256 chips.
Every row is compiled anew; a row is printed as soon as it is known.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from jaxmlm.config import load
from jaxmlm.parallel import Mesh
from jaxmlm.runs.run import Run
from jaxmlm.tools.aot import compiled_for
from jaxmlm.tools.hardware import topology
from jaxmlm.tools.memory import memory

LARGE = str(Path(__file__).parents[1] / "configs" / "large.py")
SMALL = dict(layers=4, width=512, heads=8)


def formula(names: list[str]) -> Iterator[tuple]:
    """Small encoders on four chips: bytes by the formula and by the compiler."""
    full = {"remat": "full"}
    cuts = {
        "remat none": {},
        "remat dots": {"remat": "dots"},
        "remat full": full,
        "remat full, 4 rows a chip": full | {"rows": 4},
        "remat none, accumulate 4": {"accumulate": 4},
        "remat none, fsdp 4": {"mesh": Mesh(-1, 4, 1)},
        "remat full, fsdp 4": {"mesh": Mesh(-1, 4, 1)} | full,
        "remat none, tensor 2": {"mesh": Mesh(-1, 1, 2)},
        "2 x 1024, 50,265 pieces, remat full": {"layers": 2, "width": 1024, "heads": 16, "vocab": 50_265} | full,
        "8 x 256, length 512, remat full": {"layers": 8, "width": 256, "heads": 4, "length": 512} | full,
        "8 x 256, float32, remat none": {"layers": 8, "width": 256, "heads": 4, "dtype": "float32"},
    }  # fmt: skip
    yield "way", "formula MiB", "compiled MiB", "formula / compiled", "compilation s"
    for name, cut in cuts.items():
        if names and not any(part in name for part in names):
            continue
        run, made = _compiled({"rows": 64} | cut, "v5e:2x2")
        by_formula = memory(run, run.data.vocab, 4).total
        total, seconds = made["total"], made["seconds"]
        yield name, f"{by_formula / 2**20:.0f}", f"{total / 2**20:.0f}", f"{by_formula / total:.2f}", f"{seconds:.0f}"


def fsdp(names: list[str]) -> Iterator[tuple]:
    """The same rows for every chip: what each sends with parameters cut over all chips, or over four of them."""
    yield ("chips", "fsdp", "all-gather MB", "reduce-scatter MB", "all-reduce MB", "other MB", "in all MB", "hidden",
           "compilation s")  # fmt: skip
    for name in names or ("v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16"):
        chips = topology(name).chips
        for size in sorted({4, chips}):
            cut = {"layers": 2, "mesh": Mesh(-1, size, 1), "dropout": 0.0, "attention_dropout": 0.0, "rows": 16}
            _, made = _compiled(cut, name)
            sent = {kind: one["bytes"] / 1e6 for kind, one in made["collectives"].items()}
            hidden = sum(one["hidden"] for one in made["collectives"].values()) / 1e6 / sum(sent.values())
            kinds = [sent.pop(kind, 0.0) for kind in ("all-gather", "reduce-scatter", "all-reduce")]
            each = [*kinds, sum(sent.values()), sum(kinds) + sum(sent.values())]
            yield chips, size, *(f"{part:.2f}" for part in each), f"{hidden:.0%}", f"{made['seconds']:.0f}"


def _compiled(cut: dict, where: str) -> tuple[Run, dict]:
    """A small cut of the large recipe, with so many `rows` for each chip, compiled."""
    cut = {**SMALL, "vocab": 8192, "length": 128, "remat": "none", "accumulate": 1, "mesh": Mesh(), **cut}
    run: Run = load(LARGE)
    data = dataclasses.replace(run.data, vocab=cut.pop("vocab"), length=cut.pop("length"))
    batch, accumulate = cut.pop("rows") * topology(where).chips, cut.pop("accumulate")
    loop = dataclasses.replace(run.loop, batch=batch, accumulate=accumulate)
    mesh = cut.pop("mesh")
    run = dataclasses.replace(run, data=data, loop=loop, mesh=mesh, model=dataclasses.replace(run.model, **cut))
    return run, compiled_for(run, topology(where))


if __name__ == "__main__":
    table = {"memory": formula, "fsdp": fsdp}[sys.argv[1]](sys.argv[2:])
    for i, row in enumerate(table):
        print("|", " | ".join(map(str, row)), "|", flush=True)
        if i == 0:
            print("|", " | ".join("---" for _ in row), "|", flush=True)
