"""A study's results are of the examples that its files had, of whatever kind they are, and are not taken for others."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxmlm.data import Data
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.json_files import read_jsonl, with_checksum, without_checksum
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Bound, Finetune, Probes, Run, ZeroShot
from jaxmlm.studies import Study, Vary, run_study
from jaxmlm.synthetic import world
from jaxmlm.training import Loop

FORMS = ("the", "hen", "owl", "sees", "old", "river")
KINDS = ("DET", "NOUN", "VERB")


def minimal_pairs(to: Path, one: int) -> None:
    pairs = [(f"the hen sees {n}", f"sees {n} hen the") for n in range(one, one + 8)]
    names = {"UID": "own", "linguistics_term": "own"}
    lines = [json.dumps({**names, "sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
    (to / "own.jsonl").write_text("\n".join(lines) + "\n")


def table(to: Path, one: int) -> None:
    rows = [f"the {FORMS[n % 6]} runs {n},{'ab'[(n + one) % 2]}" for n in range(60)]
    (to / "own.csv").write_text("\n".join(["text,label", *rows]))


def treebank(to: Path, one: int) -> None:
    words = [f"{i}\t{FORMS[i - 1]}\t_\t{KINDS[(i + one) % 3]}\t_\t_\t{i - 1}\tdep\t_\t_" for i in range(1, 7)]
    for part in ("train", "dev"):
        (to / f"en-{part}.conllu").write_text(20 * ("\n".join(words) + "\n\n"))


def general(to: Path, one: int) -> None:
    (to / "general.txt").write_text("\n\n".join(world.documents(one + 5, 20)))


KINDS_OF_FILES: dict[str, Callable[[Path, int], None]] = {
    "blimp": minimal_pairs,
    "own.csv": table,
    "treebank": treebank,
    "text": general,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Files of all four kinds."""
    directory = tmp_path_factory.mktemp("files")
    for write in KINDS_OF_FILES.values():
        write(directory, 0)
    return directory


@pytest.fixture(scope="module")
def done(directory, tmp_path_factory) -> Study:
    """A study of one cell, evaluated on those files."""
    study = Study(
        str(tmp_path_factory.mktemp("done") / "study"),
        run=Run(
            data=Data(text="sample:200", vocab=200, length=32, valid=0.1),
            model=EncoderConfig(layers=1, width=16, heads=2),
            loop=Loop(steps=1, batch=8),
        ),
        vary=(Vary("masking.rate", (0.4,)),),
        seeds=(0,),
        control=False,
        bound=Bound(rows=8),
        general=str(directory / "general.txt"),
        zero_shot=ZeroShot(str(directory), pairs=None, batch=8),
        probes=Probes(str(directory), sentences=0, words=60),
        finetune=(Finetune(str(directory / "own.csv"), epochs=1.0, batch=8, length=16),),
    )
    run_study(study)
    return study


@pytest.fixture
def study(done, tmp_path) -> Study:
    """The same study in a directory of its own."""
    shutil.copytree(done.workdir, tmp_path / "study")
    return replace_path(done, "workdir", str(tmp_path / "study"))


@pytest.fixture
def files(directory) -> Iterator[Path]:
    """Those files, which are put back."""
    yield directory
    for write in KINDS_OF_FILES.values():
        write(directory, 0)


def lines(study: Study) -> list[dict]:
    return read_jsonl(Path(study.workdir) / "results.jsonl")


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_other_examples_in_the_same_file_are_refused(study, files, kind):
    """And those that were there before are found again, by what they say and not by a time or a path."""
    before = lines(study)
    assert run_study(study)["missing"] == [] and lines(study) == before
    KINDS_OF_FILES[kind](files, 1)
    with pytest.raises(InputError, match=rf"holds results on other examples of \S*{kind} than its files have now"):
        run_study(study)
    shutil.rmtree(Path(study.workdir) / "cells")  # the study's own lines say it, too
    with pytest.raises(InputError, match="holds results on other examples"):
        run_study(study)
    KINDS_OF_FILES[kind](files, 0)
    run_study(study)
    assert lines(study) == before


def test_a_cell_is_copied_without_its_results_on_other_examples(study, files, tmp_path):
    minimal_pairs(files, 1)
    other = replace_path(replace_path(study, "reuse", (study.workdir,)), "workdir", str(tmp_path / "other"))
    run_study(other)
    (old,), (new,) = ([row for row in lines(one) if row["stage"] == "blimp"] for one in (study, other))
    assert old["examples"] != new["examples"] and old["settings"] == new["settings"]
    kept = [[row for row in lines(one) if row["stage"] != "blimp"] for one in (study, other)]
    assert sorted(map(str, kept[0])) == sorted(map(str, kept[1]))


def test_results_of_earlier_versions_are_kept(study, files):
    """They do not say of which examples they are."""
    paths = [*Path(study.workdir).rglob("results.jsonl")]
    assert len(paths) == 2
    for path in paths:
        rows = [without_checksum(row, path) for row in read_jsonl(path)]
        for row in rows:
            row.pop("examples", None)
        path.write_text("".join(json.dumps(with_checksum(row)) + "\n" for row in rows))
    before = lines(study)
    table(files, 1)
    run_study(study)
    assert lines(study) == before
