"""The command line: a table of verbs, each a thin wrapper over the function that does the work."""

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from jaxmlm import __version__
from jaxmlm.answers import complain, say
from jaxmlm.directories import has_home
from jaxmlm.errors import Diverged, InputError, Preempted
from jaxmlm.os_errors import explain
from jaxmlm.preemption import stoppable
from jaxmlm.usage import HelpPrinted, Verb, usage, usage_of

if TYPE_CHECKING:
    from jaxmlm.runs.run import Run

T = TypeVar("T")
DONE = 0
FAILED = 1
WRONG_INPUT = 2
PREEMPTED = 75
INTERRUPTED = 130
HELP = ("-h", "--help")


@dataclass(frozen=True)
class Call:
    """One call of a verb, as it was typed.

    Attributes:
        verb: its name.
        target: the first argument; empty if only help is asked for.
        flags: the words after it, without --json and --help.
        words: the words after `--`, which are not options.
        help: whether --help is among them.

    """

    verb: str
    target: str
    flags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    help: bool = False

    @property
    def prog(self) -> str:
        """The command as the user typed it, without flags."""
        return f"jaxmlm {self.verb}"

    @property
    def asked(self) -> list[str]:
        """The flags, and --help if it was asked for."""
        return [*self.flags, *(["--help"] if self.help else [])]

    def take(self, kind: type[T]) -> tuple[T, "Call"]:
        """Read the options of the verb's own, a dataclass; the call that is returned has the other flags."""
        from jaxmlm.config import from_flags, take_flags

        if self.help and not self.target:
            from_flags(kind, ["--help"], prog=f"{self.prog} {VERBS[self.verb].takes.split()[0]}")
        options, rest = take_flags(kind, self.flags, prog=self.prog)
        return options, replace(self, flags=tuple(rest))

    def all(self, kind: type[T]) -> T:
        """Read the options of a verb that has no others."""
        from jaxmlm.config import from_flags

        takes = VERBS[self.verb].takes
        prog = self.prog if takes.startswith("[") else f"{self.prog} {self.target or takes.split()[0]}"
        return from_flags(kind, self.asked, prog=prog)

    def config(self, *kinds: str) -> Any:
        """Read the configuration that the verb is called with, which is of one of these kinds: Run, Study."""
        from jaxmlm.config import load

        if not self.target:
            raise HelpPrinted(DONE)  # the help that needs no configuration
        config = load(self.target, self.asked, prog=self.prog)
        kind = type(config).__name__
        if kind not in kinds:
            other = {"Study": "; `jaxmlm study` takes it", "Run": "; `jaxmlm pretrain` takes it"}.get(kind, "")
            raise InputError(f"`{self.prog}` takes a {' or a '.join(kinds)}, but {self.target} is a {kind}{other}")
        return config

    def run(self) -> "Run":
        """Read a run; of a study its base run, in the study's directory, where its token store is."""
        config = self.config("Run", "Study")
        return replace(config.run, workdir=config.workdir) if type(config).__name__ == "Study" else config

    def arguments(self, least: int, most: int, wanted: str) -> list[str]:
        """The arguments after the target of a verb that has no options; InputError if there are not so many."""
        found = [*self.flags, *self.words]
        if any(word.startswith("-") for word in self.flags) or not least <= len(found) <= most:
            raise InputError(f"`{self.prog}` takes {wanted}; write: {self.prog} {VERBS[self.verb].takes}")
        return found


@dataclass(frozen=True)
class ReportOptions:
    """What `jaxmlm report` takes."""

    markdown: bool = False
    """Write report.md and its figures too: the same report as a document for a repository."""


@dataclass(frozen=True)
class StudyOptions:
    """What `jaxmlm study` takes beside the options of the configuration."""

    dry_run: bool = False
    """List the cells with their tokens and the estimated time, and stop."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again).

    >>> main(["--version"])
    jaxmlm 0.1.0
    0
    """
    code, said = _main(list(sys.argv[1:] if argv is None else argv), alone=argv is None)
    if code and "jaxmlm.parallel.hosts" in sys.modules:
        from jaxmlm.parallel import hosts

        hosts.exit_process(code, said if code == WRONG_INPUT else "")
    return code


