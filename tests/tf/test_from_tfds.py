"""What TensorFlow must read or unpack: TFRecord, and the archives of GLUE beside the official files. Extra `tf`."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from jaxmlm.data import from_tfds
from jaxmlm.errors import InputError
from jaxmlm.tasks import from_tfds as from_tfds_tasks
from jaxmlm.tasks import glue, squad
from jaxmlm.tasks.downstream import TaskData
from jaxmlm.tasks.registry import find_task

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore")]  # of TensorFlow's own modules

ROWS = 7
HEADERS = {
    "cola": "",
    "sst2": "sentence\tlabel",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "qnli": "index\tquestion\tsentence\tlabel",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
    "mnli": "index\tpromptID\tpairID\tgenre\tb1\tb2\tp1\tp2\tsentence1\tsentence2\tlabel1\tgold_label",
}
FILES = {"mnli": ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")}


def line(task: str, columns: list[str], row: int, test: bool) -> str:
    spec = glue.TASKS[task].table
    values = {column: str(row) for column in columns}
    values |= {column: f'{column} {row}: the "cafés" of {task}' for column in spec.texts}
    values[spec.label] = spec.labels[row % len(spec.labels)] if spec.labels else f"{row % 10 / 2:.3f}"
    return "\t".join(values[column] for column in columns if not (test and column == spec.label))


def write(task: str, directory: Path) -> None:
    """The files of a GLUE task, of rows of our own."""
    spec = glue.TASKS[task].table
    directory = directory / glue.TASKS[task].directory
    directory.mkdir()
    for name in FILES.get(task, ("train", "dev", "test")):
        test = name.startswith("test")
        columns = HEADERS[task].split("\t") if HEADERS[task] else list(spec.header)
        head = [column for column in columns if not (test and column == spec.label)]
        lines = [line(task, columns, row, test) for row in range(ROWS + len(name))]
        if task == "cola":
            head = ["index", "sentence"]
            lines = [f"{row}\tsentence {row}" for row in range(5)] if test else lines
        whole = lines if task == "cola" and not test else ["\t".join(head), *lines]
        (directory / f"{name}.tsv").write_text("\n".join(whole) + "\n")


def zipped(directory: Path, to: Path) -> None:
    with zipfile.ZipFile(to, "w") as archive:
        for file in sorted(directory.rglob("*.tsv")):
            archive.write(file, file.relative_to(directory))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    (tmp_path / "tfds" / "downloads" / "manual").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("task", HEADERS)
def test_rows_of_glue_are_those_of_the_official_files(home, monkeypatch, task):
    from tensorflow_datasets.core.download import checksums

    (home / "files").mkdir()
    write(task, home / "files")
    builder = from_tfds._builder(f"glue/{task}")
    url = builder.builder_config.data_url
    name = url.rsplit("/", 1)[1]
    archive = home / "tfds" / "downloads" / "manual" / name
    zipped(home / "files", archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    info = checksums.UrlInfo(size=archive.stat().st_size, checksum=digest, filename=name)
    monkeypatch.setattr(type(builder), "url_infos", {url: info})

    splits = {"train": "train.tsv", "validation": "dev.tsv"}
    if task == "mnli":
        splits = {"train": "train.tsv"} | {f"validation_{m}": f"dev_{m}.tsv" for m in ("matched", "mismatched")}
    for split, file in splits.items():
        official = glue.rows(glue.TASKS[task], home / "files", file)
        reader = from_tfds._builder(f"glue/{task}") if split != "train" else prepared(task)
        # TFDS shuffles when it prepares, and keeps the row's number in "idx".
        found = sorted(from_tfds._examples(reader, split, "", 0, len(official.labels)), key=lambda row: row["idx"])
        for column, texts in zip(fields(task), official.texts, strict=True):
            assert [row[column].decode() for row in found] == texts and len(texts) > ROWS
            source = from_tfds.opened(f"tfds:glue/{task}:{split}", column)
            assert sorted(document.text for document in source.documents()) == sorted(texts)
        assert [round(float(row["label"]), 4) for row in found] == [round(float(y), 4) for y in official.labels]
    same_rows(task, home / "files")
    if task == "rte":
        [rows] = find_task(task).test_sets(TaskData("tfds:")).values()
        assert rows.labels is None and rows.texts == glue.tests(glue.TASKS[task], home / "files")["RTE"].texts
        monkeypatch.setitem(from_tfds_tasks.CLASSES, task, ("not_entailment", "entailment"))
        with pytest.raises(InputError, match="the classes are entailment, not_entailment, expected not_entailment, "):
            find_task(task).read(TaskData("tfds:"))


def same_rows(task, directory):
    """What `finetune --data tfds:` learns and is evaluated on is what the official files give, row by row."""
    ours, files = (find_task(task).read(TaskData(data)) for data in ("tfds:", str(directory)))
    assert list(ours.evaluated) == list(files.evaluated)
    for got, want in zip((ours.train, *ours.evaluated.values()), (files.train, *files.evaluated.values()), strict=True):
        assert got.texts == want.texts and got.labels.dtype == want.labels.dtype and len(got) > ROWS
        assert got.labels.tolist() == want.labels.tolist()


def test_rows_of_mrpc_are_those_of_its_makers_files(home, monkeypatch):
    """TFDS cuts them as the official script does: the pairs of dev_ids.tsv are dev."""
    from tensorflow_datasets.core.download import checksums
    from tensorflow_datasets.text import glue as theirs

    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    rows = [f'{i % 2}\t{i}\t{i + 1}\tthe "first" {i}\tthe caf\u00e9 {i}' for i in range(3 * ROWS)]
    files = {
        "msr_paraphrase_train.txt": "\ufeff" + head + "\n".join(rows) + "\n",
        "msr_paraphrase_test.txt": "\ufeff" + head + "\n".join(rows[:4]) + "\n",
        "dev_ids.tsv": "".join(f"{i}\t{i + 1}\n" for i in range(0, 3 * ROWS, 2)),
    }
    official, manual = home / "files" / "MRPC", home / "tfds" / "downloads" / "manual"
    official.mkdir(parents=True)
    urls = dict(zip(files, (theirs._MRPC_TRAIN, theirs._MRPC_TEST, theirs._MRPC_DEV_IDS), strict=True))
    infos = {}
    for name, text in files.items():
        (official / name).write_text(text, "utf-8")
        (manual / name).write_text(text, "utf-8")
        digest = hashlib.sha256((official / name).read_bytes()).hexdigest()
        monkeypatch.setitem(glue.MSR, name, digest)
        infos[urls[name]] = checksums.UrlInfo(size=len(text.encode()), checksum=digest, filename=name)
    monkeypatch.setattr(type(from_tfds._builder("glue/mrpc")), "url_infos", infos)
    same_rows("mrpc", home / "files")


def prepared(task):
    """The builder, after the data set has been prepared as a source prepares it."""
    from_tfds.opened(f"tfds:glue/{task}:train", fields(task)[0])
    return from_tfds._builder(f"glue/{task}")


def fields(task: str) -> tuple[str, ...]:
    return {"mnli": ("premise", "hypothesis")}.get(task, glue.TASKS[task].table.texts)


def test_rows_of_squad_are_those_of_the_official_files(home, monkeypatch):
    from tensorflow_datasets.core.download import checksums

    answers = [{"text": "a café", "answer_start": 11}]
    articles = [
        {"title": f"t{i}", "paragraphs": [
            {"context": f"{i} there is a café", "qas": [{"id": f"{i}-{k}", "question": f"what {k}?", "answers": answers}
                                                       for k in range(3)]}]}
        for i in range(4)
    ]  # fmt: skip
    builder = from_tfds._builder("squad")
    infos = {}
    for url, info in builder.url_infos.items():
        file = home / "tfds" / "downloads" / "manual" / info.filename
        file.write_text(json.dumps({"version": "1.1", "data": articles}))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        infos[url] = checksums.UrlInfo(size=file.stat().st_size, checksum=digest, filename=info.filename)
    monkeypatch.setattr(type(builder), "url_infos", infos)
    official = home / "official"
    official.mkdir()
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (official / name).write_text(json.dumps({"version": "1.1", "data": articles}))
    found, wanted = (find_task("squad").read(TaskData(data))[0] for data in ("tfds:", str(official)))
    for got, want in zip(found, wanted, strict=True):
        assert asked(got) == asked(want) and len(got.questions) == 12 and len(got.paragraphs) == 4
    for field in ("question", "context", "id"):
        got = [document.text for document in from_tfds.opened("tfds:squad:validation", field).documents()]
        wanted = [{**qa, "context": p["context"]}[field] for a in articles for p in a["paragraphs"] for qa in p["qas"]]
        assert sorted(got) == sorted(wanted)


def asked(found: squad.Squad) -> list[tuple]:
    """All that a question is, whatever order TFDS has shuffled them into."""
    return sorted((q.id, q.text, found.paragraphs[q.paragraph], q.answers) for q in found.questions)


def test_rows_of_squad2_are_those_of_the_official_files(home, monkeypatch):
    from tensorflow_datasets.core.download import checksums

    answers = [{"text": "a caf\u00e9", "answer_start": 9}, {"text": "caf\u00e9", "answer_start": 11}]
    qas = [
        {"id": f"q{i}", "question": f"what {i}?", "answers": [] if i % 2 else answers, "is_impossible": bool(i % 2)}
        for i in range(7)
    ]
    content = {
        "version": "v2.0",
        "data": [{"title": "t", "paragraphs": [{"context": "there is a caf\u00e9", "qas": qas}]}],
    }
    builder, infos, official = from_tfds._builder("squad/v2.0"), {}, home / "official"
    official.mkdir()
    for url, info in builder.url_infos.items():
        for directory in (official, home / "tfds" / "downloads" / "manual"):
            (directory / info.filename).write_text(json.dumps(content))
        digest = hashlib.sha256((official / info.filename).read_bytes()).hexdigest()
        size = (official / info.filename).stat().st_size
        infos[url] = checksums.UrlInfo(size=size, checksum=digest, filename=info.filename)
    monkeypatch.setattr(type(builder), "url_infos", infos)
    found, wanted = (find_task("squad2").read(TaskData(data))[0] for data in ("tfds:", str(official)))
    for got, want in zip(found, wanted, strict=True):
        assert asked(got) == asked(want) and [len(q.answers) for q in got.questions].count(0) == 3


def test_a_set_that_is_prepared_as_tfrecord(home, monkeypatch):
    import numpy as np
    import tensorflow_datasets as tfds

    texts = [f"the cat number {i} sees a café" for i in range(50)]

    class TfrecordCats(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "n": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, text in enumerate(texts):
                yield i, {"text": text, "n": i}

    TfrecordCats(data_dir=str(home / "tfds"), file_format="tfrecord").download_and_prepare()
    source = from_tfds.opened("tfds:tfrecord_cats", "text")
    assert [document.text for document in source.documents()] == texts
    assert [(d.number, d.read) for d in source.documents()] == [(i, i + 1) for i in range(50)]
