"""`jaxmlm prepare`: text to tokenizer to token shards."""

import sys
from pathlib import Path
from typing import Any

from jaxmlm.tasks.mlm import open_store
from jaxmlm.tasks.run import Run


def prepare(run: Run) -> dict[str, Any]:
    """Make the token store of a run's configuration, or check the one that is there; says what is in it."""
    store = open_store(run.data, Path(run.workdir))
    splits = {name: {key: store.manifest[name][key] for key in ("documents", "tokens")} for name in ("train", "valid")}
    for split in splits.values():
        split["rows"] = split["tokens"] // (run.data.length - 1)
    for name, split in splits.items():
        print(f"{name}: " + ", ".join(f"{value:,} {what}" for what, value in split.items()), file=sys.stderr)
    return {"store": str(store.folder), "vocab": store.tokenizer.size, **splits}
