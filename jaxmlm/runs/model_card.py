"""The model card of an exported model: what was learned from which text, how it was masked, what it scored."""

import json
from pathlib import Path
from typing import Any

from jaxmlm.json_files import read_jsonl
from jaxmlm.tasks.downstream import display_name

_PIPELINES = {
    "classify": "text-classification",
    "answer": "question-answering",
    "tokens": "token-classification",
}


def card(about: dict[str, Any], checkpoint: Path, architecture: str) -> str:
    """The README.md of an exported directory. Of a path it has the last part alone: the rest is its owner's.

    Args:
        about: what the run.json of the checkpoint says.
        checkpoint: its directory.
        architecture: the architecture that `transformers` gives it.

    """
    task = _called(about) if "task" in about else ""
    tag = f"generated-{about['task']}" if about.get("generated") else name_of(about.get("task", "masked-lm"))
    pipeline = _PIPELINES.get(about.get("kind", "mlm"), "feature-extraction") if task else "fill-mask"
    head = f"---\nlibrary_name: transformers\npipeline_tag: {pipeline}\ntags: [jaxmlm, {json.dumps(tag)}]\n---\n\n"
    head += f"# {architecture}\n\n"
    if task:
        base = f"{name_of(about['base'])}, fine-tuned" if about.get("base") else "Fine-tuned"
        return f"{head}{base} on {task} with jaxmlm; on its dev set: {_scores(about['scores'])}.\n"
    if "data" not in about.get("config", {}):
        return f"{head}{name_of(str(checkpoint.absolute()))}, written by jaxmlm.\n"
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
    results = checkpoint / "results.jsonl"
    for row in read_jsonl(results):
        lines.append(f"- {row['stage']} {_called(row)}: {_scores(row['scores'])}")
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()))
    return f"{head}{first}\n\n" + "\n".join(lines) + "\n"


def name_of(path: str) -> str:
    """What a text, a task or an encoder is called, without the folders that it lies in.

    >>> name_of("my/texts/*.txt"), name_of("sample:400"), name_of("runs/base/checkpoints/8")
    ('*.txt', 'sample:400', 'base, step 8')
    >>> name_of("hub/models--google-bert--bert-base-uncased/snapshots/86b5e0934494bd15")
    'google-bert/bert-base-uncased'
    """
    parts = Path(path).parts
    if cached := [part for part in parts if part.startswith("models--")]:
        return "/".join(cached[-1].split("--")[1:])
    if len(parts) > 2 and parts[-2] == "checkpoints" and parts[-1].isdecimal():
        return f"{parts[-3]}, step {parts[-1]}"
    return parts[-1] if parts else ""


def _called(about: dict[str, Any]) -> str:
    return display_name(about | {"task": name_of(about["task"])})


def _scores(scores: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'none' if value is None else format(value, '.4g')}" for name, value in scores.items())


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
