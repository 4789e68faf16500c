"""jaxmlm: a masked-language-model laboratory and trainer in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmlm.api import export, from_transformers, load

__version__ = "0.1.0"
__all__ = ["__version__", "export", "from_transformers", "load"]


def __getattr__(name: str) -> Any:
    """Import the interface when it is first used: `import jaxmlm` alone stays cheap."""
    if name in ("export", "from_transformers", "load"):
        from jaxmlm import api

        return getattr(api, name)
    raise AttributeError(f"module 'jaxmlm' has no attribute {name!r}")
