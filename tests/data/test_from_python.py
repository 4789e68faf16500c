"""Documents that a program gives: the same store, read once, killed and given again."""

from dataclasses import replace

import pytest

import jaxmlm
from jaxmlm.data import building as parts
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from tests.data.kinds_of_files import DATA, TEXTS, contents


def test_documents_of_a_program(wanted, tmp_path):
    data = replace(DATA, text="documents:mine-1", store=str(tmp_path / "store"))
    with pytest.raises(InputError, match="documents that a program gives to jaxmlm.prepare"):
        open_store(data, tmp_path)
    store = jaxmlm.prepare(({"text": text} for text in TEXTS), data)
    assert contents(store) == wanted
    assert contents(open_store(data, tmp_path)) == wanted
    assert contents(jaxmlm.prepare(iter(()), data)) == wanted  # it is there
    with pytest.raises(InputError, match="was made with data.text 'documents:mine-1'"):
        jaxmlm.prepare(TEXTS, replace(data, text="documents:mine-2"))
    few = replace(data, tokenizer_words=300, vocab=45, store=str(tmp_path / "few"))
    assert jaxmlm.prepare(iter(TEXTS), few).manifest["train"]["documents"] > 50


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (["a", 3], {}, "documents:mine, document 2: not text, but int"),
        ([{"body": "a"}], {}, r"document 1: not text, but dict whose field 'text' is NoneType \(it has body\)"),
        (["a"], {"text": "my.txt"}, "write documents:NAME"),
        (["a"], {"store": None}, "data.store is not given"),
    ],
)
def test_documents_of_a_program_that_are_not_right(tmp_path, documents, options, message):
    data = replace(DATA, text="documents:mine", store=str(tmp_path / "store"))
    with pytest.raises(InputError, match=message):
        jaxmlm.prepare(documents, replace(data, **options))


def test_documents_of_a_program_that_was_killed_are_those_that_it_gives_again(wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART", 1500)

    def killed(texts):
        yield from texts[:70]
        raise KeyboardInterrupt

    def prepared(texts, name):
        return jaxmlm.prepare(
            texts, replace(DATA, text="documents:mine", store=str(tmp_path / name), tokenizer_words=300, vocab=45)
        )

    complete = prepared(TEXTS, "complete")
    with pytest.raises(KeyboardInterrupt):
        prepared(killed(TEXTS), "store")
    assert list((tmp_path / "store.part").glob("*-*.json"))
    with pytest.raises(InputError, match=r"store.part was made from different documents than there are now"):
        prepared(TEXTS[:3] + TEXTS[4:], "store")
    assert contents(prepared(iter(TEXTS), "store")) == contents(complete)
