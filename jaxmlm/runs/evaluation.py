"""A checkpoint evaluated as it is: nothing of it is trained."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from jaxmlm.checks import COUNT, NATURAL, check_choices, check_numbers, integers
from jaxmlm.data import Batches, Data, Store, open_rows
from jaxmlm.data import remote as cloud
from jaxmlm.data.building import first_words
from jaxmlm.data.manifest import MANIFEST
from jaxmlm.data.sources import documents, files
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.masking import Masking
from jaxmlm.models import Encoder
from jaxmlm.os_errors import check_writable
from jaxmlm.parallel import Mesh, hosts, jit, make_mesh
from jaxmlm.preemption import raise_if_all_hosts_stop
from jaxmlm.rng import make_key
from jaxmlm.runs import layer_probes as layers
from jaxmlm.runs.loading import LoadedModel, load
from jaxmlm.runs.text_of_run import is_of_text, text_of
from jaxmlm.runs.zero_shot import (
    ZeroShot,
    check_sentences,
    fast,
    needs_head,
    sha256_of_sentences,
    shown,
    to_row,
    zero_shot,
)
from jaxmlm.tasks import likelihood, probing
from jaxmlm.tasks.bound import likelihood_bound
from jaxmlm.tasks.downstream import SAMPLE
from jaxmlm.tasks.mlm import HELD_OUT_RATES, at_rates, named
from jaxmlm.training import evaluate as run_eval

HELD_OUT = "heldout:"
"""Named as a text: the held-out split of the run itself."""


@dataclass(frozen=True)
class Bound:
    """The likelihood bound on held-out text, by which the cells of a study are evaluated."""

    rows: int = 256
    """Rows of the held-out text to take, each a document or a part of one."""
    draws: int = 2
    """How often each row is masked: more draws make the standard error smaller, as more rows do."""
    seed: int = 0
    """Seed of the masks, which are the same for all cells."""

    def __post_init__(self) -> None:
        check_numbers(self, "bound.", rows=COUNT, draws=COUNT, seed=NATURAL)


@dataclass(frozen=True)
class TextBound(Bound):
    """The likelihood bound on a text: its first documents, about `rows` rows, the same for every tokenizer."""

    text: str = ""
    """Text files."""


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint is evaluated on: minimal pairs, a text, its bound, a treebank.

    If none is named: generated minimal pairs, and the held-out text of a run.
    """

    blimp: str | None = None
    """Directory of the BLiMP sets; sample: reads generated ones."""
    pairs: int = 200
    """Minimal pairs to take from each set."""
    all: bool = False
    """Whether to take all pairs of each set, whatever `pairs` says."""
    babylm: str | None = None
    """Directory of BabyLM's evaluation data, for its zero-shot tasks: all their rows, scored as its pipeline does."""
    fast: bool = False
    """Whether to take BabyLM's small sets, for checkpoints along a run."""
    babylm_tasks: tuple[str, ...] = ()
    """BabyLM's tasks to take, of blimp, supplement, ewok, entity_tracking, wug_adj, wug_past and comps; none named:
    all that are there."""
    predictions: str | None = None
    """Directory for predictions in the format of BabyLM's pipeline: its results/MODEL/REVISION."""
    pll_word: bool = False
    """Whether to mask, with a token, those of its word that follow it and would give it away (Kauf and Ivanova 2023),
    in minimal pairs, BabyLM's tasks and pseudo-perplexity."""
    sets: bool = False
    """Whether to print the accuracy of every set; --json always has them."""
    text: str | None = None
    """Text files for masked loss (of 1,024 of their rows) and pseudo-perplexity; heldout: reads the run's own held-out
    split."""
    rates: tuple[float, ...] = HELD_OUT_RATES
    """Masking rates at which loss and accuracy are measured, at masks that are the same for every model."""
    rows: int = 200
    """Rows of the text for pseudo-perplexity, which costs a pass for every token; 0 disables it."""
    bound: str | None = None
    """Text files for the likelihood bound; heldout: reads the run's own held-out split."""
    bound_rows: int = Bound.rows
    """Rows of that text for the bound, each a document or a part of one; 0: all."""
    bound_draws: int = Bound.draws
    """How often each row is masked for the bound, each time another number of its tokens."""
    length: int = 128
    """Tokens of a row of the text, and the most of a sentence of the treebank."""
    treebank: str | None = None
    """Directory of a Universal Dependencies treebank, for linear probes of every layer."""
    sentences: int = layers.Probes.sentences
    """Sentences to take from the treebank's train file, and a quarter as many from its dev file; 0: all."""
    words: int = layers.Probes.words
    """Words to take from the train file for the probes of words, and a quarter as many from the dev file."""
    pool: Literal["mean", "first"] = "mean"
    """Vector of a word or sentence: the mean over its tokens, or its first token (of a sentence <cls>)."""
    seed: int = 0
    """Seed of the masks of the bound, and of the untrained encoder that is probed for comparison."""
    figure: str | None = None
    """A .png file to draw the probes over the layers into."""
    batch: int = 256
    """Batch size: masked copies in one pass of the model."""

    def __post_init__(self) -> None:
        check_choices(self, "")
        check_numbers(self, "", pairs=COUNT, rows=NATURAL, length=integers(8), batch=COUNT)
        check_numbers(self, "", bound_rows=NATURAL, bound_draws=COUNT)
        check_numbers(self, "", sentences=NATURAL, words=COUNT, seed=NATURAL)
        if not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise InputError(f"rates are {self.rates}: give some above 0 and up to 1, as 0.15 0.4")
        for rate in self.rates:
            Masking(rate)
        if len({named(rate) for rate in self.rates}) < len(self.rates):  # as their results are called
            raise InputError(f"rates are {self.rates}: give each once")
        wanting = [name for name in ("fast", "babylm_tasks", "predictions") if getattr(self, name)]
        if wanting and not self.babylm:
            raise InputError(f"{wanting[0]} is of BabyLM's tasks: give --babylm DIRECTORY too")
        if self.figure and not self.treebank:
            raise InputError("figure draws the probes of a treebank: give --treebank too")
        if self.figure and not self.figure.lower().endswith(".png"):
            raise InputError(f"figure is {self.figure!r}: name a .png file")


