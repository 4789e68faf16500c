"""The scripts of tpu_scripts/ against a stand-in cloud. The whole table of what can happen: scenarios.py."""

import json
import os
import re
import shlex
import signal
import subprocess
import time

import pytest

from jaxmlm import config
from tests.tpu_scripts import standin
from tests.tpu_scripts.scenarios import JOB, ROOT, SCRIPTS, World, checkout, play, play_all, scenarios, wait_for
from tests.tpu_scripts.test_flags import commands

QUICK = [
    ("create", "answer lost"),
    ("create", "outage while it waits"),
    ("run", "preemption during run"),
    ("delete", "permanent failure"),
]


@pytest.mark.parametrize("happens", QUICK, ids=": ".join)
def test_a_scenario_ends_as_the_docs_say(happens, worlds, tmp_path):
    (scenario,) = (s for s in scenarios() if (s.script, s.happens) == happens)
    assert play(scenario, tmp_path / "world", worlds) == ""


@pytest.mark.slow("waits for processes and time-outs")
def test_all_other_scenarios_end_as_the_docs_say(worlds, tmp_path):
    """Six at a time. `python tests/tpu_scripts/scenarios.py` prints the table of all."""
    others = [s for s in scenarios() if (s.script, s.happens) not in QUICK]
    assert len(others) > 35
    wrong = {f"{s.script}: {s.happens}": end for s, end in zip(others, play_all(others, tmp_path, worlds), strict=True)}
    assert {name: end for name, end in wrong.items() if end} == {}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_dry_run_touch_nothing(script, worlds, tmp_path):
    """--dry-run prints commands that can be pasted: each is a call of gcloud that the cloud's own rules accept."""
    world = World(tmp_path / "world", worlds["nothing"].package, worlds["nothing"])
    shown = world.run(script, "--help")
    assert shown.returncode == 0 and shown.stdout.startswith(f"usage: {script}.sh [OPTIONS]")
    done = world.run(script, "--dry-run", *SCRIPTS[script].words)
    assert done.returncode == 0, done.stderr
    for command in commands(done.stdout):
        verb = next(verb for verb in standin.FLAGS if " ".join(command).startswith(f"gcloud {verb} "))
        flags = {word.split("=")[0] for word in command if word.startswith("--")}
        assert flags <= standin.FLAGS[verb] | standin.ANYWHERE, command
    assert "# price: " in done.stdout and "# budget alert" in done.stdout and done.stdout.count("# price: ") == 1
    assert not world.calls() and not list((world.directory / "here").iterdir())


