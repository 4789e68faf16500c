"""What the help of the command line says: the verbs, and the options of each that are used most."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class HelpPrinted(SystemExit):
    """`--help` was printed, and nothing is left to do; any other SystemExit is that of a user's code."""


class Verb(NamedTuple):
    """What a verb takes, what it does, and the function behind it, which takes a `cli.Call`."""

    takes: str
    does: str
    run: Callable[[Any], dict]


OPTIONS_OF_A_RUN = {
    "--workdir DIRECTORY": "everything that the run writes",
    "--data.text FILES": "text to learn from: files, globs, sample:N",
    "--data.layout line": "each line is a document, not each paragraph",
    "--data.vocab 8000": "pieces of the tokenizer that is trained on the text",
    "--masking.rate 0.4": "share of the tokens that is selected",
    "--masking.predict 0.2": "share that is predicted, where it is another",
    "--model.layers 12": "layers of the encoder",
    "--loop.steps 1000": "training steps",
    "--loop.batch 256": "examples of a step, on all devices together",
    "--loop.save-every 500": "steps between checkpoints",
}
OPTIONS_OF_PREPARE = {
    "--workdir DIRECTORY": "the run of which this is the store",
    "--data.text FILES": "text to learn from: files, globs, sample:N",
    "--data.layout line": "each line is a document, not each paragraph",
    "--data.field text": "column of a table, or key of JSON lines",
    "--data.vocab 8000": "pieces of the tokenizer that is trained on the text",
    "--data.tokenizer DIRECTORY": "a trained tokenizer in its place",
    "--data.valid 0.01": "share of the documents that is held out",
    "--data.length 128": "tokens of a row",
    "--shard I/N": "do the I-th of N shares of the work on this machine",
    "--inspect STORE": "show what is in a store; nothing is prepared",
}
OPTIONS_OF_A_STUDY = {
    "--workdir DIRECTORY": "everything that the study writes",
    "--dry-run": "list the cells with tokens and time, and stop",
    "--run.data.text FILES": "text to learn from: files, globs, sample:N",
    "--vary.0.values 0.15 0.4": "the values that are compared",
    "--seeds 0 1 2": "pre-training seeds: three or more give error bars",
    "--run.model.layers 12": "layers of the encoder",
    "--run.loop.steps 1000": "training steps of each cell",
    "--run.loop.batch 256": "examples of a step, on all devices together",
    "--no-finetune": "leave the fine-tuning to a later start",
    "--cells I/N": "only the I-th of N shares of the cells",
}
OPTIONS_OF_FINETUNE = {
    "--task rte": "a task of GLUE, squad, ner, a .csv, FILE.py:NAME",
    "--data DIRECTORY": "the official files of the task",
    "--recipe paper": "start from the grid of a published recipe",
    "--learning-rate 1e-5 5e-5": "peak learning rate; several are a grid",
    "--epochs 3": "passes over the examples; several are a grid",
    "--batch 16 32": "batch size; several are a grid",
    "--length 128": "maximum tokens of an input",
    "--seeds 0 1 2": "tuning seeds: three or more give error bars",
    "--limit 1000": "train on this many examples only",
    "--workdir DIRECTORY": "results, predictions and the best model",
}
OPTIONS_OF_EVALUATE = {
    "--blimp DIRECTORY": "minimal pairs: the data directory of BLiMP",
    "--pairs 200": "minimal pairs of each set",
    "--all": "all pairs of each set",
    "--babylm DIRECTORY": "BabyLM's zero-shot tasks, in its evaluation_data",
    "--text FILES": "held-out loss and pseudo-perplexity on these",
    "--rates 0.15 0.4": "masking rates of the held-out loss",
    "--rows 100": "rows of the text for pseudo-perplexity",
    "--treebank DIRECTORY": "probe the layers with a treebank",
    "--pool mean": "how the pieces of a word become one vector",
    "--batch 100": "masked copies in one pass of the model",
}
MOST_USED = {
    "study": OPTIONS_OF_A_STUDY,
    "prepare": OPTIONS_OF_PREPARE,
    "pretrain": OPTIONS_OF_A_RUN,
    "finetune": OPTIONS_OF_FINETUNE,
    "evaluate": OPTIONS_OF_EVALUATE,
}
"""The options that are used most; every other value of a configuration is an option too."""


EVERYWHERE = {
    "help VERB, VERB --help": "what a verb takes",
    "--version": "the version",
    "--json": "the result as one JSON object on the last line",
    "--require tpu": "refuse to fall back to the CPU (or gpu)",
    "--coordinator HOST:PORT --processes N --process I": "one of many hosts; Cloud TPU, GKE and Slurm say so",
    "--": "the words after it are not options",
    "JAXMLM_DEBUG=1": "show the traceback of an error",
}
"""What every verb takes."""
COLUMN = 26


def usage(verbs: Mapping[str, Verb]) -> str:
    """What `jaxmlm --help` prints."""
    listed = _listed({f"{name} {verb.takes}": verb.does for name, verb in verbs.items()})
    return f"""\
usage: jaxmlm VERB ...

A masked-language-model laboratory: which masking rate is best for your text?

{listed}

{_listed(EVERYWHERE)}

Exit codes: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again)."""


def _listed(entries: Mapping[str, str]) -> str:
    """Two columns; what is too long for the first has a line of its own."""
    lines = []
    for left, right in entries.items():
        if len(left) > COLUMN:
            lines.append(f"  {left}")
            left = ""
        lines.append(f"  {left:{COLUMN}} {right}")
    return "\n".join(lines)


def usage_of(name: str, verb: Verb, has_options: bool) -> str:
    """What `jaxmlm VERB --help` prints before the options of the verb's own."""
    target = verb.takes.split()[0]
    returns = "a Study (configs/quickstart.py)" if name == "study" else "a Run (configs/quickstart_run.py)"
    about = {
        "[--workdir": "It looks at versions, devices, other hosts, the disk and, with\n--bucket gs://NAME, a bucket.",
        "CONFIG": f"CONFIG is a Python file whose config() returns\n{returns}.\n"
        "It is executed: read one that is not yours before you run it. Every value in it\n"
        f"is an option (objects, as masking.units, are set in the file): `jaxmlm {name}\n"
        "CONFIG --help` lists them with what they are now.",
        "CHECKPOINT": "CHECKPOINT is the directory of a run (its newest step), of one step\n"
        "(WORKDIR/checkpoints/STEP), or of the transformers format.",
        "WORKDIR": f"WORKDIR is the directory of {'a fine-tuning' if name == 'compare' else 'a study'}.",
        "DIR": "DIR is a directory of the transformers format: config.json, weights and\ntokenizer.json.",
    }[target]
    most_used = ""
    if listed := MOST_USED.get(name):
        most_used = f"\n\nUsed most:\n{_listed(listed)}"
    usage_line = f"usage: jaxmlm {name} {verb.takes}"
    options = "[--OPTION VALUE ...] [--json]" if has_options else "[--json]"
    gap = " " if len(usage_line) + len(options) < 80 else "\n              "
    return f"{usage_line}{gap}{options}\n\n{verb.does}\n\n{about}{most_used}"
