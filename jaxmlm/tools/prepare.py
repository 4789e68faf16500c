"""`jaxmlm prepare`: text to tokenizer to token shards, and to phrases when the masking wants them."""

import sys
from pathlib import Path
from typing import Any

from jaxmlm.tasks.mlm import open_store
from jaxmlm.tasks.phrases import describe_phrases, phrases_of
from jaxmlm.tasks.run import Run


def prepare(run: Run) -> dict[str, Any]:
    """Make the token store of a run's configuration, or check the one that is there; says what is in it.

    A masking of phrases also gets its phrase list and unit bits.
    """
    phrases = phrases_of(run.masking)
    store = open_store(run.text, Path(run.workdir), phrases=phrases)
    splits = {name: {key: store.manifest[name][key] for key in ("documents", "tokens")} for name in ("train", "valid")}
    for split in splits.values():
        split["rows"] = split["tokens"] // (run.data.length - 1)
    for name, split in splits.items():
        print(f"{name}: " + ", ".join(f"{value:,} {what}" for what, value in split.items()), file=sys.stderr)
    for text, tokens in store.manifest.get("mix", {}).items():
        print(f"mixed in: {tokens:,} tokens of {text}", file=sys.stderr)
    shown = {"store": str(store.folder), "vocab": store.tokenizer.size, **splits}
    if "mix" in store.manifest:
        shown["mix"] = store.manifest["mix"]
    if phrases:
        entry = store.manifest["phrases"]
        print(describe_phrases(entry), file=sys.stderr)
        shown["phrases"] = {key: entry[key] for key in ("number", "coverage", "short")}
    return shown