@pytest.mark.parametrize(
    ("queued", "request_", "node", "then", "is_"),
    [
        ("yes", "", "", "", "ABSENT"),
        ("yes", "WAITING_FOR_RESOURCES", "", "", "WAITING"),
        ("yes", "ACTIVE", "READY", "", "READY"),
        ("yes", "FAILED", "", "", "FAILED"),
        ("yes", "SUSPENDING SERVICE", "", "", "PREEMPTED"),
        ("yes", "SUSPENDED", "", "", "PREEMPTED"),
        ("yes", "SUSPENDED USER", "", "", "DELETING"),
        ("yes", "DELETING", "", "", "DELETING"),
        ("yes", "ACTIVE", "DELETING", "ACTIVE", "DELETING"),
        ("yes", "ACTIVE", "DELETING", "", "DELETING"),
        ("yes", "ACTIVE", "DELETING", "SUSPENDING SERVICE", "PREEMPTED"),
        ("no", "", "DELETING", "", "DELETING"),
        ("no", "", "PREEMPTED", "", "PREEMPTED"),
        ("no", "", "STOPPED", "", "FAILED"),
    ],
)
def test_the_state_of_a_tpu(queued, request_, node, then, is_, world):
    """By what the cloud says of the request, of the TPU, and of the request if it is asked again."""
    here = world("nothing", QUEUED=queued)
    answers = [request_.replace(" ", "\t"), then.replace(" ", "\t")]
    (here.directory / "bin" / "gcloud").unlink()
    standin.program(
        here.directory / "bin" / "gcloud",
        f'''
case "$*" in
  *queued*) if [ -e asked ]; then said='{answers[1]}'; else touch asked; said='{answers[0]}'; fi ;;
  *) said='{node}' ;;
esac
[ -n "$said" ] || {{ echo NOT_FOUND >&2; exit 1; }}
echo "$said"''',
    )
    command = f"source {here.package}/tpu_scripts/common.sh; options '' --config {here.directory}/config.env; state_of"
    done = subprocess.run(
        ["bash", "-c", command], cwd=here.directory, env=here.environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{is_}\n"), done.stderr


def test_setup_refuses_changes_that_are_in_no_commit(world, tmp_path):
    here = world("created")
    here.package = checkout(tmp_path / "changed")
    (here.package / "tpu_scripts" / "run.sh").write_text("changed")
    done = here.run("setup")
    assert done.returncode == 2 and "has changes that are in none: commit or stash them" in done.stderr


def test_words_reach_the_workers_as_they_are(world):
    """Spaces, quotes, dollars and stars in flags and paths."""
    here = world("mounted")
    words = ["--title", 'it\'s "40 %" of $HOME; * \\ `x`', "--workdir", "/gcs/a b's"]
    assert here.run("run", "pretrain", "configs/my own.py", *words).returncode == 0
    until = time.monotonic() + 60
    while not (here.directory / "buckets" / "data" / "a b's" / "DONE").exists():
        assert time.monotonic() < until, here.run("logs").stdout
        time.sleep(0.05)
    log = here.run("logs").stdout
    assert f"jaxmlm pretrain configs/my own.py {words[0]} {words[1]} --workdir" in log
    done = here.run("fetch", "/gcs/a b's", "to here")
    assert done.returncode == 0 and (here.directory / "here" / "to here" / "DONE").exists()


def test_a_bucket_that_is_mounted_stays_so(world):
    """As babysit.sh has it before each launch; root cannot look into a user's mount."""
    done = world("mounted").run("data", "mount")
    assert done.returncode == 0 and done.stdout.count("gs://data is mounted") == 2, done.stderr


def test_a_store_is_copied_whole_to_every_worker_and_back(world, tmp_path):
    """Through a broken connection: scp puts a directory that is there into itself, not over it."""
    here, store = world("created"), tmp_path / "my store"
    store.mkdir()
    (store / "train-00000.bin").write_bytes(os.urandom(5000))
    here.plan({"on": "scp", "times": 1, "do": "broken"}, {"on": "scp fetched.part", "times": 1, "do": "broken"})
    for _ in range(2):  # again over the first
        done = here.run("data", "copy", str(store), "the store")
        assert done.returncode == 0, done.stderr
    copies = list(here.directory.glob("workers/*/the store/train-00000.bin"))
    assert len(copies) == 2 and all(c.read_bytes() == (store / "train-00000.bin").read_bytes() for c in copies)
    done = here.run("fetch", "the store", "a/fetched")
    assert done.returncode == 0 and "a/fetched: 1 files" in done.stderr and "Connection closed" in done.stderr
    fetched = [path.relative_to(here.directory / "here") for path in here.directory.glob("here/a/**/*")]
    assert sorted(map(str, fetched)) == ["a/fetched", "a/fetched/train-00000.bin"]


def test_two_slices_are_one_request_and_both_run(world):
    here = world("nothing", SLICES=2)
    for script in (["create"], ["setup"], ["data", "mount"], ["run", *JOB]):
        done = here.run(*script)
        assert done.returncode == 0, done.stderr
    assert len(here.calls("create mlm", "--node-count=2", "--node-prefix=mlm")) == 1
    assert {path.name for path in here.directory.glob("workers/*/jaxmlm-job")} == {"jaxmlm-job"}
    assert len(list(here.directory.glob("workers/t1v-n-mlm-[01]-w-[01]/jaxmlm-job/pid"))) == 4
    assert here.run("delete").returncode == 0 and not here.cloud["tpus"]


def test_one_job_at_a_time_and_none_that_is_left_alone(world):
    here = world("mounted")
    long = [*JOB, "--steps", "600"]
    assert here.run("run", *long).returncode == 0
    again = here.run("run", *long)
    assert again.returncode == 0 and "runs already" in again.stdout
    other = here.run("run", *JOB)
    assert other.returncode == 2 and "runs another job: jaxmlm pretrain" in other.stderr
    stopped = here.run("run", "stop")
    assert stopped.stdout.count("stopped, exit 75") == 2


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_goes_on_after_75_and_gives_up_on_what_is_wrong(world):
    here = world("mounted")
    with here.start("babysit", *JOB, "--steps", "80") as sitter:
        while not list(here.directory.glob("buckets/data/runs/mine/step-3")):
            time.sleep(0.05)
        here.run("run", "stop")
        out, err = sitter.communicate(timeout=60)
    assert sitter.returncode == 0 and "it is resumed" in err and err.count("launch") == 2, err
    wrong = here.run("babysit", *JOB, "--code", "2")
    assert wrong.returncode == 2 and "exit 2" in wrong.stdout and "STILL BILLED" in wrong.stderr
    broken = here.run("babysit", *JOB, "--code", "1")
    assert broken.returncode == 1 and "failure 3 of at most 3" in broken.stderr and here.state() == "ABSENT"


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_mounts_the_bucket_again_after_a_restart(world):
    """One worker alone would else begin anew on its own disk."""
    here = world("nothing", TYPE="v4-8", DELETE="no")
    run = here.directory / "buckets" / "data" / "runs" / "mine"
    with here.start("babysit", *JOB, "--steps", "80") as sitter:
        wait_for(here, sitter, (run / "step-3").exists)
        here.restart()
        _, err = sitter.communicate(timeout=60)
    assert sitter.returncode == 0 and "its worker restarted" in err and (run / "DONE").exists(), err
    here.restart()
    refused = here.run("run", *JOB)
    assert refused.returncode == 2 and "own disk: mount the bucket" in refused.stderr, refused.stderr


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_goes_on_through_an_outage(world):
    """No answer from the cloud, for longer than a call is tried again, is no failure of the job."""
    here = world("mounted")
    with here.start("babysit", *JOB, "--steps", "40") as sitter:
        wait_for(here, sitter, (here.directory / "buckets" / "data" / "runs" / "mine" / "step-3").exists)
        here.plan({"on": "compute", "times": 999, "do": "unavailable"})
        before = len(here.calls())
        wait_for(here, sitter, lambda: len(here.calls()) > before + 20)
        here.plan()
        _, err = sitter.communicate(timeout=60)
    assert sitter.returncode == 0 and err.count("launch") == 1, err
    assert "cannot see mlm: ERROR: (gcloud) UNAVAILABLE" in err and "failure" not in err, err


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_forgets_failures_that_are_long_ago(world):
    here = world("mounted", STEADY=0)
    done = here.run("babysit", *JOB, "--steps", "34", "--fails-every", "10")
    assert done.returncode == 0 and done.stderr.count("of at most 3") == 3, done.stderr


@pytest.mark.slow("pre-trains twice, in two processes")
def test_a_real_pretraining_through_a_preemption(tmp_path):
    """From nothing to a fetched, deleted run: jaxmlm itself, two workers that are one run, a preemption."""
    package, mount = checkout(tmp_path / "checkout", real=True), str(tmp_path / "gcs")
    world = World(tmp_path / "world", package, DELETE="yes", MOUNT=mount)
    world.environment |= {
        "STANDIN_JOB": str(os.getpid()), "JAX_NUM_CPU_DEVICES": "1", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
    }  # fmt: skip
    tiny = "--data.text sample:400 --data.length 32 --model.layers 1 --model.width 16 --loop.steps 300 --loop.batch 4"
    job = ["pretrain", "configs/quickstart_run.py", "--workdir", f"{mount}/runs/tiny", *tiny.split()]
    try:
        with world.start("babysit", *job, "--loop.save_every", "20") as sitter:
            until = time.monotonic() + 300
            while not list(world.directory.glob("buckets/data/runs/tiny/checkpoints/[0-9]*")):
                assert time.monotonic() < until and sitter.poll() is None, sitter.communicate()
                time.sleep(0.05)
            world.preempt()
            _, err = sitter.communicate(timeout=300)
        assert sitter.returncode == 0 and "preempted; a new mlm" in err and world.state() == "ABSENT", err
        assert world.run("fetch", f"{mount}/runs/tiny", "tiny").stderr.endswith(", a finished run\n")
    finally:
        world.close()
    run = world.directory / "here" / "tiny"
    about = json.loads((run / "run.json").read_text())
    commit = subprocess.run(["git", "-C", package, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert (run / "DONE").exists() and about["git"] and commit.startswith(about["git"])
    assert [path.name for path in sorted((run / "logs").iterdir())] == ["t1v-n-mlm-w-0.log", "t1v-n-mlm-w-1.log"]


@pytest.mark.parametrize(("script", "words"), [("babysit", JOB), ("study", SCRIPTS["study"].words)])
def test_an_interrupt_says_what_is_billed(script, words, world):
    here = world("nothing")
    here.plan({"on": "remote_status", "times": 999, "do": "hang"})
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background ignores it
    with here.start(script, *words, start_new_session=True) as started:
        signal.signal(signal.SIGINT, usual)
        until = time.monotonic() + 60
        while not here.calls("remote_status"):
            assert time.monotonic() < until and started.poll() is None
            time.sleep(0.05)
        os.killpg(started.pid, signal.SIGINT)
        _, err = started.communicate(timeout=60)
    assert started.returncode != 0 and "STILL BILLED: mlm" in err and "delete it: " in err


@pytest.mark.slow("waits for processes and time-outs")
@pytest.mark.parametrize(("end", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)])
def test_no_babysitter_outlives_its_study(end, number, world):
    """It would make anew the TPU that its user deletes."""
    here = world("nothing")
    here.plan({"on": "remote_status mlm-2", "times": 999, "do": "hang"})
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background ignores it
    with here.start("study", *SCRIPTS["study"].words, start_new_session=True) as started:
        signal.signal(signal.SIGINT, usual)
        until = time.monotonic() + 60
        while not here.calls("remote_status", "mlm-2"):
            assert time.monotonic() < until and started.poll() is None
            time.sleep(0.05)
        end(started.pid, number)
        _, err = started.communicate(timeout=60)
    alive = subprocess.run(["pgrep", "-f", f"babysit.sh --config {here.directory}/"], capture_output=True, text=True)
    assert started.returncode == 128 + number and alive.stdout == "", err
    assert re.search("STILL BILLED: mlm-1 .READY.*\n.*STILL BILLED: mlm-2 .READY.; delete it: ", err), err


@pytest.mark.parametrize("where", ["docs/tpu.md", "tpu_scripts/study.sh"])
def test_the_pod_study_that_is_written_there_reads_no_sample(where):
    text = (ROOT / where).read_text().replace("\n# ", "\n").replace("\\\n", " ")
    words = shlex.split(next(line for line in text.splitlines() if "study.sh" in line and "rates.py" in line))
    at = words.index("configs/paper/rates.py")
    study = config.load(ROOT / words[at], words[at + 1 :])
    reads = [study.run.data.text, study.zero_shot.blimp, *(tune.data for tune in study.finetune)]
    assert not [name for name in reads if name.startswith("sample:")]


def test_the_page_names_every_script():
    page = (ROOT / "docs" / "tpu.md").read_text()
    assert all(f"{script}.sh" in page for script in SCRIPTS)
