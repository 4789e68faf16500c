"""TensorFlow Datasets as a source: a builder of the test's own, prepared as array_record, read without TensorFlow."""

import re
import shutil
import subprocess
import sys

import pytest

from jaxmlm.data import Data, from_tfds
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.wording import install_command

TEXTS = [f"the cat number {i} sees a café in the town and runs to the house" for i in range(200)]
BUILDER = """
import warnings
warnings.simplefilter("ignore")
import sys
import numpy as np
import tensorflow_datasets as tfds


class Cats(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict({"text": text, "title": text, "n": tfds.features.Scalar(np.int64)})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(200), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            text = f"the cat number {i} sees a caf\\u00e9 in the town and runs to the house"
            yield i, {"text": text, "title": f"title {i}", "n": i}


Cats(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(tmp_path_factory):
    """A data set below a directory of its own, made by a process that this one does not share its classes with."""
    directory = tmp_path_factory.mktemp("tfds")
    (directory / "cats.py").write_text(BUILDER)  # tfds looks for the file of a builder
    subprocess.run([sys.executable, "cats.py", str(directory)], cwd=directory, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(directory))
        yield directory


def texts(name, field="text"):
    return [document.text for document in from_tfds.opened(name, field).documents()]


def test_documents_in_order_without_tensorflow():
    assert texts("tfds:cats") == TEXTS
    assert from_tfds.opened("tfds:cats", "text").about == [{"file": "tfds:cats", "version": "1.0.0", "documents": 200}]
    assert texts("tfds:cats:1.0.0:test", "title") == [f"title {i}" for i in range(3)]
    assert texts("tfds:cats:train[:2]") == TEXTS[:2]
    assert "tensorflow" not in sys.modules


def test_a_store_of_a_data_set(tmp_path):
    store = open_store(Data(text="tfds:cats", vocab=50, length=16, valid=0.2), tmp_path)
    assert store.manifest["train"]["documents"] + store.manifest["valid"]["documents"] == 200
    assert store.manifest["source"][0]["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("tfds:cats", "body", "no field 'body'; there are n, text, title: name one as --data.field"),
        ("tfds:cats:trian", "text", "no split 'trian'; there are test, train"),
        ("tfds:wikipedai", "text", "no data set 'wikipedai' in TensorFlow Datasets; did you mean wikipedia"),
        ("tfds:", "text", "write tfds:NAME"),
        ("tfds:cats", "n", "the field 'n' holds no text"),
    ],
)
def test_names_that_are_not_there(text, field, message):
    with pytest.raises(InputError, match=message):
        texts(text, field)


def test_a_data_set_that_must_be_downloaded_where_nothing_can_be(monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(from_tfds.socket, "getaddrinfo", refuse)
    with pytest.raises(
        InputError, match=r"lm1b cannot be prepared: no network; put into .*/downloads/manual: .*SHA-256 [0-9a-f]{64}"
    ):
        from_tfds.opened("tfds:lm1b", "text")


def test_a_data_set_that_tensorflow_must_read(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared / "cats", tmp_path / "cats")
    info = tmp_path / "cats" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(from_tfds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="as tfrecord, which TensorFlow reads: " + re.escape(install_command("tf"))):
        texts("tfds:cats")
