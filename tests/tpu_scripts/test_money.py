"""What keeps the TPU scripts from costing more than was meant: ceilings, deletion, prices, help."""

import json
import re
import time

import pytest

from tests.tpu_scripts.scenarios import JOB, ROOT, SCRIPTS, World, wait_for, wait_until


def timers(world: World) -> list[list[str]]:
    """What the workers have told systemd: the options of the timer of each."""
    return [json.loads(path.read_text())["options"] for path in sorted(world.directory.glob("workers/*/timer.json"))]


def logs(world: World) -> list[str]:
    """What the job has printed on each worker."""
    return [path.read_text() for path in world.directory.glob("buckets/data/runs/mine/logs/*.log")]


def test_a_tpu_saves_its_job_and_deletes_itself_at_its_ceiling(world):
    """With nothing of its user's that runs."""
    here = world("mounted")
    assert here.run("run", *JOB, "--steps", "600").returncode == 0
    wait_until(lambda: len(timers(here)) == 2)
    assert timers(here) == [["--unit=jaxmlm-ceiling", "--on-active=86400s"]] * 2
    wait_until(lambda: sum("can be stopped" in log for log in logs(here)) == 2)
    here.elapse()
    wait_until(lambda: here.state() == "ABSENT")
    assert [log.rstrip()[-7:] for log in logs(here)] == ["exit 75"] * 2


def test_a_worker_that_starts_again_keeps_its_ceiling(world):
    here = world("created")
    deadlines = [path.read_text() for path in sorted(here.directory.glob("workers/*/var/lib/jaxmlm/deadline"))]
    for path in here.directory.glob("workers/*/timer.json"):
        path.unlink()
    time.sleep(1)  # the clock of the deadline has seconds
    here.restart()
    wait_until(lambda: len(timers(here)) == 2)
    assert deadlines == [path.read_text() for path in sorted(here.directory.glob("workers/*/var/lib/jaxmlm/deadline"))]
    left = [int(options[1].removeprefix("--on-active=").removesuffix("s")) for options in timers(here)]
    assert all(seconds < 86400 for seconds in left)


@pytest.mark.slow("waits for tries that fail")
def test_a_worker_that_may_not_delete_the_tpu_shuts_down(world):
    here = world("created")
    assert sorted((here.directory / "shutdowns").read_text().splitlines()) == [
        "t1v-n-mlm-w-0 -P +1455", "t1v-n-mlm-w-1 -P +1455",
    ]  # fmt: skip
    here.plan({"on": "queued-resources delete", "times": 999, "do": "denied"})
    here.elapse()
    wait_until(lambda: (here.directory / "shutdowns").read_text().count("-P now") == 2)


def test_setup_refuses_a_tpu_that_would_not_end_by_itself(world):
    here = world("nothing", TYPE="v4-8", MAX_HOURS="0", CALL_LIMIT="6")
    assert here.run("create").returncode == 0 and not timers(here)
    refused = here.run("setup", "--max-hours", "24")
    assert refused.returncode == 2 and "mlm would not end by itself" in refused.stderr, refused.stderr
    accepted = here.run("setup")
    assert accepted.returncode == 0, accepted.stderr


