"""The TPUs of the stand-in for Google Cloud: how they boot, what happens to them, how they end."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from standin_base import DIRECTORY, Refused, environment_of


def missing(name: str):
    raise Refused(f"ERROR: (gcloud) NOT_FOUND: Resource 'projects/p/locations/z/nodes/{name}' was not found")


def found(now, things: str, name: str) -> dict:
    """A TPU or a request; one that is being deleted is gone after a few looks."""
    one = now[things].get(name) or missing(name)
    if one["state"] == "DELETING":
        one["looks"] -= 1
        if one["looks"] < 0:
            vanish(now, name)
            missing(name)
    return one


def busy(one: dict) -> None:
    if one["state"] == "DELETING":
        raise Refused("ERROR: (gcloud) FAILED_PRECONDITION: it is being deleted")


def boot(now, node: str, kind: str, about: dict[str, str]) -> None:
    generation, _, size = kind.partition("-")
    cores_of_a_host = 8 if generation in ("v2", "v3", "v4", "v5p") else 4
    hosts = 1 if kind in ("v5litepod-8", "v6e-8") else -(-int(size) // cores_of_a_host)
    now["tpus"][node] = {"state": "READY", "hosts": hosts}
    for host in range(hosts):
        home = disk(node, host)
        shutil.rmtree(home, ignore_errors=True)  # a start-up script of an earlier one may have left something
        (home / "home").mkdir(parents=True, exist_ok=True)
        (home / "home" / "someone").symlink_to("..")
        (home / "metadata.json").write_text(json.dumps(about))
        start_up(home)


def start_up(home: Path) -> None:
    """Run the start-up script of a worker, in the background; what only root may write is on the worker's disk."""
    script = json.loads((home / "metadata.json").read_text()).get("startup-script")
    if script is None:
        return
    (home / "start-up").write_text(re.sub(r"/(home/|var/lib/jaxmlm)", rf"{home}/\1", script))
    background(["bash", str(home / "start-up")], home)


def background(command: list[str], home: Path) -> None:
    with open(home / "start-up.log", "a") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        subprocess.Popen(command, cwd="/", env=environment_of(home), start_new_session=True, **streams)


def disks(now, node: str) -> list[Path]:
    return [disk(node, host) for host in range(now["tpus"].get(node, {"hosts": 0})["hosts"])]


def halt(now, node: str, grace: float = 0) -> None:
    """End a TPU's jobs, SIGTERM first."""
    jobs = [home / "jaxmlm-job" for home in disks(now, node)]
    running = [job for job in jobs if (job / "pid").exists() and not (job / "exit").exists()]
    groups = {job: int((job / "pid").read_text()) for job in running}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        until = time.monotonic() + grace
        while time.monotonic() < until and not all((job / "exit").exists() for job in groups):
            time.sleep(0.1)


def wipe(now, node: str, grace: float = 0) -> None:
    halt(now, node, grace)
    for home in disks(now, node):
        shutil.rmtree(home, ignore_errors=True)
    now["tpus"].pop(node, None)


def restart(now, node: str) -> None:
    """The workers boot again and are READY: what ran there is gone, and so is the mount."""
    halt(now, node)
    for home in disks(now, node):
        if (home / "gcs").is_symlink():
            (home / "gcs").unlink()
            (home / "gcs").mkdir()
        start_up(home)


def preempt(now, node: str) -> None:
    wipe(now, node, grace=float(os.environ.get("STANDIN_GRACE", "25")))
    now["tpus"][node] = {"state": "PREEMPTED", "hosts": 0}
    for one in now["requests"].values():
        if node in one["nodes"]:
            one |= {"state": "SUSPENDED", "initiator": "SERVICE"}


def expire(now, node: str) -> None:
    """A TPU has deleted itself, with its request."""
    wipe(now, node)
    now["requests"] = {name: one for name, one in now["requests"].items() if node not in one["nodes"]}


def dismiss(now, name: str) -> None:
    """Somebody deletes a TPU and its request, which takes a while."""
    halt(now, name)
    for things in ("requests", "tpus"):
        if name in now[things]:
            now[things][name] |= {"state": "DELETING", "looks": 3}


def dismiss_node(now, name: str) -> None:
    """Somebody deletes a TPU; its request stays."""
    halt(now, name)
    now["tpus"][name] |= {"state": "DELETING", "looks": 3}


def vanish(now, name: str) -> None:
    """The end of a deletion."""
    wipe(now, name)
    one = now["requests"].get(name)
    if one and one["state"] == "DELETING":
        del now["requests"][name]
    elif one:
        one |= {"state": "SUSPENDED", "initiator": "USER"}


def disk(node: str, host: int) -> Path:
    return DIRECTORY / "workers" / f"t1v-n-{node}-w-{host}"


def elapse(now, node: str) -> None:
    """The time of a TPU's ceiling has come: its workers do what they have set themselves."""
    for home in disks(now, node):
        background(json.loads((home / "timer.json").read_text())["do"], home)


HAPPENS = {
    "preempt": preempt,
    "restart": restart,
    "expire": expire,
    "dismiss": dismiss,
    "dismiss-node": dismiss_node,
}
"""What happens to a TPU without its user."""
