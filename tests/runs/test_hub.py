"""Models by their names on the Hub, against a server of its API on loopback: redirects, ranges and every fault."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import HfApi, constants, file_download

import jaxmlm
from jaxmlm import hub
from jaxmlm.cli import main
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.errors import InputError
from jaxmlm.runs.conversion import Export, export
from jaxmlm.runs.loading import load
from jaxmlm.runs.model_card import card
from jaxmlm.runs.results import Result
from tests.runs.hub_server import COMMIT, serving

DATA = jaxmlm.Data("sample:60", length=24, valid=0.1)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported") / "out"
    jaxmlm.export(checkpoint, directory)
    return directory


@pytest.fixture
def server(exported, tmp_path, monkeypatch):
    """The Hub with an exported model, one with pickled weights only, and one with nothing; an empty cache."""
    model = {path.name: path.read_bytes() for path in exported.iterdir()}
    pickled = {name: data for name, data in model.items() if name != "model.safetensors"}
    code = {"modeling_own.py": b"raise SystemExit('run')"}
    with serving(
        {
            "org/tiny": model | code | {"onnx/model.safetensors": b"other", "pytorch_model.bin": b"pickle"},
            "org/pickled": pickled | {"pytorch_model.bin": b"pickle"},
            "org/bare": {"README.md": b"nothing"},
        }
    ) as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
        monkeypatch.setenv("HF_TOKEN", "a token")
        hub._downloaded.cache_clear()
        yield found
        hub._downloaded.cache_clear()


def test_a_name_is_downloaded_once_and_found_again_without_a_network(server, exported, monkeypatch):
    """Weights by way of a redirect; only the files that jaxmlm reads, and no code."""
    directory = hub.local("hf:org/tiny")
    assert directory.name == COMMIT and {path.name for path in directory.iterdir()} <= set(hub.MODEL)
    assert (directory / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    assert any("/cdn/" in request for request in server.requests)
    loads = [request for request in server.requests if request.startswith("GET") and "/resolve/" in request]
    hub._downloaded.cache_clear()
    assert hub.local(f"hf:org/tiny@{COMMIT}") == directory  # a commit is known without asking
    assert loads == [request for request in server.requests if request.startswith("GET") and "/resolve/" in request]
    hub._downloaded.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert hub.local("hf:org/tiny") == directory
    with pytest.raises(InputError, match="hf:org/bare is not in the cache and the Hub cannot .*: hf download org/bare"):
        hub.local("hf:org/bare")


def test_the_model_of_a_name_is_that_of_its_directory(server, exported, capsys):
    text = "the hen sees a fox"
    assert np.array_equal(jaxmlm.load("hf:org/tiny@v1").embed([text]), jaxmlm.load(exported).embed([text]))
    assert open_tokenizer("hf:org/tiny").encode(text) == open_tokenizer(exported).encode(text)
    assert main(["import", "hf:org/tiny"]) == 0
    assert "ForMaskedLM (mlm) in hf:org/tiny" in capsys.readouterr().out


def test_a_connection_that_drops_is_resumed_where_it_broke(server, exported):
    server.drop = 2
    directory = hub.local("hf:org/tiny")
    assert (directory / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    half = (exported / "model.safetensors").stat().st_size // 2
    assert len(server.ranges) == 2 and server.ranges[0] == f"bytes={half // 4096 * 4096}-"


def refused(server):
    server.refuse = True


def always_dropped(server):
    server.drop = 1000
    # Nothing is sent, so that the library gives up.
    server.repositories["org/tiny"]["model.safetensors"] = b"x"


FAULTS = [
    ("hf:org/tiny@v9", None, "org/tiny has no revision 'v9': give a branch, tag or commit of it, or leave out @v9"),
    ("hf:org/tiny@feature+x#1", None, r"org/tiny has no revision 'feature\+x#1'"),
    ("hf:org/nothing", None, "the Hub has no repository 'org/nothing' that you may read: check the name"),
    ("hf:org/pickled", None, r"hf:org/pickled has pickled weights only \(pytorch_model.bin\), which can run code"),
    ("hf:org/bare", None, "hf:org/bare has no model.safetensors"),
    ("hf:org/tiny", refused, r"hf:org/tiny: the Hub refuses the login \(401\): log in anew"),
    ("hf:org/tiny", always_dropped, "hf:org/tiny: the connection to the Hub broke .*: run the command again"),
    ("hf:", None, "'hf:' is not a name of the Hub: write hf:org/name"),
    ("hf:a/b/c", None, "'hf:a/b/c' is not a name of the Hub"),
    ("hf:../etc", None, "is not a name of the Hub"),
]


@pytest.mark.parametrize(("name", "fault", "message"), FAULTS)
def test_what_the_hub_cannot_give_is_one_line(name, fault, message, server):
    if fault is not None:
        fault(server)
    with pytest.raises(InputError, match=message) as error:
        hub.local(name)
    assert "\n" not in str(error.value)


def test_pickled_weights_that_another_program_has_cached_are_not_read(server, tmp_path):
    """transformers downloads them into the same cache."""
    file_download.hf_hub_download("org/pickled", "pytorch_model.bin")
    file_download.hf_hub_download("org/pickled", "config.json")
    with pytest.raises(InputError, match="pickled weights only"):
        jaxmlm.load("hf:org/pickled")


def test_a_command_follows_the_endpoint_of_its_environment(server, tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}
    line = "from jaxmlm import hub; print(hub.local('hf:org/tiny', hub.TOKENIZER))"
    done = subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "home" / "hub" / "models--org--tiny"))


def test_an_export_is_pushed_with_a_card_to_publish(server, checkpoint, tmp_path, capsys):
    flags = ["--push", "me/mine", "--private", "--license", "apache-2.0"]
    assert main(["export", checkpoint, str(tmp_path / "out"), *flags]) == 0
    assert f"pushed to {server.url}/me/mine" in capsys.readouterr().out
    [made] = server.created
    assert (made["organization"], made["name"]) == ("me", "mine") and "private" in {*made, *made.values()}
    pushed = server.commits["me/mine"]
    assert pushed == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    text = pushed["README.md"].decode()
    for part in ('license: "apache-2.0"', "pipeline_tag: fill-mask", "- masking: rate", "- steps: 0 of 8 rows, seed 0"):
        assert part in text
    assert 'pipeline("fill-mask", model="me/mine")' in text and "License: apache-2.0." in text
    assert str(tmp_path) not in text and "/" not in text.replace("me/mine", "").partition("```")[0]


def test_an_upload_that_breaks_leaves_what_can_be_uploaded(server, checkpoint, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(HfApi, "upload_folder", broken)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=rf"broke .*: {out} is written: hf upload me/mine {out}, or delete it and run"):
        export(checkpoint, out, Export(push="me/mine"))
    assert jaxmlm.load(out)
    spaced = tmp_path / "an export"
    with pytest.raises(InputError, match=rf"hf upload me/mine '{spaced}', or delete it"):  # as a shell reads it
        export(checkpoint, spaced, Export(push="hf:me/mine"))
    with pytest.raises(InputError, match=r"broke \(.*\): run the command again$"):
        export(checkpoint, None, Export(push="me/mine"))


def test_the_current_directory_is_not_replaced(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^\. is the current directory, which an export would replace: name a new one"
    ):
        export(checkpoint, ".")


def test_a_base_of_the_hub_is_named_in_the_card(server, tmp_path):
    """Also where nothing is kept here: the directory is a temporary one."""
    config = jaxmlm.Run(str(tmp_path / "run"), init="hf:org/tiny@v1", data=DATA, loop=jaxmlm.Loop(0, 8))
    jaxmlm.pretrain(config)
    done = export(tmp_path / "run", None, Export(push="me/further"))
    assert done["directory"] is None
    text = server.commits["me/further"]["README.md"].decode()
    assert "base_model: org/tiny\n" in text and "org/tiny@v1, pre-trained further" in text
    assert "License: not stated" in text and "license:" not in text


def test_a_push_without_a_login_writes_nothing(server, checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for name, message in (
        ("mine", "give the owner and the name"),
        ("a/b@v1", "give the owner"),
        ("a b/c", "not a name"),
    ):
        with pytest.raises(InputError, match=message):
            export(checkpoint, out, Export(push=name))
    server.refuse = True
    with pytest.raises(InputError, match=r"the Hub refuses the login \(401\)"):
        export(checkpoint, out, Export(push="me/mine"))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="push needs a login with the Hub: hf auth login"):
        export(checkpoint, out, Export(push="me/mine"))
    with pytest.raises(InputError, match="a new directory, or a repository to push to"):
        export(checkpoint, None)
    assert not out.exists() and not server.created


@pytest.mark.slow("fine-tunes and reads a task's generated rows: 15 s")
def test_a_fine_tuning_from_the_hub_is_found_again(server, tmp_path):
    config = jaxmlm.Finetune("cola", "sample:", epochs=1.0, limit=8, batch=8, length=16, workdir=str(tmp_path / "work"))
    [row] = jaxmlm.finetune("hf:org/tiny", config)["rows"]
    [again] = jaxmlm.finetune("hf:org/tiny", config)["rows"]
    assert again == row
    model = tmp_path / "work" / "model"
    assert "base_model: org/tiny\n" in card(load(model).about, model, "X")


def test_the_card_of_a_fine_tuned_model_has_the_spread_of_its_seeds(tmp_path):
    """Of rows with its own settings alone; a path is never said."""
    settings = json.dumps({"data": "my/own/glue", "learning_rate": 0.0005, "batch": 8, "epochs": 1.0})
    rows = [(settings, 0, 0.7), (settings, 1, 0.8), ("{}", 0, 0.1)]
    lines = [Result("finetune", "cola", seed, "f1", {"f1": score}, settings=key).to_json() for key, seed, score in rows]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = {"task": "cola", "kind": "classify", "scores": {"f1": 0.8}, "settings": settings, "base": "my/own/base"}
    text = card(about, tmp_path / "model", "X")
    assert "- f1 over 2 seeds, of which this is the best: mean 0.75 +- 0.071 (standard deviation)" in text
    assert "base, fine-tuned on cola with jaxmlm; on its dev set: f1 0.8." in text and "own" not in text
    assert "- learning rate 0.0005, batch 8, epochs 1\n" in text and "base_model" not in text
    assert 'pipeline("text-classification"' in text
