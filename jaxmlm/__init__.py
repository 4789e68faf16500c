"""jaxmlm: a masked-language-model laboratory and trainer in JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxmlm.errors import InputError

if TYPE_CHECKING:
    from jaxmlm.api import PretrainedModel, from_transformers, load
    from jaxmlm.data import Batches, Data, Store, Tokenizer, open_rows, register_source
    from jaxmlm.data.opening import open_store, prepare
    from jaxmlm.masking import (
        Masking,
        PhraseUnits,
        Replace,
        SpanUnits,
        Tokens,
        TokenUnits,
        Units,
        Vocab,
        WordUnits,
        mask_batch,
    )
    from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
    from jaxmlm.parallel import Mesh
    from jaxmlm.rng import step_key
    from jaxmlm.runs.conversion import export
    from jaxmlm.runs.evaluation import Bound, Evaluation, evaluate
    from jaxmlm.runs.finetuning import Finetune, finetune
    from jaxmlm.runs.layer_probes import Probes
    from jaxmlm.runs.pretraining import pretrain
    from jaxmlm.runs.preview import preview, preview_html
    from jaxmlm.runs.run import Run
    from jaxmlm.runs.zero_shot import ZeroShot
    from jaxmlm.studies import Study, Vary, run_study
    from jaxmlm.tasks.registry import register_task
    from jaxmlm.tools.collators import audit_collator
    from jaxmlm.training import Loop, Optim

__version__ = "0.1.0"
__all__ = [
    "Batches",
    "Bound",
    "Data",
    "Encoder",
    "EncoderConfig",
    "Evaluation",
    "Finetune",
    "InputError",
    "Loop",
    "MaskedLM",
    "Masking",
    "Mesh",
    "Optim",
    "PhraseUnits",
    "PretrainedModel",
    "Probes",
    "Replace",
    "Run",
    "SpanUnits",
    "Store",
    "Study",
    "TokenUnits",
    "Tokenizer",
    "Tokens",
    "Units",
    "Vary",
    "Vocab",
    "WordUnits",
    "ZeroShot",
    "__version__",
    "audit_collator",
    "evaluate",
    "export",
    "finetune",
    "from_transformers",
    "load",
    "mask_batch",
    "open_rows",
    "open_store",
    "prepare",
    "pretrain",
    "preview",
    "preview_html",
    "register_source",
    "register_task",
    "run_study",
    "step_key",
]
_HOMES = {
    "api": ("PretrainedModel", "from_transformers", "load"),
    "data": ("Batches", "Data", "Store", "Tokenizer", "open_rows", "register_source"),
    "data.opening": ("open_store", "prepare"),
    "masking": (
        *("Masking", "PhraseUnits", "Replace", "SpanUnits", "Tokens", "TokenUnits", "Units", "Vocab", "WordUnits"),
        "mask_batch",
    ),
    "models": ("Encoder", "EncoderConfig", "MaskedLM"),
    "parallel": ("Mesh",),
    "rng": ("step_key",),
    "runs.conversion": ("export",),
    "runs.evaluation": ("Bound", "Evaluation", "evaluate"),
    "runs.finetuning": ("Finetune", "finetune"),
    "runs.layer_probes": ("Probes",),
    "runs.preview": ("preview", "preview_html"),
    "runs.pretraining": ("pretrain",),
    "runs.run": ("Run",),
    "runs.zero_shot": ("ZeroShot",),
    "tasks.registry": ("register_task",),
    "tools.collators": ("audit_collator",),
    "studies": ("Study", "Vary", "run_study"),
    "training": ("Loop", "Optim"),
}
"""Where each name is: imported when it is first used, so that `import jaxmlm` and `jaxmlm --help` stay fast."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxmlm' has no attribute {name!r}")
    value = getattr(import_module(f"jaxmlm.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for editors and notebooks: not what this file imports for itself."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
