"""The configuration of the data: which text, which tokenizer, which rows."""

import hashlib
from dataclasses import asdict, dataclass
from dataclasses import field as field_of
from typing import Any, Literal

from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.phrases.config import Phrases
from jaxmlm.data.sources import Layout
from jaxmlm.errors import InputError

Format = Literal["packed", "documents", "sentences"]


@dataclass(frozen=True)
class Data:
    """The text to learn from, and how it is cut into tokens and rows."""

    text: str = "sample:20000"
    """Text file or glob (plain, .gz, .bz2, .xz, .zst or .zip; also gs://...); tfds:NAME a data set of TensorFlow
    Datasets; sample:N is N generated documents. Several are separated by commas."""
    weights: tuple[float, ...] = ()
    """Mix the several texts: the share of each in tokens. The mix ends when one of them does."""
    layout: Layout = "blank-line"
    """What ends a document: a blank line, each line, the end of the file; jsonl: each line is a JSON object."""
    field: str = "text"
    """Where the text stands in the objects of JSON lines (meta.text: in an object within), or in the examples of a
    TensorFlow dataset."""
    store: str | None = None
    """Folder of the token store, also in a bucket (gs://...); by default WORKDIR/store. Made when it is not there."""
    tokenizer: str | None = None
    """A ready tokenizer: a folder or file of tokenizer.model or tokenizer.json. Without it one is trained."""
    vocab: int = 4096
    """Pieces of the SentencePiece vocabulary."""
    model_type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm."""
    lowercase: bool = True
    """Lower-case the text."""
    byte_fallback: bool = False
    """Spell characters that the vocabulary lacks in UTF-8 bytes (256 of the pieces), so that nothing is unknown."""
    tokenizer_words: int = 2_000_000
    """The tokenizer is trained on the first this many words."""
    valid: float = 0.01
    """Share of the documents held out, chosen by a hash of their text."""
    drop_duplicates: bool = False
    """Keep the first only of documents that are the same to the letter."""
    phrases: Phrases = field_of(default_factory=Phrases)
    """The phrases that PMI masking masks as one unit; without such a masking they are not looked for."""
    length: int = 128
    """Tokens in a row, the first of which is <cls>."""
    format: Format = "packed"
    """How rows are cut. packed: <cls>, then the stream as it comes, over the borders of documents; documents: no block
    crosses a border, short ones share a row and do not see each other; sentences: each document has a row, or several
    if it is long, and rows of like length make a batch."""

    def __post_init__(self) -> None:
        if not 0 < self.valid < 1:
            raise InputError(f"data.valid must lie between 0 and 1; got {self.valid:g}: try 0.01")
        if self.length < 8:
            raise InputError(f"data.length must be at least 8 tokens; got {self.length}: try 128")
        if not 16 <= self.vocab < 1 << 31:  # SentencePiece counts in 32 bits
            raise InputError(f"data.vocab must be from 16 to 2,147,483,647 pieces; got {self.vocab}: try 4096")
        if self.byte_fallback and self.vocab < 300:
            raise InputError(f"data.byte_fallback takes 256 pieces of data.vocab {self.vocab}: set that to 300 or more")
        if self.weights and len(self.weights) != len(self.texts):
            raise InputError(
                f"data.weights are {len(self.weights)} and data.text names {len(self.texts)} texts "
                f"({', '.join(self.texts)}): give one weight for each, or none to read one text after the other"
            )
        if wrong := [weight for weight in self.weights if not 0 < weight < float("inf")]:
            raise InputError(f"data.weights must be positive numbers; got {wrong[0]:g}: leave that text out instead")

    @property
    def texts(self) -> list[str]:
        """The texts that `text` names, one by one."""
        return [text.strip() for text in self.text.split(",")]

    def content(self) -> dict[str, Any]:
        """What decides the tokens of a store: not the length of a row, nor where the store is, nor its phrases."""
        aside = {"store", "length", "format", "phrases"}
        if self.layout != "jsonl" and not any(text.startswith("tfds:") for text in self.texts):
            aside.add("field")
        if self.tokenizer is not None:
            aside |= {"vocab", "model_type", "lowercase", "byte_fallback", "tokenizer_words"}
        plain = asdict(self) | {"weights": list(self.weights)}
        trained = self.tokenizer and hashlib.sha256(open_tokenizer(self.tokenizer).model).hexdigest()
        return {key: value for key, value in plain.items() if key not in aside} | {"tokenizer": trained}
