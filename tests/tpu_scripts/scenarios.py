"""Every script of tpu_scripts/ against the stand-in cloud: what goes wrong, and how it must end (docs/tpu.md).

`python tests/tpu_scripts/scenarios.py` prints the table.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
STANDIN = Path(__file__).parent / "standin.py"

WORKER_BIN = ["gcloud", "uv", "sudo", "gcsfuse", "mountpoint", "curl", "systemd-run", "shutdown"]
TOY = """\
import json, os, pathlib, signal, sys, time
if "--version" in sys.argv:
    sys.exit(print("jaxmlm 0.1.0"))
words = dict(zip(sys.argv, sys.argv[1:]))
if "--code" in words:
    sys.exit(int(words["--code"]))
fails = int(words.get("--fails-every", 0))
directory = pathlib.Path(words["--workdir"])
directory.mkdir(parents=True, exist_ok=True)
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("can be stopped", flush=True)
def met(): # what goes wrong has had its calls; on a slow machine the job would end before
    seen = json.loads(pathlib.Path(os.environ["STANDIN"], "state.json").read_text())["seen"]
    return seen.get("0", 0) >= int(words.get("--calls-to-wait-for", 0))
for step in range(len(list(directory.glob("step-*"))), int(words.get("--steps", 3))):
    time.sleep(0.1)
    while not told and not (met() and os.environ["HOSTNAME"][-1] != words.get("--hangs-on")):
        time.sleep(0.1)
    (directory / f"step-{step}").touch()
    if told:
        sys.exit(75)
    if fails and (step + 1) % fails == 0:
        sys.exit(1)
(directory / ("DONE" + words.get("--cells", "").replace("/", "-"))).touch()
"""
"""A program with jaxmlm's manners and none of its weight: steps, exit codes, a directory that it resumes from."""


def checkout(directory: Path, real: bool = False) -> Path:
    """A git checkout with the scripts and jaxmlm, or the toy in its place."""
    parts = ["tpu_scripts", *(["jaxmlm", "configs", "pyproject.toml"] if real else [])]
    for part in parts:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__", "config.env"))
        else:
            shutil.copy(ROOT / part, directory / part)
    if not real:
        (directory / "jaxmlm").mkdir()
        (directory / "jaxmlm" / "__init__.py").touch()
        (directory / "jaxmlm" / "__main__.py").write_text(TOY)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-C", str(directory)]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "test"]):
        subprocess.run([*git, *words], check=True)
    return directory


class World:
    """A stand-in cloud in a directory, and this machine's scripts in a checkout."""

    def __init__(self, directory: Path, package: Path, like: "World | None" = None, **config: Any) -> None:
        self.directory, self.package = directory, package
        self.environment = {
            "PATH": f"{directory}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": str(directory / "here"), "LANG": "C.UTF-8",
            "STANDIN": str(directory), "STANDIN_PYTHON": sys.executable, "STANDIN_GRACE": "5", "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        if like:
            shutil.copytree(like.directory, directory, symlinks=True)
            for path in [
                *directory.glob("workers/*/timer.json"),
                *directory.glob("workers/*/var/lib/jaxmlm/ceiling.sh"),
            ]:
                path.write_text(path.read_text().replace(str(like.directory), str(directory)))
            return
        (directory / "here").mkdir(parents=True)
        (directory / "buckets" / "data").mkdir(parents=True)
        for where, names in {"bin": ["gcloud"], "worker-bin": WORKER_BIN}.items():
            (directory / where).mkdir()
            for name in names:
                (directory / where / name).symlink_to(STANDIN)
        usual = {
            "PROJECT": "demo", "ZONE": "us-central2-b", "NAME": "mlm", "TYPE": "v4-16", "BUCKET": "data", "REQUIRE": "",
            "PAUSE": 0, "POLL": 0, "CALL_LIMIT": 120, "SETUP_LIMIT": 120, "COPY_LIMIT": 120, "STOP_LIMIT": 60,
        }  # fmt: skip
        lines = [f"{name}='{value}'\n" for name, value in (usual | config).items()]
        (directory / "config.env").write_text("".join(lines))

    def start(self, script: str, *words: str, **more: Any) -> subprocess.Popen:
        """A script, as its user starts it, with the options of this world."""
        command = [self.package / "tpu_scripts" / f"{script}.sh", "--config", self.directory / "config.env", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self.directory / "here", env=self.environment, text=True, **pipes, **more)

    def run(self, script: str, *words: str, timeout: float = 400) -> subprocess.CompletedProcess:
        """A script from its start to its end."""
        with self.start(script, *words, start_new_session=True) as started:
            try:
                out, err = started.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, 9)
                raise
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def plan(self, *faults: dict[str, Any]) -> None:
        """What goes wrong from now on."""
        (self.directory / "plan.json").write_text(json.dumps(faults))

    @property
    def cloud(self) -> dict[str, Any]:
        """What there is in the cloud, and how often something was asked for that was there already."""
        path = self.directory / "state.json"
        return json.loads(path.read_text()) if path.exists() else {"requests": {}, "tpus": {}, "again": 0}

    def state(self, name: str = "mlm") -> str:
        """What the cloud has under a name, and so bills."""
        request, tpu = self.cloud["requests"].get(name), self.cloud["tpus"].get(name)
        return tpu["state"] if tpu else request["state"] if request else "ABSENT"

    def calls(self, *words: str) -> list[list[str]]:
        """The calls of gcloud that have all these words."""
        path = self.directory / "calls.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if all(word in " ".join(line) for word in words)]

    def preempt(self, name: str = "mlm") -> None:
        """The cloud takes a TPU away."""
        subprocess.run([STANDIN, "preempt", name], env=self.environment, check=True)

    def restart(self, name: str = "mlm") -> None:
        """The workers of a TPU boot again."""
        subprocess.run([STANDIN, "restart", name], env=self.environment, check=True)

    def elapse(self, name: str = "mlm") -> None:
        """A TPU comes to its ceiling."""
        subprocess.run([STANDIN, "elapse", name], env=self.environment, check=True)

    def close(self) -> None:
        """End what still runs on the workers."""
        for name in [
            path.name.removeprefix("t1v-n-").rpartition("-w-")[0] for path in self.directory.glob("workers/*")
        ]:
            subprocess.run([STANDIN, "preempt", name], env=self.environment | {"STANDIN_GRACE": "0"})