def evaluate(checkpoint: str, config: Evaluation) -> dict[str, Any]:
    """Evaluate a checkpoint.

    Args:
        checkpoint: a run's directory, one of its steps, or a directory in the `transformers` format.
        config: what it is evaluated on.

    Returns:
        {"rows": a result (`Result`) for each evaluation}.

    Raises:
        InputError: the checkpoint has no masked-LM head where one is needed, or a file is missing or wrong.

    """
    data = layers.check_probes(config.treebank) if config.treebank else None
    if config.figure and hosts.is_primary():
        check_writable(expanded(config.figure))
    if config.predictions and hosts.is_primary():
        check_writable(expanded(config.predictions), directory=True)
    hosts.assert_same("configurations", {"checkpoint": checkpoint, **describe(config)})
    raise_if_all_hosts_stop("before anything was begun")
    asked_nothing = not (config.blimp or config.babylm or config.text or config.bound or config.treebank)
    pairs = SAMPLE if asked_nothing else config.blimp
    limit = None if config.all else config.pairs
    sentences = ZeroShot(pairs, limit, config.batch, config.babylm, config.fast, config.babylm_tasks, config.pll_word)
    check_sentences(sentences)
    texts = [text for text in (config.text, config.bound) if text and text != HELD_OUT]
    sizes = {text: [one.stat().st_size for one in files(text) if isinstance(one, Path)] for text in texts}
    rows_of = {task: sha256_of_sentences(part) for _, task, part in sentences.parts}
    hosts.assert_same("texts or sentences", sizes | rows_of, hosts.SAME_FILES)
    mesh = make_mesh(Mesh())
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if (pairs or config.babylm or config.text or config.bound) and config.batch % devices:
        raise InputError(
            f"batch {config.batch} is not divisible by {devices} devices: give --batch "
            f"{-(-config.batch // devices) * devices}"
        )
    with jax.set_mesh(mesh):
        loaded = load(checkpoint)
        text = HELD_OUT if asked_nothing and _has_store(loaded) else config.text
        if pairs or config.babylm or text or config.bound:
            needs_head(loaded)
        length = _length(loaded, config.length)
        rows: list[dict[str, Any]] = []
        rows += [zero_shot(loaded, part, mesh, config.predictions) for _, _, part in sentences.parts]
        if text is not None:
            rows += _of_text(loaded, text, length, config, mesh)
        if config.bound is not None:
            rows.append(_bound_of_text(loaded, config.bound, length, config, mesh))
        if data is not None:
            rows += _of_layers(loaded, data, length, config, mesh)
    return {"rows": rows} | ({"sets": True} if config.sets else {})


