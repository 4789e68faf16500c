"""Is this host one of many? What Slurm, GKE and Cloud TPU say of it, without touching a device."""

import importlib.util
import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxmlm.errors import InputError

PORT = 8482
"""Where the processes of a Cloud TPU meet; the port that JAX takes there too."""
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


class ClusterSpec(NamedTuple):
    """The processes of one run, and which of them this is."""

    coordinator: str
    processes: int
    process: int
    names: tuple[str, ...] = ()
    """Of the hosts, where the cluster tells them."""

    @property
    def address(self) -> str:
        """The host where they meet."""
        return self.coordinator.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port there."""
        return int(self.coordinator.rpartition(":")[2])

    def name(self, process: int) -> str:
        """What messages call a process that has not come."""
        return f"host {process}" + (f" ({self.names[process]})" if process < len(self.names) else "")


def find(
    environment: Mapping[str, str] = os.environ, metadata: Callable[[str], str | None] | None = None
) -> ClusterSpec | None:
    """The cluster that this process belongs to, or None when it is alone.

    >>> find({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "node[3-4]"})
    ClusterSpec(coordinator='node3:61447', processes=2, process=1, names=())
    """
    return _slurm(environment) or _gke(environment) or _cloud_tpu(environment, metadata or _metadata)


def _slurm(env: Mapping[str, str]) -> ClusterSpec | None:
    if not all(name in env for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST")):
        return None
    # "node1", "node1,other", "node[001-015],other", "node[3,7-9]": the first one
    first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", env["SLURM_STEP_NODELIST"])
    if first is None:
        raise InputError(f"SLURM_STEP_NODELIST is {env['SLURM_STEP_NODELIST']!r}: it must name the hosts, as node[1-4]")
    port = 61440 + int(env["SLURM_JOB_ID"]) % 4096  # its own for each job, above what systems hand out
    processes = int(env["SLURM_NTASKS"])
    process = int(env["SLURM_PROCID"])
    return _many(ClusterSpec(f"{first[1]}{first[2] or ''}:{port}", processes, process))


def _gke(env: Mapping[str, str]) -> ClusterSpec | None:
    hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
    if not hosts or "TPU_WORKER_ID" not in env:
        return None
    return _slices(hosts.split(","), int(env["TPU_WORKER_ID"]), env)


def _cloud_tpu(env: Mapping[str, str], metadata: Callable[[str], str | None]) -> ClusterSpec | None:
    if "TPU_SKIP_MDS_QUERY" in env or env.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return None
    worker = metadata("agent-worker-number")
    endpoints = metadata("worker-network-endpoints")
    if worker is None or not endpoints:
        return None
    told = re.findall(r"^\s*(MEGASCALE_\w+)\s*:\s*'?([^'\n]*)'?\s*$", metadata("tpu-env") or "", re.MULTILINE)
    hosts = [endpoint.split(":")[-1] for endpoint in endpoints.split(",")]  # HOST, or name:id:HOST
    return _slices(hosts, int(worker), {**dict(told), **env})


def _slices(hosts: list[str], worker: int, env: Mapping[str, str]) -> ClusterSpec | None:
    """One slice of a TPU, or one of several (Megascale)."""
    slices = int(env.get("MEGASCALE_NUM_SLICES") or 1)
    this = int(env.get("MEGASCALE_SLICE_ID") or 0)
    meeting = env.get("MEGASCALE_COORDINATOR_ADDRESS") if slices > 1 else None
    address = (meeting or hosts[0]).split(":")[0]
    names = tuple(hosts) if slices == 1 else ()
    return _many(ClusterSpec(f"{address}:{PORT}", len(hosts) * slices, worker + this * len(hosts), names))


def _many(cluster: ClusterSpec) -> ClusterSpec | None:
    return cluster if cluster.processes > 1 else None


def _metadata(name: str) -> str | None:
    """What a Cloud TPU VM's metadata server says; asked only where libtpu and a TPU's device files are."""
    if importlib.util.find_spec("libtpu") is None:
        return None
    if not any(Path("/dev").glob("accel*")) and not Path("/dev/vfio").exists():
        return None
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return answer.read().decode()
    except OSError:
        return None
