"""jaxmlm: a masked-language-model laboratory and trainer in JAX."""

__version__ = "0.1.0"
