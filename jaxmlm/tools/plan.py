"""`jaxmlm plan`: a run compiled ahead of time for TPUs: does it fit, where does time go, what does it cost."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from jaxmlm.checks import COUNT, NOT_NEGATIVE, POSITIVE_SHARE, check_numbers
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.directories import cache_directory
from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.json_files import read_json, with_checksum, without_checksum, write_json
from jaxmlm.parallel import check_sizes
from jaxmlm.runs import epochs
from jaxmlm.runs.run import Run, identity
from jaxmlm.runs.tables import Column, Tables
from jaxmlm.tools.aot import compiled_for
from jaxmlm.tools.doctor import pairs
from jaxmlm.tools.flops import step_flops
from jaxmlm.tools.hardware import GIB, Chip, Topology, topology
from jaxmlm.tools.memory import alternatives, memory
from jaxmlm.training import budget

ROOM = 0.85
"""Share of a chip's memory that the formula may fill when another way is looked for; the compiler has the last word."""
TRIES = 3
_COSTS = (
    "sent GB a step",
    "hidden",
    "step at least s",
    "by",
    "MFU at most",
    "tokens/s at most",
    "steps",
    "hours",
    "chip-hours",
    "price",
)
"""Rows of the table that only a plan that fits has."""
HOPELESS = 2.0
"""From so many times a chip's memory on the formula alone decides: the compiler takes minutes to see that it cannot."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `jaxmlm plan` takes beside the options of the configuration."""

    topology: str = "v5e:4x4"
    """A slice of a TPU pod, or several separated by commas: v5e:4x4,v6e:2x4,v5p:2x2x2."""
    slices: int = 1
    """Number of such slices, connected by the network of the data centre; the mesh axis data goes across them."""
    price: float | None = None
    """Price of one chip for one hour."""
    mfu: float = 0.4
    """Share of the peak FLOP/s that hours and price assume, where the roofline allows it."""
    search: bool = False
    """Whether to look for a faster mesh, accumulation and rematerialisation where the run fits as it is: it and of each
    rematerialisation the way that a formula thinks is fastest are compiled, and the one whose step has the least
    roofline bound is taken."""
    again: bool = False
    """Whether to compile again what has been compiled before."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", slices=COUNT, price=NOT_NEGATIVE, mfu=POSITIVE_SHARE)


def plan(run: Run, options: Plan) -> dict[str, Any]:
    """Plan a run on every topology that is named, and print a table.

    Returns {"ok": whether it fits on all of them, perhaps cut up in another way, "plans": [what `planned` gives, and
    "epochs": how often the steps read the text, None where that is not known]}. The steps of a budget are those that it
    has time for at the speed that hours and price assume, `most_epochs` of the text at most.
    """
    if run.init:
        raise InputError("a plan goes by sizes only: leave out init, give those of that encoder (--model.layers ...)")
    if wrong := next(pairs(importlib.metadata.version("jax")), None):
        raise InputError(f"{wrong.found}: {wrong.do}")
    slices = [topology(name) for name in options.topology.split(",")]
    for one in slices:
        check_sizes(run.mesh.over(one.devices * options.slices, options.slices), run.sizes)
    have = epochs.size(run)
    tokens = run.loop.batch * run.data.length
    if not run.loop.budget:
        epochs.check(run, run.loop.steps * tokens, have, "--most-epochs (of a study --run.most-epochs)")
    found = [planned(run, one, options) for one in slices]
    for one in found:
        one["epochs"] = one["steps"] * tokens / have if have and one["steps"] is not None else None
    console = Console(stderr=True)
    console.print(table(run, found))
    for line in advice(found):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return {"ok": all(one["fits"] or one["instead"] is not None for one in found), "plans": found}


def planned(run: Run, where: Topology, options: Plan) -> dict[str, Any]:
    """One run on one topology: what the compiler found and what follows of it.

    {"topology", "slices", "chips", "fits": as it is; "instead": the flags of the way that was found, if it is another,
    of which the numbers are then; "tried", the run as it is first, by the formula alone where that wants far too much;
    what `compiled_for` gives; "estimate": bytes a chip by the formula; and where it fits "flops" of a step, "bounds":
    seconds that it takes at least, by what, "mfu_at_most", "steps", of a budget those that fit into it, "hours" ...}.
    """
    devices = where.devices * options.slices
    chip = where.chip
    others: Iterable[Run] = _candidates(run, devices, chip, options.slices)
    if options.search:
        others = _first_of_each_remat(others)
    others = (way for way in others if way is not run)
    most = epochs.most_steps(run) if run.loop.budget else None
    tried: list[tuple[Run, dict[str, Any]]] = []
    for way in islice(chain([run], others), None if options.search else TRIES):
        made = _made(way, where, options, chip)
        tried.append((way, made | _times(way, made, where, options, most) if made["fits"] else made))
        if made["fits"] and not options.search:
            break
    # Of those that fit the fastest by the roofline; if none does, the run as it is is reported.
    fitting = [one for one in tried if one[1]["fits"]]
    chosen, made = min(fitting, key=lambda one: one[1]["bound"], default=tried[0])
    estimate = memory(chosen, vocab_of(run), devices)
    return {
        "topology": where.name,
        "slices": options.slices,
        "chips": where.chips * options.slices,
        "fits": chosen is run and made["fits"],
        "instead": flags(run, chosen) if chosen is not run else None,
        "tried": [
            {"flags": flags(run, other)} | {key: one.get(key) for key in ("fits", "total", "bound")}
            for other, one in tried
        ],
        "limit": chip.memory,
        "budget": run.loop.budget,
        "steps": None if run.loop.budget else run.loop.steps,
        "estimate": {**estimate._asdict(), "total": estimate.total},
        **{key: value for key, value in made.items() if key not in ("fits", "chips", "limit")},
    }


def vocab_of(run: Run) -> int:
    """Pieces of the vocabulary, which without a text is what the configuration says."""
    return open_tokenizer(run.data.tokenizer).size if run.data.tokenizer else run.data.vocab


def flags(run: Run, other: Run) -> str:
    """How to make the other run of this one."""
    paths = ("mesh.data", "mesh.fsdp", "mesh.tensor", "loop.accumulate", "model.remat")
    pairs = [(path, _at(run, path), _at(other, path)) for path in paths]
    return " ".join(f"--{path} {new}" for path, old, new in pairs if old != new)


def table(run: Run, found: list[dict[str, Any]]) -> Tables:
    """The plans side by side, a column each."""
    c = run.model
    long = f"budget {run.loop.budget}" if run.loop.budget else f"{run.loop.steps:,} steps"
    head = f"{c.layers} x {c.width}, batch {run.loop.batch} x {run.data.length}, {long}"
    columns = []
    for one in found:
        name = one["topology"] + (f" x {one['slices']}" if one["slices"] > 1 else "")
        columns.append(Column(name, [Text.from_markup(cell) for cell in _column(one).values()]))
    return Tables(head, [Column("", list(_column(found[0])))], columns)


def _column(one: dict[str, Any]) -> dict[str, str]:
    """One plan as the table shows it."""
    total = f"{one['total'] / GIB:.1f}" if one["total"] else "?"
    column = {
        "fits": "yes" if one["fits"] else "not as it is" if one["instead"] is not None else "[red]no",
        "GiB a chip, of": f"{total}, {one['limit'] / GIB:.1f}",
        "epochs of the text": "?" if one.get("epochs") is None else f"{one['epochs']:,.1f}",
    }
    if "bound" not in one:
        return column | dict.fromkeys(_COSTS, "")
    sent = sum(part["bytes"] for part in one["collectives"].values())
    costs = {
        "sent GB a step": f"{sent / 1e9:.2f}",
        "hidden": f"{one['hidden']:.0%}",
        "step at least s": f"{one['bound']:.3f}",
        "by": one["bound_by"],
        "MFU at most": f"{one['mfu_at_most']:.0%}",
        "tokens/s at most": f"{one['tokens_per_second_at_most']:,.0f}",
        "steps": f"{one['steps']:,}",
        "hours": f"{one['hours']:.1f}",
        "chip-hours": f"{one['chip_hours']:,.0f}",
        "price": "" if one["price"] is None else f"{one['price']:,.0f}",
    }
    return column | costs


def advice(found: list[dict[str, Any]]) -> Iterator[str]:
    """What to change, and what hours and price go by."""
    for one in found:
        if one["instead"]:
            yield f"{one['topology']}: {'this way' if 'bound' in one else 'not even'}: {one['instead']}"
        elif not one["fits"] and one["instead"] is None:
            yield f"{one['topology']}: no way was found that fits: take more chips, or a smaller model"
    assumed = next((one["mfu"] for one in found if "mfu" in one), None)
    if assumed is not None:
        yield f"hours, chip-hours and price at {assumed:.0%} of the peak or what the roofline allows, whichever is less"
        if found[0]["budget"]:
            yield f"steps: those that {found[0]['budget']} have time for at that speed, most_epochs of the text at most"


def _times(run: Run, made: dict[str, Any], where: Topology, options: Plan, most: int | None) -> dict[str, Any]:
    chip = where.chip
    chips = where.chips * options.slices
    devices = where.devices * options.slices
    counted = step_flops(run, vocab_of(run))
    recomputed = {"none": 0.0, "dots": counted.attention, "full": counted.recomputed}[run.model.remat]
    sent = sum(one["bytes"] for one in made["collectives"].values())
    hidden = sum(one["hidden"] for one in made["collectives"].values())
    bounds = {
        "compute": (counted.training + recomputed) / devices / chip.flops,
        "memory": made["moved"] / chip.bandwidth,
    } | ({"links": sent / chip.links} if chip.links else {})
    by = max(bounds, key=lambda name: bounds[name])
    ideal = counted.training / devices / chip.flops
    tokens = run.loop.batch * run.data.length
    mfu = min(options.mfu, ideal / bounds[by])
    steps = run.loop.steps
    if run.loop.budget:
        steps = max(1, int(budget.seconds(run.loop.budget) * mfu / ideal))
        steps = steps if most is None else min(steps, most)
    hours = steps * ideal / mfu / 3600
    return {
        "flops": {**counted._asdict(), "training": counted.training, "recomputed": recomputed},
        "hidden": hidden / sent if sent else 0.0,
        "bounds": bounds,
        "bound": bounds[by],
        "bound_by": by,
        "mfu_at_most": ideal / bounds[by],
        "tokens_per_second_at_most": tokens / bounds[by],
        "mfu": options.mfu,
        "tokens_per_second": tokens * mfu / ideal,
        "steps": steps,
        "hours": hours,
        "chip_hours": hours * chips,
        "price": None if options.price is None else hours * chips * options.price,
    }


def _candidates(run: Run, devices: int, chip: Chip, slices: int) -> Iterator[Run]:
    """Ways that fit by the formula, the likely fastest first; the one that the run has already is the run itself."""
    for other in alternatives(run, devices, slices):
        if _wanted(other, devices) <= ROOM * chip.memory:
            yield other if flags(run, other) else run


def _first_of_each_remat(ways: Iterable[Run]) -> Iterator[Run]:
    """Of each rematerialisation the way that comes first."""
    seen: set[str] = set()
    for way in ways:
        if way.model.remat not in seen:
            seen.add(way.model.remat)
            yield way


def _wanted(run: Run, devices: int) -> float:
    return memory(run, vocab_of(run), devices).total


def _made(run: Run, where: Topology, options: Plan, chip: Chip) -> dict[str, Any]:
    """What the compiler says, or the formula alone where it wants far too much."""
    wanted = _wanted(run, where.devices * options.slices)
    if wanted > HOPELESS * chip.memory:
        return {"fits": False, "total": wanted, "why": f"by the formula it wants {wanted / GIB:.0f} GiB"}
    return _cached(run, where, options)


def _cached(run: Run, where: Topology, options: Plan) -> dict[str, Any]:
    """What the compiler says, from an earlier plan of the same program by the same versions if there is one."""
    versions = [importlib.metadata.version(name) for name in ("jax", "flax", "optax")]
    libtpu = importlib.metadata.version("libtpu") if importlib.util.find_spec("libtpu") else None
    cut_up = {"accumulate": run.loop.accumulate, "remat": run.model.remat, "logits_chunk": run.model.logits_chunk}
    shape = {**identity(run), "mesh": describe(run.mesh), **cut_up}
    for name in ("text", "valid", "tokenizer_words", "lowercase", "layout", "field", "weights"):
        shape["data"].pop(name, None)  # what the program does not depend on
    what = json.dumps([shape, where.name, options.slices, versions, libtpu, _source()], sort_keys=True)
    directory = cache_directory() / "plans"
    path = directory / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.json"
    if path.is_file() and not options.again:
        with suppress(InputError):  # damaged: it is made again
            return without_checksum(read_json(path), path)
    Console(stderr=True).print(f"compiling for {options.slices} x {where.name} ...", highlight=False)
    made = compiled_for(run, where, options.slices)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, with_checksum(made))
    return made


def _source() -> str:
    """A hash of the package's code that a program is made by; the identity of a run has that of the user's own."""
    root = Path(__file__).parents[1]
    rooms = ("models", "training", "masking", "parallel", "tasks")
    files = [file for room in rooms for file in sorted((root / room).glob("*.py"))]
    files += [Path(__file__).with_name("aot.py"), Path(__file__).with_name("hlo.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _at(run: Run, path: str) -> Any:
    value: Any = run
    for name in path.split("."):
        value = getattr(value, name)
    return value