def test_setup_refuses_a_tpu_that_may_not_delete_itself(world):
    here = world("created")
    # The first description is for this machine, the next ones are for the workers.
    here.plan({"on": "queued-resources describe", "skip": 1, "times": 999, "do": "denied"})
    refused = here.run("setup")
    assert refused.returncode == 2 and "mlm cannot delete itself: its service account needs" in refused.stderr


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_ends_in_good_order_before_the_ceiling(world):
    here = world("nothing", TYPE="v4-8", MAX_SECONDS=310)
    done = here.run("babysit", *JOB, "--steps", "10000")
    assert done.returncode == 1 and "the same command resumes it" in done.stderr, done.stderr
    assert here.state() == "ABSENT" and "mlm-w-0 -P +20" in (here.directory / "shutdowns").read_text()
    (log,) = here.directory.glob("buckets/data/runs/mine/logs/*.log")
    assert log.read_text().rstrip().endswith("exit 75")


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_counts_the_hours_of_all_tpus_and_makes_none_after_the_ceiling(world):
    here = world("nothing", TYPE="v4-8")
    run = here.directory / "buckets" / "data" / "runs" / "mine"
    with here.start("babysit", *JOB, "--steps", "10000") as sitter:
        wait_for(here, sitter, (run / "step-3").exists)
        here.preempt()
        wait_for(here, sitter, lambda: len(here.calls("queued-resources create")) == 2)
        wait_for(here, sitter, lambda: any(here.directory.glob("workers/*/jaxmlm-job/pid")))
        here.elapse()
        _, err = sitter.communicate(timeout=60)
    assert sitter.returncode == 1 and "mlm was deleted, by its ceiling or by somebody" in err, err
    asked = [re.search("max-seconds=([0-9]+)", " ".join(call)) for call in here.calls("queued-resources create")]
    first, second = [int(found[1]) for found in asked if found]
    assert first == 86400 > second and here.state() == "ABSENT"


@pytest.mark.slow("waits for processes and time-outs")
def test_babysit_keeps_the_ceiling_when_one_worker_is_done_and_another_hangs(world):
    here = world("mounted", MAX_SECONDS=310)
    done = here.run("babysit", *JOB, "--hangs-on", "1", timeout=90)
    assert done.returncode == 1 and "the same command resumes it" in done.stderr, done.stderr
    assert here.state() == "ABSENT" and sorted(log.rstrip()[-7:] for log in logs(here)) == [" exit 0", "exit 75"]


@pytest.mark.parametrize(("queued", "happens"), [("yes", "dismiss"), ("yes", "dismiss-node"), ("no", "dismiss")])
def test_babysit_makes_no_tpu_anew_that_somebody_deletes(queued, happens, world):
    """A deletion takes a while."""
    here = world("nothing", TYPE="v4-8", QUEUED=queued)
    here.plan({"on": "remote_status", "skip": 2, "do": happens})
    done = here.run("babysit", *JOB, "--calls-to-wait-for", "3")
    assert done.returncode == 1 and "mlm was deleted, by its ceiling or by somebody" in done.stderr, done.stderr
    assert here.state() == "DELETING" and len(here.calls("create mlm")) == 1


def test_babysit_asks_no_more_for_what_somebody_deletes_while_it_waits(world):
    here = world("nothing", TYPE="v4-8")
    here.plan({"on": "queued-resources describe", "skip": 3, "do": "dismiss"})
    done = here.run("babysit", *JOB)
    assert done.returncode == 1 and "create.sh: mlm is being deleted" in done.stderr, done.stderr
    assert "mlm was deleted, by its ceiling or by somebody" in done.stderr and len(here.calls("create mlm")) == 1


def test_babysit_waits_for_a_deletion_that_it_has_ordered(world):
    here = world("nothing", TYPE="v4-8")
    here.plan({"on": "remote_status", "skip": 2, "do": "preempt"}, {"verb": "delete", "on": "mlm", "do": "slow"})
    done = here.run("babysit", *JOB, "--calls-to-wait-for", "3")
    assert done.returncode == 0 and "preempted; a new mlm" in done.stderr and "failure" not in done.stderr, done.stderr
    assert here.state() == "ABSENT" and len(here.calls("create mlm")) == 2


def test_a_tpu_that_is_being_deleted(world):
    """By another machine's delete.sh, say."""
    here = world("created")
    here.plan({"on": "resources describe", "do": "dismiss"})
    made = here.run("create")
    assert made.returncode == 2 and "mlm is being deleted in us-central2-b: " in made.stderr, made.stderr
    used = here.run("setup")
    assert used.returncode == 2 and "mlm is being deleted: make it anew" in used.stderr, used.stderr
    done = here.run("delete")
    assert done.returncode == 0 and "deleted: mlm; it is not billed any more" in done.stderr, done.stderr
    gone = here.run("create", "wait")
    assert gone.returncode == 1 and "there is no mlm in us-central2-b: somebody has deleted it" in gone.stderr


