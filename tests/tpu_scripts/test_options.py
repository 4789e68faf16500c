"""What the scripts are given: options, config.env, words, a login; and what they say where that is wrong."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tests.tpu_scripts.scenarios import JOB, ROOT


@pytest.mark.parametrize(
    ("stage", "script", "words", "says"),
    [
        ("nothing", "create", ["--zone", "mars-a"], "unknown zone 'mars-a'; known: us-central2-b us-west4-a"),
        ("nothing", "create", ["--type", "v4-9"], "unknown type 'v4-9'; known: v4-8 v4-16 v4-32"),
        ("nothing", "create", ["--type", "tpu7x-8"], "type 'tpu7x-8': known are .*docs/tpu-gke.md"),
        ("nothing", "create", ["--capacity", "free"], "capacity 'free': give --capacity spot, reserved, on-demand or"),
        ("nothing", "create", ["--capacity", "flex-start", "--queued", "no"], "flex-start needs --queued yes"),
        (
            "nothing",
            "create",
            ["--capacity", "flex-start", "--max-hours", "200"],
            "flex-start lasts for 1 to 168 hours",
        ),
        (
            "nothing",
            "create",
            ["--max-hours", "soon"],
            "max-hours 'soon': give --max-hours a whole number from 0 .*0: never",
        ),
        ("nothing", "create", ["--price", "$2"], "price '.2': give --price a number, as 1.35"),
        ("nothing", "babysit", ["--delete", "maybe", *JOB], "delete 'maybe': give --delete yes or --delete no"),
        (
            "nothing",
            "babysit",
            ["--capacity", "on-demand", "pretrain", "x.py", "--workdir", "/disk/x"],
            "/disk/x is on the workers' own disks, which go with the TPU",
        ),
        ("nothing", "create", ["--nmae", "x"], "unknown option --nmae; create.sh --help lists the options"),
        ("nothing", "create", ["--name", "A b"], "name 'A b': give --name with lower-case letters"),
        ("nothing", "create", ["--project", ""], "no project: give --project"),
        ("nothing", "create", ["--slices", "2", "--queued", "no"], "2 slices need --queued yes"),
        ("created", "create", [], "mlm exists in us-central2-b .READY.: continue with setup.sh, .*delete.sh"),
        ("nothing", "setup", [], "there is no TPU mlm in us-central2-b: make it with create.sh --name mlm"),
        ("created", "setup", ["--source", "https://example.com/x.git"], "without --commit: give the commit"),
        ("set up", "data", ["--bucket", "not-mine", "mount"], "no rights to bucket gs://not-mine, or no such bucket"),
        (
            "set up",
            "data",
            ["--bucket", "locked", "mount"],
            "workers may not write to bucket gs://locked: give",
        ),
        ("set up", "data", ["copy", "no/such", "x"], "no directory no/such on this machine"),
        ("mounted", "run", ["pretrain", "x.py"], "no --workdir in 'pretrain x.py': give a directory in the bucket"),
        ("mounted", "run", ["pretrain", "x.py", "--workdir", "runs/x"], "runs/x is relative to a worker's disk: give"),
        ("set up", "run", list(JOB), "/gcs/runs/mine is on a worker's own disk: mount the bucket"),
        ("nothing", "babysit", ["pretrain", "x.py", "--workdir", "/disk/x"], "a preemption would delete /disk/x"),
        ("mounted", "fetch", ["/gcs/no/such", "here"], "cannot read gs://data/no/such"),
        (
            "nothing",
            "study",
            ["many", "x.py"],
            "how many slices. write: study.sh K CONFIG",
        ),
    ],
)
def test_bad_input_is_one_line_and_2(stage, script, words, says, world):
    here = world(stage)
    (here.directory / "buckets" / "locked").symlink_to("/proc/self")  # where not even root may write
    before = here.state()
    done = here.run(script, *words)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and re.search(says, lines[0]), done.stderr
    assert here.state() == before and not list((here.directory / "here").iterdir())


def test_every_number_is_whole_and_decimal(world):
    """To Bash 010 is 8, 08 an error after which it continues, and 2^64 is 0: no ceiling."""
    here, common = world("nothing"), (ROOT / "tpu_scripts" / "common.sh").read_text()
    known = set(re.search('^OPTIONS="([^"]+)"', common, re.MULTILINE)[1].split())
    names = {"MAX_SECONDS"} | known & set(re.findall("^([A-Z_]+)=[0-9]+ ", common, re.MULTILINE))
    assert {"MAX_HOURS", "WAIT_LIMIT", "CLOSE", "POLL", "TRIES", "STEADY", "LINES"} < names
    for name in sorted(names):
        flag = name.lower().replace("_", "-")
        for value in ("08", "1h", "-3", "18446744073709551616", *([] if name == "MAX_SECONDS" else [""])):
            done = here.run("create", "--dry-run", f"--{flag}", value)
            assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1, (flag, done)
            assert done.stderr.startswith(f"create.sh: {flag} '{value}': give --{flag} a whole number from "), (
                done.stderr
            )


def test_the_height_of_a_terminal_is_no_option(world):
    """Bash writes it into LINES."""
    here, (ours, theirs) = world("nothing"), pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    command = [here.package / "tpu_scripts" / "logs.sh", "--config", here.directory / "config.env", "--dry-run"]
    done = subprocess.run([*command, "--lines", "7"], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(ours)
    os.close(theirs)
    assert "remote_logs 7" in done.stdout


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_config_of_another_system_is_read(end, mark, world):
    """As Notepad saves it, and with quotes, comments and blank lines."""
    here = world("nothing")
    lines = [
        "# mine",
        "",
        "PROJECT='my demo'",
        "ZONE=us-west4-a   # near",
        'NAME="mlm"',
        "TYPE=v4-8",
        "BUCKET=$NAME-data",
    ]
    (here.directory / "config.env").write_bytes((mark + end.join(lines) + end).encode())
    done = here.run("create", "--dry-run")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "--project='my demo' --zone=us-west4-a" in done.stdout.replace("'--project=my demo'", "--project='my demo'")
    assert "\r" not in done.stdout and "--accelerator-type=v4-8" in done.stdout


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ZONE = us-west4-a", r"config.env, line 2: ZONE: command not found: write NAME=VALUE, without spaces"),
        ("ZONE= us-west4-a", r"config.env, line 2: us-west4-a: command not found: write NAME=VALUE"),
        ("MOUNT=/my gcs", r"config.env, line 2: gcs: command not found: .*a VALUE with spaces in quotes"),
        ("ZONE='us-west4-a", r"config.env, line 2: unexpected EOF"),
    ],
)
def test_a_line_that_is_wrong_is_told(line, says, world):
    here = world("nothing")
    (here.directory / "config.env").write_text(f"PROJECT=demo\n{line}\nNAME=mlm\n")
    done = here.run("create", "--dry-run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(says, done.stderr), done.stderr


def test_no_gcloud_and_no_login(world):
    here = world("nothing")
    (here.directory / "logged-out").touch()
    done = here.run("create")
    assert (done.returncode, done.stderr) == (2, "create.sh: no account is logged in: run gcloud auth login\n")
    for name in ["bash", "basename", "dirname", "env", "mktemp", "rm"]:
        (here.directory / "bin" / name).symlink_to(
            f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
        )
    (here.directory / "bin" / "gcloud").unlink()
    here.environment["PATH"] = str(here.directory / "bin")
    done = here.run("create")
    assert done.returncode == 2 and done.stderr.startswith("create.sh: no gcloud on the PATH: install")
