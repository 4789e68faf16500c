"""An exported directory for others: what sentence-transformers reads beside it, and its way to the Hub."""

import functools
import json
from pathlib import Path

from jaxmlm import __version__, hub
from jaxmlm.errors import InputError

_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def write_sentence_transformer(directory: Path, width: int, longest: int) -> None:
    """Write the files by which `SentenceTransformer(directory)` gives the vectors of `embed`: means over the tokens.

    Args:
        directory: an exported directory.
        width: numbers of a vector.
        longest: tokens of the longest input.

    """
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (directory / "1_Pooling").mkdir()
    for name, content in (
        ("modules.json", _MODULES),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False}),
    ):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def check_push(name: str) -> str:
    """The repository that a directory can be pushed to: there is a login, and the name is one.

    Args:
        name: org/name, or hf:org/name.

    Raises:
        InputError: the name is not one, or the Hub knows no login of this user.

    """
    found = hub.parse(hub.PREFIX + name.removeprefix(hub.PREFIX))
    if "@" in name or "/" not in found.repository:
        raise InputError(f"push is {name!r}: give the owner and the name of a repository, as org/name")
    library = hub.library()
    if library.get_token() is None:
        raise InputError("push needs a login with the Hub: hf auth login, or HF_TOKEN with a token that may write")
    hub.asked(hub.PREFIX + found.repository, library.HfApi().whoami, again="run the command again")
    return found.repository


def push(directory: Path, repository: str, private: bool, again: str) -> str:
    """Upload an exported directory as one commit, into a repository that is made if it is not there.

    Args:
        directory: what is uploaded.
        repository: org/name.
        private: whether a new repository is private.
        again: what to do when the connection breaks.

    Returns:
        The address of the repository.

    """
    api = hub.library().HfApi()
    name = hub.PREFIX + repository
    address = hub.asked(name, lambda: api.create_repo(repository, private=private, exist_ok=True), again)
    message = f"Exported by jaxmlm {__version__}"
    upload = functools.partial(api.upload_folder, repo_id=repository, folder_path=directory, commit_message=message)
    hub.asked(name, upload, again)
    return str(address)
