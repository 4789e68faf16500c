"""From text to batches of token ids: documents, a tokenizer, a store on disk, `batch_at(step)`."""

from jaxmlm.data.batches import Batches
from jaxmlm.data.building import build
from jaxmlm.data.config import Data
from jaxmlm.data.merging import merge
from jaxmlm.data.registry import open_source, register_source
from jaxmlm.data.sources import documents
from jaxmlm.data.store import Store
from jaxmlm.data.tokenizer import Tokenizer

__all__ = ["Batches", "Data", "Store", "Tokenizer", "build", "documents", "merge", "open_source", "register_source"]
