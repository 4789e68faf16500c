"""Models and tokenizers of the Hugging Face Hub by their names: hf:org/name, or hf:org/name@revision.

`huggingface_hub` downloads them, once, into its cache, and finds them there without a network. Safetensors, JSON and
vocabularies only: pickled weights, which can hold code, are never fetched, nor is a repository's own code.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError, brief
from jaxmlm.wording import install_command

PREFIX = "hf:"
TOKENIZER = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model"),
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"),
)
"""The files of a tokenizer."""
MODEL = (*TOKENIZER, "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
"""The files of a model with its tokenizer."""
_PICKLED = re.compile(r"\.(bin|pt|pth|ckpt|h5|msgpack|pkl)$")
_NAME = re.compile(r"hf:(?P<repository>[\w.-]+(/[\w.-]+)?)(@(?P<revision>\S+))?")


class HubName(NamedTuple):
    """A repository, and its branch, tag or commit."""

    repository: str
    revision: str


def is_hub_name(path: str | Path) -> bool:
    """Whether this names something of the Hub.

    >>> is_hub_name("hf:org/name"), is_hub_name("runs/mine")
    (True, False)
    """
    return str(path).startswith(PREFIX)


def parse(name: str) -> HubName:
    """Read a name; without a revision it is that of the branch main.

    Raises:
        InputError: it is not one.

    >>> parse("hf:org/name@v1.0"), parse("hf:name")
    (HubName(repository='org/name', revision='v1.0'), HubName(repository='name', revision='main'))
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise InputError(f"{name!r} is not a name of the Hub: write hf:org/name, or hf:org/name@revision")
    return HubName(found["repository"], found["revision"] or "main")


def local(path: str | Path, files: tuple[str, ...] = MODEL) -> Path:
    """Return the directory of what a name of the Hub stands for, downloaded if it is not there; of a path the path.

    Args:
        path: hf:org/name, hf:org/name@revision, or a path.
        files: patterns of the files that are wanted.

    Raises:
        InputError: the Hub has no such repository or revision or refuses it, nothing is there without a network, or
            there are no weights in safetensors.

    """
    return _downloaded(str(path), files) if is_hub_name(path) else expanded(path)


@cache
def _downloaded(name: str, files: tuple[str, ...]) -> Path:
    """Download once in a process, so that a branch that moves meanwhile is one commit all along."""
    repository, revision = parse(name)
    hub = library()
    directory = Path(
        asked(name, lambda: hub.snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    )
    if files is MODEL and not any(directory.glob("model*.safetensors")):
        _refuse_weights(name, hub, repository, directory)
    return directory


def _refuse_weights(name: str, hub: Any, repository: str, directory: Path) -> None:
    there = asked(name, lambda: hub.HfApi().list_repo_files(repository, revision=directory.name))
    pickled = [file for file in there if _PICKLED.search(file)]
    if pickled:
        raise InputError(
            f"{name} has pickled weights only ({pickled[0]}), which can run code where they are read: take a revision "
            f"with model.safetensors (hf:{repository}@refs/pr/N, where there is one), or convert them where you trust "
            "them and give the directory"
        )
    raise InputError(f"{name} has no model.safetensors: name a model of the transformers format")


def library() -> Any:
    """The library of the Hub.

    Raises:
        InputError: it is not installed.

    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"names of the Hub need huggingface_hub: {install_command('hf')}") from error
    return huggingface_hub


AGAIN = "run the command again; files that are complete are kept"


def asked(name: str, ask: Callable[[], Any], again: str = AGAIN) -> Any:
    """Ask the Hub.

    Args:
        name: what is asked for, as hf:org/name.
        ask: the call of `huggingface_hub`.
        again: what to do when the connection breaks.

    Raises:
        InputError: the Hub does not give it; what to do.

    """
    from huggingface_hub import errors

    repository, revision = parse(name)
    try:
        return ask()
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name} is gated: accept its terms on its page on the Hub, and log in (hf auth login)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"the Hub has no repository {repository!r} that you may read: check the name; if it is private, log in "
            "(hf auth login, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{repository} has no revision {revision!r}: give a branch, tag or commit of it, or leave out @{revision}"
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"{name!r} is not a name of the Hub: {brief(error)}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{name} is not in the cache and the Hub cannot be reached ({brief(error.__cause__ or error)}): run where "
            f"there is a network: hf download {repository} --revision {revision} --local-dir DIR; copy DIR here and "
            "give it in place of the name"
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise InputError(
                f"{name}: the Hub refuses the login ({error.response.status_code}): log in anew (hf auth login), or "
                "correct or unset HF_TOKEN"
            ) from error
        raise InputError(f"{name}: the Hub answers: {brief(error)}: try again later") from error
    except Exception as error:  # a connection that breaks is an exception of whichever library carries it
        raise InputError(f"{name}: the connection to the Hub broke ({brief(error)}): {again}") from error
