"""The model card of an exported model: what was learned from which text, how it was masked, what it scored."""

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.hub import PREFIX, is_hub_name
from jaxmlm.runs.results import read_results
from jaxmlm.tasks.downstream import display_name

_PIPELINES = {
    "mlm": "fill-mask",
    "classify": "text-classification",
    "answer": "question-answering",
    "tokens": "token-classification",
}


class Published(NamedTuple):
    """Where a model is published, and under which license; None: not known."""

    repository: str | None = None
    license: str | None = None


UNPUBLISHED = Published()


def card(about: dict[str, Any], checkpoint: Path, architecture: str, published: Published = UNPUBLISHED) -> str:
    """The README.md of an exported directory. Of a path it has the last part alone: the rest is its owner's.

    Args:
        about: what the run.json of the checkpoint says.
        checkpoint: its directory.
        architecture: the architecture that `transformers` gives it.
        published: what the card says of its publication.

    """
    task = _called(about) if "task" in about else ""
    config = about.get("config", {})
    base = about.get("base") if task else config.get("init")
    if task:
        body = _fine_tuned(about, checkpoint, task)
    elif "data" in config:
        body = _pre_trained(about, checkpoint)
    else:
        body = f"{name_of(str(checkpoint.absolute()))}, written by jaxmlm.\n"
    head = _head(about, task, base, published)
    license_ = published.license or "not stated; who publishes the model chooses it (`jaxmlm export --license`)"
    return f"{head}# {architecture}\n\n{body}\n{_use(about, published)}\nLicense: {license_}.\n"


def _head(about: dict[str, Any], task: str, base: str | None, published: Published) -> str:
    """The metadata that the Hub reads."""
    tag = f"generated-{about['task']}" if about.get("generated") else name_of(about.get("task", "masked-lm"))
    pipeline = _pipeline(about)
    lines = ["library_name: transformers", f"pipeline_tag: {pipeline}", f"tags: [jaxmlm, {json.dumps(tag)}]"]
    if published.license:
        lines.append(f"license: {json.dumps(published.license)}")
    if base and is_of_the_hub(base):
        lines.append(f"base_model: {name_of(base).partition('@')[0]}")
    return "---\n" + "\n".join(lines) + "\n---\n\n"


def _fine_tuned(about: dict[str, Any], checkpoint: Path, task: str) -> str:
    base = f"{name_of(about['base'])}, fine-tuned" if about.get("base") else "Fine-tuned"
    lines = [f"{base} on {task} with jaxmlm; on its dev set: {_scores(about['scores'])}.", ""]
    if not about.get("settings"):
        return "\n".join(lines)
    rows = [
        row for row in read_results(checkpoint.parent / "results.jsonl") if row.get("settings") == about["settings"]
    ]
    values = [row["scores"][row["main"]] for row in rows if row.get("scores")]
    if len(values) > 1:
        spread = f"mean {statistics.fmean(values):.4g} +- {statistics.stdev(values):.2g} (standard deviation)"
        lines.append(f"- {rows[0]['main']} over {len(values)} seeds, of which this is the best: {spread}")
    settings = json.loads(about["settings"])
    named = ("learning_rate", "batch", "epochs", "length", "warmup", "weight_decay")
    said = [f"{name.replace('_', ' ')} {settings[name]:g}" for name in named if name in settings]
    return "\n".join([*lines, f"- {', '.join(said)}"]) + "\n"


def _pre_trained(about: dict[str, Any], checkpoint: Path) -> str:
    config = about["config"]
    first = "A masked language model, pre-trained with jaxmlm."
    if base := config.get("init"):
        first = f"A masked language model: {name_of(base)}, pre-trained further with jaxmlm."
    texts = [name_of(part.strip()) for part in config["data"]["text"].split(",")]
    lines = [
        f"- text: {', '.join(texts)}, rows of {config['data']['length']} tokens",
        f"- steps: {config['loop']['steps']} of {config['loop']['batch']} rows, seed {config['loop']['seed']}",
        f"- masking: {_said(config['masking'])}",
    ]
    for row in read_results(checkpoint / "results.jsonl"):
        lines.append(f"- {row['stage']} {_called(row)}: {_scores(row['scores'])}")
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()))
    return f"{first}\n\n" + "\n".join(lines) + "\n"


def _pipeline(about: dict[str, Any]) -> str:
    """The task of `transformers.pipeline` for a model with this head; a record that names no head is a masked LM's."""
    return _PIPELINES.get(about.get("kind", "mlm"), "feature-extraction")


def _use(about: dict[str, Any], published: Published) -> str:
    """How the model is used, under the name by which it is published."""
    name = json.dumps(published.repository or "DIRECTORY")
    pipeline = _pipeline(about)
    lines = ["from transformers import pipeline", "", f"model = pipeline({json.dumps(pipeline)}, model={name})"]
    return "\n".join(["```python", *lines, "```", ""])


def is_of_the_hub(path: str) -> bool:
    """Whether an encoder was read from the Hub: by its name, or out of the cache.

    >>> is_of_the_hub("hf:org/name"), is_of_the_hub("hub/models--a--b/snapshots/1"), is_of_the_hub("runs/a")
    (True, True, False)
    """
    return is_hub_name(path) or any(part.startswith("models--") for part in Path(path).parts)


def name_of(path: str) -> str:
    """What a text, a task or an encoder is called, without the directories that it lies in.

    >>> name_of("my/texts/*.txt"), name_of("sample:400"), name_of("runs/base/checkpoints/8")
    ('*.txt', 'sample:400', 'base, step 8')
    >>> name_of("hub/models--google-bert--bert-base-uncased/snapshots/86b5e0934494bd15")
    'google-bert/bert-base-uncased'
    >>> name_of("hf:org/name@v1")
    'org/name@v1'
    """
    if is_hub_name(path):
        return path.removeprefix(PREFIX)
    parts = Path(path).parts
    if cached := [part for part in parts if part.startswith("models--")]:
        return "/".join(cached[-1].split("--")[1:])
    if len(parts) > 2 and parts[-2] == "checkpoints" and parts[-1].isdecimal():
        return f"{parts[-3]}, step {parts[-1]}"
    return parts[-1] if parts else ""


def _called(about: dict[str, Any]) -> str:
    return display_name(about | {"task": name_of(about["task"])})


def _scores(scores: dict[str, float | None]) -> str:
    """Scores with their standard errors, where they have them.

    >>> _scores({"bound": 3.21, "bound_se": 0.0123, "accuracy": None})
    'bound 3.21 +- 0.012, accuracy none'
    """
    said = []
    for name, value in scores.items():
        error = scores.get(f"{name}_se")
        if not name.endswith("_se"):
            around = "" if error is None else f" +- {error:.2g}"
            said.append(f"{name} {'none' if value is None else format(value, '.4g')}{around}")
    return ", ".join(said)


def _said(value: Any) -> str:
    """A part of a configuration in words: what is not set is left out, a part within it is told by its class.

    >>> _said({"class": "Masking", "rate": 0.4, "units": {"class": "SpanUnits", "p": 0.2}, "schedule": None})
    'rate 0.4, units SpanUnits (p 0.2)'
    """
    if isinstance(value, dict):
        found = [(name, _part(part)) for name, part in value.items() if name != "class" and part is not None]
        return ", ".join(f"{name} {part}" for name, part in found)
    return _part(value)


def _part(value: Any) -> str:
    if isinstance(value, dict):
        inside = _said(value)
        return value.get("class", "") + (f" ({inside})" if inside else "")
    if isinstance(value, list):
        return " ".join(map(_part, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return name_of(value) if isinstance(value, str) else str(value)