def held_out(loaded: LoadedModel, data: Data, rate: float, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Loss and accuracy on the held-out text of a run, at the fixed masks of one more rate: a result."""
    started = time.perf_counter()
    valid = Batches(open_rows(Store(str(data.store)), "valid", data.length, data.format), 1)
    few = _few(ZeroShot.batch, mesh.shape["data"] * mesh.shape["fsdp"])
    scores = run_eval(at_rates(valid, loaded.tokenizer, few, (rate,)), fast(loaded), mesh)
    scores.pop("perplexity")  # which is that of the first of the usual rates
    return to_row("heldout", f"mlm at {named(rate)}", f"loss@{named(rate)}", scores, started)


def held_out_bound(loaded: LoadedModel, data: Data, config: Bound, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The likelihood bound of the held-out text of a run, or of the text that `config` names: a result."""
    if isinstance(config, TextBound):
        texts = general_texts(config, data.length)
        rows = likelihood.rows_of_documents(texts, loaded.tokenizer, data.length, None, repr(config.text))
        return _bound(loaded, rows, "text", ZeroShot.batch, config, mesh) | {"stage": "general"}
    rows = likelihood.rows_of_split(documents_of(Store(str(data.store)), data.length), loaded.tokenizer, config.rows)
    return _bound(loaded, rows, "heldout", ZeroShot.batch, config, mesh)


def general_texts(config: TextBound, length: int) -> Iterator[str]:
    """The documents that a bound on a text is of: its first ones, for rows of this length."""
    found = (document.text for document in documents(files(config.text)))
    return first_words(found, config.rows * length * 2 // 3)  # three tokens for two words


def documents_of(store: Store, length: int) -> Batches:
    """The held-out documents of a store, cut into rows of which none holds two, however pre-training packed them."""
    return Batches(open_rows(store, "valid", length, "sentences"), 1)


def _bound_of_text(
    loaded: LoadedModel, text: str, length: int, config: Evaluation, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """The likelihood bound of the run's held-out split, or of text files: a result."""
    limit = config.bound_rows or None
    if text == HELD_OUT:
        split = documents_of(_held_out_store(loaded), loaded.about["config"]["data"]["length"])
        rows = likelihood.rows_of_split(split, loaded.tokenizer, limit)
    else:
        rows = likelihood.rows_of_text(text, loaded.tokenizer, length, limit)
    options = Bound(draws=config.bound_draws, seed=config.seed)
    return _bound(loaded, rows, text, config.batch, options, mesh)


def _bound(
    loaded: LoadedModel, rows: likelihood.ScoredRows, task: str, batch: int, config: Bound, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    needs_head(loaded)
    started = time.perf_counter()
    few = _few(batch, mesh.shape["data"] * mesh.shape["fsdp"])
    task_eval = likelihood_bound(rows, loaded.tokenizer, few, config.draws, config.seed)
    scores = run_eval(shown(task_eval, "bound"), fast(loaded), mesh)
    return to_row("bound", task, "bound", scores, started)


def _of_text(
    loaded: LoadedModel, text: str, length: int, config: Evaluation, mesh: jax.sharding.Mesh
) -> list[dict[str, Any]]:
    """Loss and accuracy at fixed masks, and pseudo-perplexity: of the run's held-out split, or of text files."""
    model = fast(loaded)
    tokenizer = loaded.tokenizer
    if text == HELD_OUT:
        split = _held_out(loaded)
    else:
        split = likelihood.packed(text, tokenizer, length)
    few = _few(config.batch, mesh.shape["data"] * mesh.shape["fsdp"])
    started = time.perf_counter()
    scores = run_eval(at_rates(split, tokenizer, few, config.rates), model, mesh)
    rows = [to_row("masked", text, f"loss@{named(config.rates[0])}", scores, started)]
    if config.rows:
        if text == HELD_OUT:
            some = likelihood.rows_of_split(split, tokenizer, config.rows)
        else:
            some = likelihood.rows_of_text(text, tokenizer, length, config.rows)
        started = time.perf_counter()
        perplexity = shown(likelihood.perplexity(some, tokenizer, config.batch, config.pll_word), "perplexity")
        scores = run_eval(perplexity, model, mesh)
        rows.append(to_row("likelihood", text, "pseudo_perplexity", scores, started))
    return rows


def _few(batch: int, devices: int) -> int:
    """Batch size for rows with many predictions: at most 32, rounded up to a multiple of the devices.

    >>> _few(256, 8), _few(16, 8), _few(240, 12), _few(256, 64)
    (32, 16, 36, 64)
    """
    return min(batch, -(-32 // devices) * devices)


def _of_layers(
    loaded: LoadedModel, data: probing.Treebank, length: int, config: Evaluation, mesh: jax.sharding.Mesh
) -> list[dict[str, Any]]:
    """The probes of every layer, beside those of an untrained encoder: a table, and a figure if one was asked for."""
    sizes = probing.Sizes(config.sentences or None, config.words, config.pool, length)
    encoder = loaded.encoder
    untrained = jit(lambda key: Encoder(loaded.config, encoder.vocab, key))(make_key(config.seed))
    encoders = {"layer": encoder, "untrained": untrained}
    started = time.perf_counter()
    found = probing.probes(encoders, data, loaded.tokenizer, sizes, mesh)
    if hosts.is_primary():
        Console(stderr=True).print(layers.table(found))
    if config.figure and hosts.is_primary():
        layers.draw(found, expanded(config.figure))
    each = (time.perf_counter() - started) / max(len(found), 1)
    return [to_row("probe", name, "majority", scores, time.perf_counter() - each) for name, scores in found.items()]


def _length(loaded: LoadedModel, asked: int) -> int:
    """The tokens in a row: what was asked, or what the model reads at most."""
    c = loaded.config
    return min(asked, c.max_positions) if c.positions == "learned" else asked


def _store_of(loaded: LoadedModel) -> str:
    """Directory of the run's token store, which may be in a bucket: no Path."""
    return loaded.about.get("config", {}).get("data", {}).get("store") or str(loaded.directory / "store")


def _has_store(loaded: LoadedModel) -> bool:
    store = _store_of(loaded)
    return cloud.holds(store, MANIFEST) if cloud.remote(store) else Path(store).is_dir()


def _held_out(loaded: LoadedModel) -> Batches:
    store = _held_out_store(loaded)
    data = loaded.about["config"]["data"]
    return Batches(open_rows(store, "valid", data["length"], data.get("format", "packed")), 1)


def _held_out_store(loaded: LoadedModel) -> Store:
    if "config" not in loaded.about:
        raise InputError(f"{loaded.directory} is not a run of jaxmlm, so it has no held-out split: name a file of text")
    store = Store(_store_of(loaded))
    if store.tokenizer.model != loaded.tokenizer.model:
        raise InputError(
            f"the token store {store.directory} has another vocabulary ({store.tokenizer.size:,} pieces) than the "
            f"model in {loaded.directory} ({loaded.tokenizer.size:,}): name a file of text instead"
        )
    if not is_of_text(loaded.about, text_of(store)):
        raise InputError(
            f"the token store {store.directory} has another text than the model in {loaded.directory} was trained on, "
            "so what it holds out may have been trained on: name a file of text instead"
        )
    return store
