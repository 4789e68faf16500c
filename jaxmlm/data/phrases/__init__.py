"""The phrases of PMI masking: counting n-grams, ranking them by PMI, finding them in text."""

from jaxmlm.data.phrases.config import Phrases

__all__ = ["Phrases"]
