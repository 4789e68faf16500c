"""What the stand-in for Google Cloud knows: its zones and flags, its state, and what a worker finds around it."""

import contextlib
import fcntl
import json
import os
import re
from pathlib import Path

DIRECTORY = Path(os.environ.get("STANDIN", "."))
ZONES = {
    "us-central2-b": ("v4-8", "v4-16", "v4-32"),
    "us-west4-a": ("v5litepod-1", "v5litepod-8", "v5litepod-16"),
    "us-east5-a": ("v6e-8", "v6e-16", "v5p-8"),
}
ANYWHERE = {"--project", "--quiet", "--format"}
CREATE = {"--zone", "--accelerator-type", "--spot", "--reserved", "--metadata", "--metadata-from-file"}
REQUEST = CREATE | {"--runtime-version", "--node-id", "--node-count", "--node-prefix", "--valid-until-duration"}
FLAGS = {
    "auth list": {"--filter"},
    "compute tpus locations list": set(),
    "compute tpus accelerator-types list": {"--zone"},
    "compute tpus queued-resources create": REQUEST,
    "alpha compute tpus queued-resources create": REQUEST | {"--provisioning-model", "--max-run-duration"},
    "compute tpus queued-resources describe": {"--zone"},
    "compute tpus queued-resources delete": {"--zone", "--force"},
    "compute tpus tpu-vm create": CREATE | {"--version"},
    "compute tpus tpu-vm describe": {"--zone"},
    "compute tpus tpu-vm delete": {"--zone"},
    "compute tpus tpu-vm ssh": {"--zone", "--worker", "--command"},
    "compute tpus tpu-vm scp": {"--zone", "--worker", "--recurse"},
    "storage ls": {"--buckets"},
    "storage rsync": {"--recursive"},
}


class Refused(Exception):
    """What gcloud says and exits with."""

    def __init__(self, text: str, code: int = 1) -> None:
        self.text, self.code = text, code


@contextlib.contextmanager
def state():
    """The state, for this call alone; written back at the end."""
    with open(DIRECTORY / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = DIRECTORY / "state.json"
        now = json.loads(path.read_text()) if path.exists() else {"requests": {}, "tpus": {}, "seen": {}, "again": 0}
        try:
            yield now
        finally:
            path.with_suffix(".part").write_text(json.dumps(now, indent=1))
            path.with_suffix(".part").rename(path)


def environment_of(home: Path) -> dict[str, str]:
    """What a command finds on a worker."""
    return {
        "HOME": str(home), "HOSTNAME": home.name, "STANDIN": str(DIRECTORY), "LANG": "C.UTF-8",
        "PATH": f"{DIRECTORY}/worker-bin:/usr/local/bin:/usr/bin:/bin",
        **{name: value for name, value in os.environ.items() if name.startswith(("STANDIN_", "JAX_"))},
        **process_of(home),
    }  # fmt: skip


def rooted(text: str, home: Path) -> str:
    """The sandbox has no root of its own: /gcs and /var/lib/jaxmlm are directories of the worker's."""
    return re.sub(r"(?<![\w/.~-])/(gcs|var/lib/jaxmlm)\b", rf"{home}/\1", text)


def process_of(home: Path) -> dict[str, str]:
    """Which of how many processes this worker is: on a TPU its metadata say so, here a Slurm step's environment."""
    node, _, host = home.name.rpartition("-w-")
    hosts = len(list(home.parent.glob(f"{node}-w-*")))
    if hosts == 1 or "STANDIN_JOB" not in os.environ:
        return {}
    job = {"SLURM_JOB_ID": os.environ["STANDIN_JOB"], "SLURM_STEP_NODELIST": "127.0.0.1"}
    return {**job, "SLURM_NTASKS": str(hosts), "SLURM_PROCID": host, "SLURM_LOCALID": host}
