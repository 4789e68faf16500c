"""The command line: a table of verbs, each a thin wrapper over the function that does the work."""

import dataclasses
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxmlm import __version__
from jaxmlm.errors import InputError, Preempted
from jaxmlm.preemption import stoppable

DONE, FAILED, WRONG_INPUT, INTERRUPTED, PREEMPTED = 0, 1, 2, 130, 75
HOSTS = ["--coordinator", "--processes", "--process", "--require", "--wait"]
"""Options of the verbs that run on many hosts (parallel/hosts.py)."""


class Verb(NamedTuple):
    """What a verb takes, what it does, and the function behind it (imported when it is called)."""

    takes: str
    does: str
    run: Callable[["Call"], dict]


class Call(NamedTuple):
    """One call of a verb: its first argument, the flags after it, and the words after `--`, which are no flags."""

    verb: str
    target: str
    flags: list[str]
    dry_run: bool
    plain: tuple[str, ...] = ()

    @property
    def prog(self) -> str:
        """The command as the user typed it, without flags."""
        return f"jaxmlm {self.verb}"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again).

    >>> main(["--version"])
    jaxmlm 0.1.0
    0
    """
    code = _main(list(sys.argv[1:] if argv is None else argv), alone=argv is None)
    if code and "jaxmlm.parallel.hosts" in sys.modules:
        _function("jaxmlm.parallel.hosts:exit_process")(code)
    return code


def _main(words: list[str], alone: bool) -> int:
    """`alone`: the process ends with this command. Words after `--` are no flags, whatever they begin with."""
    cut = words.index("--") if "--" in words else len(words)
    words, plain = words[:cut], words[cut + 1 :]
    # Programs compiled once are found again by the next process: a study compiles the same few many times.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/jaxmlm/xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    as_json = "--json" in words
    try:
        result = _dispatch([word for word in words if word != "--json"], plain, alone)
        if result is None:
            return DONE
        speaks = "jaxmlm.parallel.hosts" not in sys.modules or _function("jaxmlm.parallel.hosts:is_primary")()
        if as_json and speaks:
            print(_function("jaxmlm.json_files:to_json")(result), flush=True)
        elif speaks:
            _say(result)
        return FAILED if result.get("ok") is False else DONE
    except SystemExit as exit:  # a --help printed on the way
        return exit.code if isinstance(exit.code, int) else DONE
    except InputError as error:
        return _complain(str(error), WRONG_INPUT)
    except Preempted as stop:
        return _complain(str(stop), PREEMPTED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `jaxmlm --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _complain(f"{type(error).__name__}: {error}", FAILED, "JAXMLM_DEBUG=1 shows where")


def _dispatch(words: list[str], plain: list[str], alone: bool) -> dict | None:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return None
    if words[0] == "--version":
        print(f"jaxmlm {__version__}")
        return None
    name, rest = words[0], words[1:]
    if name not in VERBS:
        from jaxmlm.paths import hint

        raise InputError(f"unknown verb {name!r}{hint(name, VERBS) or '; `jaxmlm --help` lists the verbs'}")
    verb = VERBS[name]
    dry_run = "--dry-run" in rest and "--dry-run" in verb.takes
    flags = [word for word in rest if not (dry_run and word == "--dry-run")]
    if {"-h", "--help"} & set(flags if name in WITH_WORDS else flags[:1]):
        print(_usage_of(name, verb))
        return None
    if name == "prepare" and flags[:1] == ["--inspect"]:
        if len(stores := [*flags[1:], *plain]) != 1:
            raise InputError(f"`jaxmlm prepare --inspect` takes the folder of one token store, got {len(stores)}")
        return _function("jaxmlm.tools.inspect:inspect")(stores[0])
    target = verb.takes.split()[0]
    if target.startswith("["):
        return verb.run(_taken(Call(name, "", flags, dry_run, tuple(plain))))
    if flags and not flags[0].startswith("-"):
        call = Call(name, flags[0], flags[1:], dry_run, tuple(plain))
    elif plain:
        call = Call(name, plain[0], flags, dry_run, tuple(plain[1:]))
    else:
        got = f"got {flags[0]!r} first" if flags else "got nothing"
        raise InputError(f"`jaxmlm {name}` needs a {target}, {got}; write: jaxmlm {name} {verb.takes}")
    call = _taken(call)
    if name not in ON_MANY_HOSTS:
        return verb.run(call)
    with stoppable(last=alone):
        return verb.run(_joined(call))


def _taken(call: Call) -> Call:
    """The call, if it has a place for the words after `--`."""
    if call.plain and call.verb not in WITH_WORDS:
        raise InputError(f"unexpected argument {call.plain[0]!r} after --: options of `{call.prog}` stand before it")
    return call


def _words(call: Call, most: int = 1) -> list[str]:
    """The words beside the first one of a verb that takes no options, at most so many; none if that is wrong."""
    options = any(word.startswith("-") for word in call.flags)
    words = [*call.flags, *call.plain]
    return [] if options or len(words) > most else words


def _joined(call: Call) -> Call:
    """The call without the options about hosts, once this process has joined the others, if it is one of many."""
    from jaxmlm.config import from_flags

    own, rest = _split(call.flags, HOSTS)
    if not {"-h", "--help"} & set(rest):
        _function("jaxmlm.parallel.hosts:start")(from_flags(_function("jaxmlm.parallel.hosts:Hosts"), own))
    return call._replace(flags=rest)


def _study(call: Call) -> dict:
    config = _config(call, "Study")
    return _function("jaxmlm.studies.study:run_study")(config, dry_run=call.dry_run)


def _prepare(call: Call) -> dict:
    return _beside(call, "jaxmlm.tools.prepare:Prepare", "jaxmlm.tools.prepare:prepare")


def _audit(call: Call) -> dict:
    return _beside(call, "jaxmlm.tools.audit:Audit", "jaxmlm.tools.audit:audit")


def _show(call: Call) -> dict:
    return _beside(call, "jaxmlm.tools.show:Show", "jaxmlm.tools.show:show")


def _plan(call: Call) -> dict:
    return _beside(call, "jaxmlm.tools.plan:Plan", "jaxmlm.tools.plan:plan")


def _bench(call: Call) -> dict:
    return _beside(call, "jaxmlm.tools.bench:Bench", "jaxmlm.tools.bench:bench")


def _pretrain(call: Call) -> dict:
    run = _config(call, "Run")
    return _function("jaxmlm.runs.pretraining:pretrain")(run)


def _finetune(call: Call) -> dict:
    from jaxmlm.config import from_flags

    kind, prog = _function("jaxmlm.runs.finetuning:Finetune"), f"{call.prog} {call.target}"
    asked = _function("jaxmlm.runs.recipes:from_words")(call.flags)
    configs = [from_flags(kind, words, usual, prog=prog) for words, usual in asked]
    return _function("jaxmlm.runs.suite:finetune_all")(call.target, configs)


def _compare(call: Call) -> dict:
    if not (words := _words(call)):
        raise InputError("`jaxmlm compare` takes two WORKDIRs of finetune; write: jaxmlm compare WORKDIR OTHER")
    return _function("jaxmlm.runs.comparison:compare")(call.target, *words)


def _evaluate(call: Call) -> dict:
    return _on_checkpoint(call, "jaxmlm.runs.evaluation:evaluate", "jaxmlm.runs.evaluation:Evaluation")


def _report(call: Call) -> dict:
    if call.flags:
        raise InputError(f"`jaxmlm report` takes a WORKDIR only, got {call.flags[0]!r} too")
    return _function("jaxmlm.studies.study:report")(call.target)


def _fill(call: Call) -> dict:
    texts = [*call.flags, *call.plain]  # a text may begin with a dash: this verb has no options
    if len(texts) != 1:
        raise InputError(
            '`jaxmlm fill` takes a CHECKPOINT and one text, in quotes; write: jaxmlm fill CHECKPOINT "a [MASK] text"'
        )
    fills = _function("jaxmlm.api:load")(call.target).fill_mask(texts[0])
    return {"fills": [[fill._asdict() for fill in one] for one in fills], "rows": []}


def _export(call: Call) -> dict:
    if not (words := _words(call)):
        raise InputError("`jaxmlm export` takes a CHECKPOINT and a new folder; write: jaxmlm export CHECKPOINT DIR")
    return _function("jaxmlm.api:export")(call.target, *words)


def _import(call: Call) -> dict:
    words = _words(call)
    if not words and (call.flags or call.plain):
        raise InputError("`jaxmlm import` takes a folder, and a new one to copy it to; write: jaxmlm import DIR [NEW]")
    return _function("jaxmlm.api:check_import")(call.target, *words)


def _doctor(call: Call) -> dict:
    from jaxmlm.config import from_flags

    return _function("jaxmlm.tools.doctor:doctor")(from_flags(_function("jaxmlm.tools.doctor:Doctor"), call.flags))


VERBS = {
    "study": Verb("CONFIG [--dry-run]", "the main job: a grid of maskings, one report", _study),
    "prepare": Verb("CONFIG (or --inspect STORE)", "text to tokenizer to token shards; what is in one", _prepare),
    "pretrain": Verb("CONFIG", "one pre-training run; running it again resumes it", _pretrain),
    "finetune": Verb("CHECKPOINT --task NAME --data FOLDER", "fine-tune it on GLUE, a task of it, or SQuAD", _finetune),
    "compare": Verb("WORKDIR OTHER", "is one fine-tuned checkpoint better than another", _compare),
    "evaluate": Verb("CHECKPOINT [--blimp|text|treebank X]", "BLiMP, held-out loss, layer probes", _evaluate),
    "fill": Verb('CHECKPOINT "a [MASK] text"', "the most probable words for each [MASK]", _fill),
    "import": Verb("DIR [NEW]", "read a transformers folder whole: what it is, what is wrong with it", _import),
    "export": Verb("CHECKPOINT DIR", "write a folder that transformers reads", _export),
    "audit": Verb("CONFIG [--presets all]", "the rates asked and got; 1 if one is not what was asked", _audit),
    "show": Verb("CONFIG [--rates 0.15 0.4]", "sentences as each masking leaves them, in colour", _show),
    "plan": Verb("CONFIG --topology v5e:4x4", "compile it for TPUs that are not there: fits? how fast? price?", _plan),
    "bench": Verb("CONFIG [--peer transformers]", "tokens/s, MFU and where the time of a step goes", _bench),
    "doctor": Verb("[--workdir FOLDER]", "what this machine is, what would stop a run; 1 if something would", _doctor),
    "report": Verb("WORKDIR", "draw a study's report again", _report),
}
ON_MANY_HOSTS = ("study", "prepare", "pretrain", "finetune", "evaluate")
WITH_WORDS = ("compare", "fill", "import", "export")
"""Verbs that take words beside their first one, and no options."""


def _beside(call: Call, options: str, function: str) -> dict:
    """A verb with options of its own (`--presets`) beside those of its configuration (`--data.text`)."""
    from jaxmlm.config import from_flags

    kind = _function(options)
    own, rest = _split(call.flags, [f"--{field.name}" for field in dataclasses.fields(kind)])
    config = _config(call._replace(flags=rest), "Run", "Study")
    run = config
    if type(config).__name__ == "Study":  # its store lies in its folder
        run = dataclasses.replace(config.run, workdir=config.workdir)
        if call.verb == "prepare":  # and has the phrases that one of its cells wants
            run = _function("jaxmlm.studies.study:store_run")(config)
    return _function(function)(run, from_flags(kind, own, prog=call.prog))


def _split(flags: list[str], names: list[str]) -> tuple[list[str], list[str]]:
    """The words of the options with these names, and the other words."""
    from jaxmlm.config import is_option

    own, rest, mine = [], [], False
    for word in flags:
        if word.startswith("--") and is_option(word):
            mine = word.split("=")[0] in names
        (own if mine else rest).append(word)
    return own, rest


def _config(call: Call, *kinds: str) -> Any:
    from jaxmlm.config import load

    config = load(call.target, call.flags, prog=call.prog)
    kind = type(config).__name__
    if kind not in kinds:
        other = {"Study": "; `jaxmlm study` takes it", "Run": "; `jaxmlm pretrain` takes it"}.get(kind, "")
        raise InputError(f"`{call.prog}` takes a {' or a '.join(kinds)}, but {call.target} is a {kind}{other}")
    return config


def _on_checkpoint(call: Call, function: str, options: str, usual: Any = None) -> dict:
    from jaxmlm.config import from_flags

    chosen = from_flags(_function(options), call.flags, usual, prog=f"{call.prog} {call.target}")
    return _function(function)(call.target, chosen)


def _function(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def _usage() -> str:
    verbs = "\n".join(f"  {name + ' ' + verb.takes:46} {verb.does}" for name, verb in VERBS.items())
    return f"""\
