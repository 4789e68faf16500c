"""Every command of the TPU scripts and their pages, by the stand-in's flags and by gcloud's own argument parser."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.tpu_scripts.scenarios import ROOT, SCRIPTS


def commands(shown: str) -> list[list[str]]:
    """The commands that a dry run has printed; what stands above them are comments."""
    lines = [line for line in shown.splitlines() if not line.startswith("# ")]
    words, found = shlex.split("\n ; ".join(lines)), [[]]
    for word in words:
        if word == ";":
            found.append([])
        else:
            found[-1].append(word)
    return found


@pytest.mark.slow("starts gcloud for every command")
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="needs the Google Cloud SDK, which no package index has")
def test_the_sdk_parses_every_command(world, tmp_path):
    """gcloud ends with 2 where it cannot parse a command, and with 1 where nobody is logged in."""
    here, known = world("nothing"), {}
    scripts = [(name, *script.words) for name, script in SCRIPTS.items()]
    others = ["--capacity flex-start", "--queued no", "--slices 2", "--capacity reserved", "--max-hours 0"]
    scripts += [("create", *words.split()) for words in others] + [("data", "copy", str(tmp_path), "x")]
    for script, *words in scripts:
        known |= {shape(command): command for command in commands(here.run(script, "--dry-run", *words).stdout)}
    for page in ("tpu.md", "tpu-gke.md"):
        known |= {shape(command): command for command in written((ROOT / "docs" / page).read_text())}
    environment = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    assert len(known) > 25
    for command in known.values():
        if command[1:3] == ["auth", "login"]:  # it would ask
            continue
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=60
        )
        assert done.returncode != 2, done.stderr


def shape(command: list[str]) -> tuple[str, ...]:
    """A command without its values."""
    return tuple(word.split("=")[0] for word in command if word.startswith("--") or re.fullmatch("[a-z-]+", word))


GROUP = 'gcloud compute instance-groups managed {} mlm --project="$PROJECT" --zone="$ZONE" '


def written(page: str) -> list[list[str]]:
    """The gcloud commands that stand at the beginning of a line of a page's blocks, or behind `if` or `&&`."""
    text = "\n".join(re.findall("^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    text = re.sub(' --command="$', ' --command="what is on the next lines"', text, flags=re.MULTILINE)
    parts = [part.strip().removeprefix("if ") for line in text.splitlines() for part in re.split(" && |; ", line)]
    found = []
    for part in parts:
        if called := re.fullmatch("group ([a-z-]+)(.*)", part):  # a function of docs/tpu-gke.md
            part = GROUP.format(called[1]) + called[2]
        if part.startswith("gcloud "):
            found.append(shlex.split(part, comments=True))
    return found
