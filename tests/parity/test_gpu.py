"""benchmarks/gpu.sh at a tiny size, on whatever device is here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.parity
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def run(out: Path, minutes: str = "25", lengths: str = "128") -> subprocess.CompletedProcess[str]:
    # Without a C++ compiler, which takes a minute for each length, for steps of milliseconds.
    environment = os.environ | {"MINUTES": minutes, "LENGTHS": lengths, "TORCHDYNAMO_DISABLE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `jaxmlm` is
    command = [SCRIPT, out, "--small"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_each_part_leaves_its_result_and_a_second_call_makes_what_is_missing(tmp_path):
    for name in ("doctor.txt", "large_128.json", "base_128_no_attention_dropout.json"):
        (tmp_path / name).write_text("made before")
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [line.split(": ")[1] for line in ended.stdout.splitlines()] == ["base_128.json"]
    found = json.loads((tmp_path / "base_128.json").read_text())
    assert found["ratio"] > 0 and found["peer"]["name"].startswith("transformers")
    assert list((tmp_path / "profile_128").rglob("*.xplane.pb"))


def test_a_part_that_fails_is_named_and_the_script_ends_with_1(tmp_path):
    for name in ("doctor.txt", "base_7.json", "base_7_no_attention_dropout.json"):
        (tmp_path / name).write_text("made before")
    ended = run(tmp_path, lengths="7")
    assert ended.returncode == 1
    assert ended.stdout.startswith("gpu.sh: large_7.json: ended with 2: jaxmlm: ")
    assert not (tmp_path / "large_7.json").exists()


def test_nothing_begins_when_no_time_is_left(tmp_path):
    ended = run(tmp_path, minutes="0")
    assert ended.returncode == 0
    assert ended.stdout.count("no time is left") == ended.stdout.count("\n") == 4
    assert not list(tmp_path.iterdir())
