"""The configuration of the data: which text, which tokenizer, which rows."""

import hashlib
from dataclasses import asdict, dataclass
from dataclasses import field as field_of
from typing import Any, Literal

from jaxmlm.checks import COUNT, NATURAL, POSITIVE, check_choices, check_numbers, integers
from jaxmlm.data.cleaning.config import Clean
from jaxmlm.data.files import named_texts
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.layouts import Layout
from jaxmlm.data.phrases.config import Phrases
from jaxmlm.data.sentencepiece_tokenizer import LEAST_PIECES, LEAST_WITH_BYTES
from jaxmlm.errors import InputError

Format = Literal["packed", "documents", "sentences"]


@dataclass(frozen=True)
class Data:
    """The text to train on, its tokenizer, and how it becomes rows."""

    text: str = "sample:20000"
    """File, glob, directory or URL (gs://, s3://, https://, hf://datasets/NAME) of text, JSON lines, CSV, TSV (also
    .gz, .bz2, .xz, .zst or .zip), Parquet, Arrow or a saved dataset; tfds:NAME for a data set of TensorFlow Datasets;
    sample:N for N generated documents; or a source of your own. Several are separated by commas."""
    weights: tuple[float, ...] = ()
    """Weights by which several texts are mixed, in tokens; the mix ends when one of the texts does."""
    layout: Layout = "blank-line"
    """What ends a document of a text: a blank line, a line, the file; jsonl: each line is a JSON object, as it is
    where the name of the file ends in .jsonl."""
    field: str = "text"
    """Field or column with the text: of JSON lines (meta.text: in a nested object), CSV, TSV, Parquet, Arrow, or the
    examples of a TensorFlow dataset."""
    store: str | None = None
    """Directory of the token store, also in a bucket (gs://...); default WORKDIR/store. Made where there is none."""
    tokenizer: str | None = None
    """Trained tokenizer: a directory or file of tokenizer.model or tokenizer.json, or hf:org/name; default: one is
    trained."""
    vocab: int = 4096
    """Vocabulary size of the tokenizer that is trained."""
    model_type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm of the tokenizer that is trained."""
    lowercase: bool = True
    """Whether the text is lower-cased."""
    byte_fallback: bool = False
    """Whether characters outside the vocabulary are spelled in UTF-8 bytes (256 of its tokens) instead of <unk>."""
    new_words: int = 0
    """Words to add to a trained tokenizer (`tokenizer` or `init`): those that it cuts and that save the most tokens."""
    tokenizer_words: int = 2_000_000
    """Number of words, from the beginning of the text, that the tokenizer is trained on, or new words are found in."""
    valid: float = 0.01
    """Share of the documents that is held out; a hash of its text decides for each."""
    drop_duplicates: bool = False
    """Whether exact duplicates of a document are dropped."""
    clean: Clean = field_of(default_factory=Clean)
    """What else is left out: near duplicates, and documents that hold what models are evaluated on."""
    phrases: Phrases = field_of(default_factory=Phrases)
    """Phrases that PMI masking masks as one unit; only looked for when the masking needs them."""
    length: int = 128
    """Row length in tokens, <cls> included."""
    format: Format = "packed"
    """How documents become rows. packed: <cls> and then the stream of documents, cut anywhere; documents: a block has
    one document, short ones share a row and do not attend to each other; sentences: a row for each document (several
    for a long one), batched with rows of similar length."""

    def __post_init__(self) -> None:
        check_choices(self, "data.")
        if not 0 < self.valid < 1:
            raise InputError(f"data.valid must lie between 0 and 1; got {self.valid:g}: try 0.01")
        check_numbers(self, "data.", length=integers(8), tokenizer_words=COUNT, new_words=NATURAL)
        check_numbers(self, "data.", weights=POSITIVE)
        if not LEAST_PIECES <= self.vocab < 1 << 31:  # SentencePiece counts in 32 bits
            raise InputError(
                f"data.vocab must be from {LEAST_PIECES} to 2,147,483,647 tokens; got {self.vocab}: try 4096"
            )
        if self.byte_fallback and self.vocab < LEAST_WITH_BYTES:
            raise InputError(
                f"data.byte_fallback takes 256 tokens of data.vocab {self.vocab}: set that to {LEAST_WITH_BYTES} or "
                "more"
            )
        if self.weights and len(self.weights) != len(self.texts):
            raise InputError(
                f"data.weights are {len(self.weights)} and data.text names {len(self.texts)} texts "
                f"({', '.join(self.texts)}): give one weight for each, or none to read one text after the other"
            )

    def check_new_words(self, init: str | None = None) -> None:
        """Refuse new words without a trained tokenizer to add them to; `init` has one too."""
        if self.new_words and not (self.tokenizer or init):
            raise InputError(
                f"data.new_words is {self.new_words:,}, and the tokenizer is trained on this text: give a trained one "
                "(init or data.tokenizer), or set data.vocab higher"
            )

    @property
    def texts(self) -> list[str]:
        """The texts that `text` names, one by one."""
        return named_texts(self.text)

    def content(self) -> dict[str, Any]:
        """What decides the tokens of a store: not the length of a row, nor where the store is, nor its phrases."""
        aside = {"store", "length", "format", "phrases", "clean"}
        if self.field == "text":  # also of plain text, which has none
            aside.add("field")
        if self.tokenizer is not None:
            aside |= {"vocab", "model_type", "lowercase", "byte_fallback"}
        if not self.new_words:
            aside |= {"new_words", *(("tokenizer_words",) if self.tokenizer else ())}
        plain = asdict(self) | {"weights": list(self.weights)}
        trained = self.tokenizer and hashlib.sha256(open_tokenizer(self.tokenizer).model).hexdigest()
        clean = {"clean": self.clean.content()} if self.clean.asked else {}
        return {key: value for key, value in plain.items() if key not in aside} | {"tokenizer": trained} | clean