OF_SOME = {
    "lines": {"logs"},
    "relaunches": {"babysit", "study"},
    "delete": {"babysit", "study"},
    "source": {"setup", "babysit", "study"},
    "wait-limit": {"create", "babysit", "study"},
    "bucket": {"data", "fetch", "babysit", "study"},
}


def test_help_lists_the_options_of_its_script_with_what_they_are(worlds, tmp_path):
    world, every = World(tmp_path / "world", worlds["nothing"].package, worlds["nothing"]), set()
    for script in SCRIPTS:
        lines = re.findall("^  --([a-z-]+) (.*)", world.run(script, "--help").stdout, re.MULTILINE)
        assert all(len(text.split()) > 2 for _, text in lines), lines
        names = {name for name, _ in lines}
        assert {name for name in OF_SOME if name in names} == {name for name in OF_SOME if script in OF_SOME[name]}
        assert len(names) < 35 and {"zone", "max-hours", "price"} <= names
        every |= names
    known = re.search('^OPTIONS="([^"]+)"', (ROOT / "tpu_scripts" / "common.sh").read_text(), re.MULTILINE)
    assert known and every == {name.lower().replace("_", "-") for name in known[1].split()} - {"max-seconds"} | {
        "config",
        "dry-run",
    }


@pytest.mark.parametrize(
    ("script", "words", "says"),
    [
        ("create", ["--type", "v4-16"], "8 chips x 1.5 = 12.00 an hour, for at most 24 h: 288.00 in all"),
        ("create", ["--type", "v6e-16"], "16 chips x 1.5 = 24.00 an hour, for at most 24 h: 576.00 in all"),
        (
            "setup",
            ["--max-hours", "2", "--slices", "2"],
            "16 chips x 1.5 = 24.00 an hour, for at most 2 h: 48.00",
        ),
        ("logs", ["--max-hours", "0"], "8 chips x 1.5 = 12.00 an hour, until it is deleted"),
        ("delete", ["--price", ""], "8 chips for at most 24 h; --price, that of one chip for one hour"),
        (
            "study",
            ["3", "x.py", "--workdir", "/gcs/x"],
            "24 chips x 1.5 = 36.00 an hour, for at most 24 h: 864.00",
        ),
    ],
)
def test_a_dry_run_says_the_price(script, words, says, world):
    done = world("nothing", PRICE="1.5").run(script, "--dry-run", *words)
    assert done.returncode == 0 and f"# price: {says}" in done.stdout, done.stdout
    assert "gcloud billing budgets create" in done.stdout


def test_babysit_begins_with_a_plan(world):
    done = world("nothing", PRICE="1.5").run("babysit", "--dry-run", *JOB)
    numbered = [line for line in done.stdout.splitlines() if re.match("# [0-9]. ", line)]
    assert done.stdout.startswith("# 1. create.sh: ask for mlm (1 x v4-16 in us-central2-b, spot)")
    assert [int(line.split()[1][0]) for line in numbered] == [1, 2, 3, 4, 5, 6]
    assert "data.sh mount: gs://data at /gcs\n" in done.stdout and "at the ceiling: delete.sh.\n" in done.stdout


@pytest.mark.parametrize("where", ["docs/tpu.md", "docs/tpu-gke.md", "tpu_scripts/config.env.example"])
def test_all_examples_are_in_one_region(where):
    """A bucket in another region than its TPU costs money for every byte that is read."""
    places = set(re.findall(r"\b(?:us|europe|asia)-[a-z]+[0-9](?:-[a-z])?\b", (ROOT / where).read_text()))
    assert places and places <= {"us-east5", "us-east5-a"}