def _main(words: list[str], alone: bool) -> tuple[int, str]:
    """Run one command; `alone`: the process ends with it. Returns its exit code, and what it has complained of."""
    # Programs compiled once are found again by the next process: a study compiles the same few many times.
    if has_home():
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/jaxmlm/xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    cut = words.index("--") if "--" in words else len(words)
    flags = words[:cut]
    as_json = "--json" in flags
    try:
        result = _dispatch([word for word in flags if word != "--json"], words[cut + 1 :], alone)
        if result is not None and _is_primary():
            say(result, as_json)
        return (DONE if result is None or result.get("ok", True) else FAILED), ""
    except HelpPrinted:
        return DONE, ""
    except SystemExit as error:
        return complain(f"your code called sys.exit({error.code}) before the command was done", WRONG_INPUT)
    except InputError as error:
        return complain(str(error), WRONG_INPUT)
    except Diverged as error:
        return complain(str(error), FAILED)
    except Preempted as stop:
        return complain(str(stop), PREEMPTED)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `jaxmlm --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED, ""
    except BaseException as error:  # also what no program may end by, as a panic of a library in Rust
        if line := explain(error):
            return complain(line, WRONG_INPUT)
        return complain(f"{type(error).__name__}: {error}", FAILED, "JAXMLM_DEBUG=1 shows where")


def _is_primary() -> bool:
    """Whether this process prints the result; only verbs for many hosts import what knows it."""
    if "jaxmlm.parallel.hosts" not in sys.modules:
        return True
    from jaxmlm.parallel import hosts

    return hosts.is_primary()


def _dispatch(flags: list[str], words: list[str], alone: bool) -> dict | None:
    if flags[:1] == ["help"]:
        flags = [*flags[1:2], "--help"]
    if not flags or flags[0] in HELP:
        print(usage(VERBS))
        return None
    if flags[0] == "--version":
        print(f"jaxmlm {__version__}")
        return None
    call = _call(flags[0], flags[1:], words)
    if call.help:
        print(usage_of(call.verb, VERBS[call.verb], call.verb not in WITHOUT_OPTIONS))
        if call.verb in WITHOUT_OPTIONS:
            return None
        print(flush=True)
        return VERBS[call.verb].run(call)
    if alone:
        from jaxmlm.malloc import keep_freed_memory

        keep_freed_memory()
    if call.verb in ON_MANY_HOSTS:
        with stoppable(last=alone):
            return VERBS[call.verb].run(_joined(call))
    return VERBS[call.verb].run(call)


def _call(name: str, flags: list[str], words: list[str]) -> Call:
    """What was typed: the target is the first word, or the first after `--`."""
    if name not in VERBS:
        from jaxmlm.wording import hint

        raise InputError(f"unknown verb {name!r}{hint(name, VERBS) or '; `jaxmlm --help` lists the verbs'}")
    takes = VERBS[name].takes
    helped = any(word in HELP for word in flags)
    flags = [word for word in flags if word not in HELP]
    if flags[:1] == ["--dry-run"]:  # the one option that may stand before the target: it has no value
        flags = [*flags[1:], flags[0]]
    target = ""
    if not takes.startswith("["):
        if flags and not flags[0].startswith("-"):
            target, *flags = flags
        elif words:
            target, *words = words
        elif not helped and not any(word.partition("=")[0] == OTHER_JOBS.get(name) for word in flags):
            got = f"got {flags[0]!r} first" if flags else "got nothing"
            raise InputError(f"`jaxmlm {name}` needs a {takes.split()[0]}, {got}; write: jaxmlm {name} {takes}")
    if words and name not in WITHOUT_OPTIONS and "--inspect" not in flags:
        raise InputError(f"unexpected argument {words[0]!r} after --: options of `jaxmlm {name}` stand before it")
    return Call(name, target, tuple(flags), tuple(words), helped)


def _joined(call: Call) -> Call:
    """The call without the options about hosts, once this process has joined the others, if it is one of many."""
    from jaxmlm.parallel import hosts

    options, rest = call.take(hosts.Hosts)
    share = any(word.partition("=")[0] == "--shard" for word in call.flags)
    if call.verb != "prepare" or not share:  # a share is the work of one machine, which needs no other
        hosts.start(options)
    return rest


def _study(call: Call) -> dict:
    options, call = call.take(StudyOptions)
    study = call.config("Study")
    from jaxmlm.config import refuse_ineffective
    from jaxmlm.studies.study import run_study

    refuse_ineffective(study.ineffective, call.flags)
    return run_study(study, dry_run=options.dry_run)


def _prepare(call: Call) -> dict:
    from jaxmlm.tools.prepare import Prepare, prepare

    if "--inspect" in call.flags and not call.help:
        from jaxmlm.tools.inspect import inspect

        stores = [word for word in (call.target, *call.flags, *call.words) if word and word != "--inspect"]
        if len(stores) != 1:
            raise InputError(f"`jaxmlm prepare --inspect` takes the directory of one token store, got {len(stores)}")
        return inspect(stores[0])
    options, call = call.take(Prepare)
    config = call.config("Run", "Study")
    if type(config).__name__ == "Study":
        from jaxmlm.studies.study import store_run

        config = store_run(config)  # with the phrases that one of its cells wants
    return prepare(config, options)


def _audit(call: Call) -> dict:
    if any(word.partition("=")[0] == "--collator" for word in call.flags):
        from jaxmlm.tools.collators import CollatorAudit, audit_named

        return audit_named(call.all(CollatorAudit))
    from jaxmlm.tools.audit import Audit, audit

    options, call = call.take(Audit)
    return audit(call.run(), options)


def _show(call: Call) -> dict:
    from jaxmlm.tools.show import Show, show

    options, call = call.take(Show)
    return show(call.run(), options)


def _plan(call: Call) -> dict:
    from jaxmlm.tools.plan import Plan, plan

    options, call = call.take(Plan)
    return plan(call.run(), options)


def _bench(call: Call) -> dict:
    from jaxmlm.tools.bench import Bench, bench

    options, call = call.take(Bench)
    return bench(call.run(), options)


def _pretrain(call: Call) -> dict:
    run = call.config("Run")
    from jaxmlm.runs.pretraining import pretrain

    return pretrain(run)


def _finetune(call: Call) -> dict:
    from jaxmlm.config import from_flags, take_flags
    from jaxmlm.runs.finetuning import Finetune
    from jaxmlm.runs.recipes import Selection, selected
    from jaxmlm.runs.suite import finetune_all

    selection, others = take_flags(Selection, call.flags, prog=call.prog)
    flags = [*others, *(["--help"] if call.help else [])]
    prog = f"{call.prog} {call.target or 'CHECKPOINT'}"
    configs = [from_flags(Finetune, flags, one, prog=prog) for one in selected(selection)]
    return finetune_all(call.target, configs)


def _compare(call: Call) -> dict:
    from jaxmlm.runs.comparison import compare

    [other] = call.arguments(1, 1, "two WORKDIRs of finetune")
    return compare(call.target, other)


def _evaluate(call: Call) -> dict:
    from jaxmlm.runs.evaluation import Evaluation, evaluate

    return evaluate(call.target, call.all(Evaluation))


def _report(call: Call) -> dict:
    from jaxmlm.studies.study import report

    return report(call.target, call.all(ReportOptions).markdown)


def _fill(call: Call) -> dict:
    from jaxmlm import api

    texts = [*call.flags, *call.words]  # a text may begin with a dash: this verb has no options
    if len(texts) != 1:
        raise InputError(
            '`jaxmlm fill` takes a CHECKPOINT and one text, in quotes; write: jaxmlm fill CHECKPOINT "a [MASK] text"'
        )
    fills = api.load(call.target).fill_mask(texts[0])
    return {"fills": [[fill._asdict() for fill in one] for one in fills], "rows": []}


def _export(call: Call) -> dict:
    from jaxmlm.runs.conversion import Export, export

    if call.help:
        call.all(Export)
    options, rest = call.take(Export)
    directories = rest.arguments(0 if options.push else 1, 1, "a CHECKPOINT and a new directory")
    return export(call.target, directories[0] if directories else None, options)


def _import(call: Call) -> dict:
    from jaxmlm.runs.conversion import check_import

    return check_import(call.target, *call.arguments(0, 1, "a directory, and a new one to copy it to"))


def _doctor(call: Call) -> dict:
    from jaxmlm.tools.doctor import Doctor, doctor

    return doctor(call.all(Doctor))


VERBS = {
    "study": Verb("CONFIG [--dry-run]", "the main job: a grid of maskings, one report", _study),
    "prepare": Verb("CONFIG (or --inspect STORE)", "text to tokenizer to token shards; what is in one", _prepare),
    "pretrain": Verb("CONFIG", "one run; the same command again resumes it", _pretrain),
    "finetune": Verb(
        "CHECKPOINT --task NAME --data DIRECTORY", "fine-tune it on GLUE, SQuAD, entities, a table", _finetune
    ),
    "compare": Verb("WORKDIR OTHER", "is one fine-tuned checkpoint better than another", _compare),
    "evaluate": Verb("CHECKPOINT [--bound|blimp|text X]", "likelihood bound, BLiMP, loss, layer probes", _evaluate),
    "fill": Verb('CHECKPOINT "a [MASK] text"', "the most probable tokens for each [MASK]", _fill),
    "import": Verb("DIR [NEW]", "validate a transformers checkpoint (or hf:org/name)", _import),
    "export": Verb("CHECKPOINT DIR [--push org/name]", "write a directory that transformers reads", _export),
    "audit": Verb("CONFIG (or --collator FILE.py:NAME)", "the rates asked and got; 1 if they differ", _audit),
    "show": Verb("CONFIG [--rates 0.15 0.4]", "sentences as each masking leaves them, in colour", _show),
    "plan": Verb("CONFIG --topology v5e:4x4", "compiled for TPUs not at hand: fits? fast? price?", _plan),
    "bench": Verb("CONFIG [--peer transformers]", "tokens/s, MFU and where the time of a step goes", _bench),
    "doctor": Verb("[--workdir DIRECTORY]", "this machine; 1 if something would stop a run", _doctor),
    "report": Verb("WORKDIR [--markdown]", "draw a study's report again", _report),
}
ON_MANY_HOSTS = ("study", "prepare", "pretrain", "finetune", "evaluate")
OTHER_JOBS = {"prepare": "--inspect", "audit": "--collator"}  # with which a verb needs no first argument
WITHOUT_OPTIONS = ("compare", "fill", "import")
"""Verbs that take arguments only."""