usage: jaxmlm VERB ...

A masked-language-model laboratory: which masking rate is best for your text?

{verbs}

  {"jaxmlm VERB --help":46} what a verb takes
  {"jaxmlm --version":46} the version
  {"--json":46} print the result as one JSON object on the last line
  {"--require tpu":46} refuse to fall back to the CPU (or gpu)
  {"--coordinator HOST:PORT --processes N --process I":46}
  {"":46} one of many hosts; Cloud TPU, GKE and Slurm say so by themselves
  {"--":46} the words after it are no options, whatever they begin with
  {"JAXMLM_DEBUG=1":46} show the traceback of an error

Exit codes: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again)."""


def _usage_of(name: str, verb: Verb) -> str:
    target = verb.takes.split()[0]
    about = {
        "[--workdir": "It looks at versions, devices, other hosts, the disk and, with --bucket gs://NAME, a bucket.",
        "CONFIG": "CONFIG is a Python file whose config() returns a Run or a Study (configs/quickstart.py).\n"
        f"Every value in it is an option: `jaxmlm {name} CONFIG --help` lists them with what they are now.",
        "CHECKPOINT": "CHECKPOINT is the folder of a run (its newest step), of one step (WORKDIR/checkpoints/STEP),\n"
        "or of the transformers format."
        + ("" if name in ("fill", "export") else f" `jaxmlm {name} CHECKPOINT --help` lists the options."),
        "WORKDIR": "WORKDIR is the folder of a study, or of `jaxmlm finetune` (compare).",
        "DIR": "DIR is a folder of the transformers format: config.json, weights and tokenizer.json.",
    }[target]
    dry = (
        "\n\n  --dry-run   list the cells with tokens and estimated time, and stop" if "--dry-run" in verb.takes else ""
    )
    options = "" if name in ("report", "compare", "fill", "import", "export") else " [--OPTION VALUE ...]"
    return f"usage: jaxmlm {name} {verb.takes}{options} [--json]\n\n{verb.does}\n\n{about}{dry}"


def _complain(message: str, code: int, advice: str = "") -> int:
    if os.environ.get("JAXMLM_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
        advice = ""
    line = " ".join(message.split())
    print(f"jaxmlm: {line}" + (f" ({advice})" if advice else ""), file=sys.stderr, flush=True)
    return code


def _say(result: dict) -> None:
    """Print the lines of results that a verb gave, scores rounded."""
    for row in result.get("rows", []):
        print("\n".join(_function("jaxmlm.runs.tables:lines")(row, bool(result.get("sets")))))
    for key, function in (("summary", "say"), ("difference", "say_comparison"), ("average", "say_average")):
        for line in _function(f"jaxmlm.runs.comparison:{function}")(result) if key in result else ():
            print(line)
    if "fills" in result or "architecture" in result:
        for line in _function("jaxmlm.api:say")(result):
            print(line)
