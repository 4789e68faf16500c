"""From text to batches of token ids: documents, a tokenizer, a store on disk, `batch_at(step)`."""

from jaxmlm.data.batches import Batches
from jaxmlm.data.building import build
from jaxmlm.data.config import Data
from jaxmlm.data.merging import merge
from jaxmlm.data.registry import open_source, register_source
from jaxmlm.data.rows import RowFormat, open_rows
from jaxmlm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxmlm.data.sources import documents
from jaxmlm.data.store import Store, TokenSplits
from jaxmlm.data.tokenizer import Tokenizer, Vocabulary

__all__ = [
    "Batches",
    "Data",
    "RowFormat",
    "SentencePieceTokenizer",
    "Store",
    "TokenSplits",
    "Tokenizer",
    "Vocabulary",
    "build",
    "documents",
    "merge",
    "open_rows",
    "open_source",
    "register_source",
]
