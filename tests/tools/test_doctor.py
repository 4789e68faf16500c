"""What the doctor says of this machine, and of machines that are ill in known ways."""

import fcntl
import gc
import importlib.metadata
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from jaxmlm import cli
from jaxmlm.errors import InputError
from jaxmlm.runs.run import Run
from jaxmlm.tools import doctor
from jaxmlm.tools.doctor import Doctor, Finding, look


def test_this_machine_is_well(tmp_path, capsys):
    assert cli.main(["doctor", "--workdir", str(tmp_path), "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    found = {one["what"]: one for one in json.loads(last)["findings"]}
    assert found["versions"]["level"] in ("ok", "note") and "jax" in found["versions"]["found"]
    assert found["devices"]["found"].endswith("cpu (cpu)") and found["devices"]["level"] == "note"
    assert str(tmp_path) in found["disk"]["found"] and len(lines) == len(json.loads(last)["findings"])


def test_what_would_stop_a_run_exits_1(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["doctor", "--workdir", str(tmp_path / "file" / "x")]) == 1
    assert "STOP  disk" in capsys.readouterr().out
    assert cli.main(["doctor", "--workdir", str(tmp_path), "--require", "tpu"]) == 1
    said = capsys.readouterr().out
    assert "STOP  devices" in said and "no tpu, but --require asks for one" in said


def test_a_wrong_option_is_one_line(capsys):
    assert cli.main(["doctor", "--workdri", "x"]) == 2
    assert capsys.readouterr().err == "jaxmlm: unknown option --workdri; did you mean --workdir?\n"


@pytest.mark.parametrize(
    ("have", "level", "part"),
    [
        ({"python": "3.11", "jax": "0.10.2", "flax": "0.12.8"}, "ok", ""),
        ({"python": "3.13", "jax": "0.12.0.1", "flax": "0.12.12"}, "ok", ""),
        ({"python": "3.12", "jax": "0.10.2", "flax": "0.12.8"}, "note", "tested are Python 3.11"),
        ({"python": "3.13", "jax": "0.12.0", "flax": "0.12.8"}, "note", "Python 3.13 with jax 0.12.0 and flax 0.12.12"),
    ],
)
def test_versions_are_held_against_the_tested_pairs(have, level, part):
    finding = doctor.versions(have)
    assert finding.level == level and part in finding.do


@pytest.mark.parametrize(
    ("have", "says"),
    [
        ({"libtpu": "0.0.42.1"}, None),
        ({"libtpu": "0.0.42"}, None),
        ({}, None),
        (
            {"libtpu": "0.0.47"},
            "libtpu 0.0.47 does not go with jax 0.10.2, which wants ==0.0.42.*: pip install 'libtpu==",
        ),
        ({"libtpu": "0.0.420"}, "libtpu 0.0.420 does not go"),
        ({"jax-rocm7-plugin": "0.10.1"}, "wants ==0.10.2.*: pip install 'jax-rocm7-plugin==0.10.2.*'"),
        ({"jaxlib": "0.10.1", "flax": "0.12.12"}, None),
        ({"jaxlib": "0.10.0"}, "which wants <0.10.3,>=0.10.1: pip install 'jaxlib<0.10.3,>=0.10.1'"),
        ({"jaxlib": "0.11.0"}, "which wants <0.10.3,>=0.10.1"),
        ({"flax": "0.12.7"}, "which wants >=0.12.8: pip install 'flax>=0.12.8'"),
    ],
)
@pytest.mark.parametrize("there", ["tpu", None])
def test_what_does_not_go_with_this_jax_is_named(have, says, there, monkeypatch):
    monkeypatch.setattr(doctor, "accelerator", lambda: there)
    wanted = ['libtpu==0.0.42.*; extra == "tpu"', 'jax-rocm7-plugin==0.10.2.*; extra == "rocm7-local"', "numpy>=2.0"]
    found = list(doctor.pairs("0.10.2", have, wanted))
    assert len(found) == (says is not None)
    for one in found:
        libtpu_that_nobody_needs = there is None and one.found.startswith("libtpu")
        assert says in f"{one.found}: {one.do}" and one.level == ("note" if libtpu_that_nobody_needs else "stop")


def test_what_is_installed_here_goes_together():
    assert list(doctor.pairs(importlib.metadata.version("jax"))) == []


def test_a_plan_names_a_pair_that_does_not_go_together(monkeypatch):
    from jaxmlm.tools import plan

    wrong = Finding("stop", "versions", "libtpu 9 does not go with jax 0, which wants 1.*", "pip install it")
    monkeypatch.setattr(plan, "pairs", lambda jax: iter([wrong]))
    with pytest.raises(InputError, match=r"libtpu 9 does not go with jax 0, which wants 1\.\*: pip install it"):
        plan.plan(Run(), plan.Plan())


def test_no_extra_brings_a_libtpu_that_jax_did_not_choose():
    """pip takes the newest of what a requirement leaves open, and that need not compile what this JAX lowers."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert not [one for one in asked if re.match("libtpu|jaxlib|jax-", one)]
    assert all("jax[tpu]" in " ".join(project["optional-dependencies"][extra]) for extra in ("tpu", "parity"))


def test_a_lock_that_another_process_holds_is_found(tmp_path):
    path = tmp_path / "lock"
    assert list(doctor.lock(path)) == []
    path.touch()
    with open(path) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (finding,) = doctor.lock(path)
    assert finding.level == "stop" and "another process holds" in finding.found and "end it" in finding.do
    assert [one.level for one in doctor.lock(path)] in ([], ["ok"])


@pytest.mark.parametrize(("there", "part"), [("tpu", "and no tpu, but this machine has one"), ("gpu", "and no gpu")])
def test_a_fall_back_to_the_cpu_is_found(there, part, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    finding = next(doctor.devices(None, there))
    assert finding.level == "stop" and part in finding.found and "unset JAX_PLATFORMS" in finding.do


def test_a_missing_host_is_a_finding_and_no_device_is_touched(tmp_path):
    options = Doctor(coordinator="localhost:1", processes=2, process=1, wait=0.1, workdir=str(tmp_path))
    found = list(look(options))
    assert [one.what for one in found if one.level == "stop"] == ["hosts"]
    assert "does not answer" in next(one for one in found if one.what == "hosts").found
    assert "devices" not in [one.what for one in found]


def test_a_bucket_is_to_be_mounted_and_needs_its_library():
    (finding,) = doctor.disk("gs://mine/runs")
    assert finding == Finding(
        "stop", "disk", "--workdir gs://mine/runs is not a directory", "mount it: gcsfuse mine DIRECTORY"
    )
    assert doctor.bucket("mine").do == "write gs:// before it"


def test_a_full_disk_is_found(monkeypatch, tmp_path):
    usage = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    (finding,) = doctor.disk(str(Path(tmp_path) / "new"))
    assert finding.level == "stop" and "0.0 GiB free" in finding.found


# A damaged read of Orbax ends while its other reads are under way; they complain that its event loop is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_run_holds_is_verified(checkpoint, tmp_path, capsys):
    """A run as it was written is well; with one bit of a checkpoint, of its store or of a record changed it is not."""
    run = Path(shutil.copytree(checkpoint, tmp_path / "run"))
    assert cli.main(["doctor", "--workdir", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"files and checkpoints in {run} are as they were written" in said
    largest = max((run / "checkpoints").glob("*/model/d/*"), key=lambda file: file.stat().st_size)
    for file in (largest, next((run / "store").glob("*.bin")), run / "run.json", run / "log.jsonl"):
        before = file.read_bytes()
        damaged = bytearray(before)
        damaged[len(before) // 2] ^= 0x80
        file.write_bytes(damaged)
        assert cli.main(["doctor", "--workdir", str(run)]) == 1, file
        assert "STOP  contents" in capsys.readouterr().out
        file.write_bytes(before)
    assert cli.main(["doctor", "--workdir", str(run)]) == 0
    gc.collect()  # they complain when they are collected: here