def wait_until(there, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for(world: World, sitter: subprocess.Popen, there) -> None:
    until = time.monotonic() + 240
    while not there():
        assert time.monotonic() < until and sitter.poll() is None, sitter.communicate()
        time.sleep(0.05)


BILLED = "(?<!PERHAPS )STILL BILLED: mlm.*; delete it: .*delete.sh .*--name mlm"


class Scenario(NamedTuple):
    """A script, what happens to it, and how it ends: its exit code, what it says, what is billed afterwards."""

    script: str
    happens: str
    fault: dict[str, Any]
    code: int
    says: str
    leaves: str
    more: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The script's words; where there is no answer, with less patience."""
        hurry = ["--call-limit", "8", "--setup-limit", "8", "--copy-limit", "8"]
        return [*(hurry if self.fault.get("do") in ("hang", "lost") else []), *SCRIPTS[self.script].words, *self.more]


class Script(NamedTuple):
    """A script: its words, the stage it starts from, its main call, what it says at the end, what is billed then."""

    words: tuple[str, ...]
    before: str
    call: str
    says: str
    leaves: str = "READY"
    denied: tuple[int, str] = (1, f"PERMISSION_DENIED.*{BILLED}")
    """The exit code and what it says when its main call is denied."""


JOB = ("pretrain", "configs/x.py", "--workdir", "/gcs/runs/mine")
STUDY = ("2", "configs/x.py", "--workdir", "/gcs/studies/mine")
STAGES = {
    "nothing": (),
    "created": ("create",),
    "set up": ("setup",),
    "mounted": ("data", "mount"),
    "run": ("run", *JOB),
}
"""How far a user has come: each stage and the script that leads to it from the one before."""
DENIED = "PERMISSION_DENIED"
SCRIPTS = {
    "create": Script(
        (), "nothing", "queued-resources create", "billed from now on: mlm", "READY",
        (1, f"cannot make mlm: .*{DENIED}.*nothing is billed"),
    ),
    "setup": Script((), "created", "ssh remote_setup", "every worker has commit"),
    "data": Script(("mount",), "set up", "ssh remote_mount", "gs://data is mounted"),
    "run": Script(JOB, "mounted", "ssh remote_start", "started on every worker"),
    "logs": Script((), "run", "ssh remote_logs", "t1v-n-mlm-w-1: "),
    "babysit": Script(
        JOB, "nothing", "ssh remote_status", "done: jaxmlm pretrain.*deleted: mlm", "ABSENT",
        (1, f"{DENIED}.*failure 3 of at most 3.*deleted: mlm"),
    ),
    "fetch": Script(
        ("/gcs/runs/mine", "mine"), "run", "storage rsync", "mine: .*a finished run", "READY",
        (2, "cannot read gs://data/runs/mine .*gcloud storage ls"),
    ),
    "delete": Script(
        (), "created", "queued-resources delete", "not billed any more", "ABSENT",
        (1, f"cannot delete mlm: .*{DENIED}.*{BILLED}"),
    ),
    "study": Script(
        STUDY, "nothing", "ssh remote_start", "done: bring it with fetch.sh", "ABSENT",
        (1, "deleted: mlm-1.*the same command resumes it"),
    ),
}  # fmt: skip


def scenarios() -> list[Scenario]:
    """Success, a transient failure, a permanent one and a hang of every script; what else can happen to some."""
    found = []
    for name, script in SCRIPTS.items():
        end = (0, script.says, script.leaves)
        denied_leaves = {"create": "ABSENT", "delete": "READY"}.get(name, script.leaves)
        found += [
            Scenario(name, "success", {}, *end),
            Scenario(name, "transient failure", {"on": script.call, "times": 2, "do": "unavailable"}, *end),
            Scenario(name, "permanent failure", {"on": script.call, "times": 999, "do": "denied"},
                     *script.denied, denied_leaves),
            Scenario(name, "hang", {"on": script.call, "do": "hang"}, *end),
        ]  # fmt: skip
    gone = "mlm was preempted.*not billed any more"
    babysat = (0, "done: jaxmlm pretrain", "ABSENT")
    return [
        *found,
        Scenario("create", "answer lost", {"on": "resources create", "do": "lost"}, 0, "the answer was lost", "READY"),
        Scenario("create", "outage while it waits", {"on": "queued-resources describe", "skip": 1, "times": 9,
                 "do": "unavailable"}, 0, "cannot tell the state of mlm .*UNAVAILABLE.*billed from now on", "READY"),
        Scenario("create", "preemption during create", {"on": "vm describe", "do": "preempt"}, 75, gone, "PREEMPTED"),
        Scenario("setup", "preemption during setup", {"on": "remote_setup", "do": "preempt"}, 75, gone, "PREEMPTED"),
        Scenario("run", "preemption during run", {"on": "remote_start", "do": "preempt"}, 75, gone, "PREEMPTED"),
        Scenario("babysit", "preemption during create", {"on": "vm describe", "do": "preempt"}, *babysat),
        Scenario("babysit", "preemption during setup", {"on": "remote_setup", "do": "preempt"}, *babysat),
        Scenario("babysit", "preemption during run", {"on": "remote_status", "skip": 2, "do": "preempt"},
                 0, "preempted; a new mlm.*done: jaxmlm", "ABSENT", ("--calls-to-wait-for", "3")),
        Scenario("babysit", "restart of the workers", {"on": "remote_status", "skip": 2, "do": "restart"},
                 0, "its worker restarted.*done: jaxmlm(.*is mounted){4}", "ABSENT", ("--calls-to-wait-for", "3")),
        *(
            Scenario("babysit", f"ceiling before {name}", {"on": call, "skip": skip, "do": "expire"},
                     1, "mlm was deleted, by its ceiling or by somebody", "ABSENT")
            for name, call, skip in (
                ("the setup", "auth list", 3),  # after those of babysit.sh and create.sh, which asks and waits
                ("the mount", "auth list", 4),
                ("the check", "remote_mark", 0),
                ("the start", "remote_start", 0),
            )
        ),
        Scenario("study", "preemption during run", {"on": "remote_status mlm-2", "do": "preempt"},
                 0, "done: bring it with fetch.sh", "ABSENT"),
    ]  # fmt: skip


def stages(top: Path) -> dict[str, World]:
    """A world for each stage, made by the scripts one after the other, to start scenarios from."""
    package, worlds = checkout(top / "checkout"), {}
    for stage, (*script,) in STAGES.items():
        before = list(worlds.values())[-1] if worlds else None
        world = worlds[stage] = World(top / f"at-{stage.replace(' ', '-')}", package, before)
        if script:
            done = world.run(*script)
            assert done.returncode == 0, f"{script}: {done.stderr}"
        if stage == "created":
            wait_until(lambda world=world: len(list(world.directory.glob("workers/*/timer.json"))) == 2)
    wait_until(lambda: len(list(world.directory.glob("workers/*/jaxmlm-job/exit"))) == 2)
    return worlds


def play(scenario: Scenario, directory: Path, stages: dict[str, World]) -> str:
    """Play one scenario; what is wrong with how it ended, or nothing."""
    before = stages[SCRIPTS[scenario.script].before]
    world = World(directory, before.package, before)
    try:
        world.plan(*[scenario.fault] if scenario.fault else [])
        done = world.run(scenario.script, *scenario.command)
        said = " ".join((done.stderr + done.stdout).split())
        wrong = [
            *([f"exit code {done.returncode}, not {scenario.code}"] if done.returncode != scenario.code else []),
            *([f"does not say {scenario.says!r}"] if not re.search(scenario.says, said) else []),
            *([f"leaves {world.state()}, not {scenario.leaves}"] if world.state() != scenario.leaves else []),
            *(["asks for what is there"] if world.cloud["again"] else []),
        ]
        return "; ".join([*wrong, said]) if wrong else ""
    finally:
        world.close()


def play_all(played: list[Scenario], top: Path, stages: dict[str, World]) -> list[str]:
    """Play scenarios several at a time, for most wait for a process or a time-out; what is wrong with each end."""
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(lambda i: play(played[i], top / f"world-{i}", stages), range(len(played))))


def main() -> int:
    """Play every scenario and print how each ended."""
    started = time.monotonic()
    played = scenarios()
    with tempfile.TemporaryDirectory() as top:
        ends = play_all(played, Path(top), stages(Path(top)))
    for scenario, wrong in zip(played, ends, strict=True):
        print(f"{scenario.script:8} {scenario.happens:24} exit {scenario.code:<3} {wrong or 'as the docs say'}")
    good = ends.count("")
    print(f"{good} of {len(ends)} end as the docs say, in {time.monotonic() - started:.0f} s")
    return int(good != len(ends))


if __name__ == "__main__":
    sys.exit(main())
