"""One program on many hosts: join the other processes, exchange values with them, know which one is primary.

The processes meet in `rendezvous.py` first: what is wrong is one line there, and the end of the process in JAX.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxmlm import preemption
from jaxmlm.checks import COUNT, NATURAL, TINY, Range, check_choices, check_numbers
from jaxmlm.errors import InputError
from jaxmlm.parallel import watch
from jaxmlm.parallel.clusters import ClusterSpec, find
from jaxmlm.parallel.rendezvous import Member, installed_versions, meet, refuse_different

_WAIT = Range(TINY, 7 * 24 * 3600.0, "be above 0 and at most 604,800, the seconds of a week")
PATIENCE = 24 * 3600  # seconds that a finished process waits for the others, e.g. for one that draws a report
SAME_FILES = "put the same files on every host, and delete the token stores that were made of others"
HEARTBEAT = 100  # seconds without a sign of life, after which JAX ends the other processes


@dataclass(frozen=True)
class Hosts:
    """Which one of how many processes this is; Cloud TPU, GKE and Slurm tell it by themselves."""

    coordinator: str | None = None
    """HOST:PORT of process 0, where the processes meet."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which one this is, from 0."""
    require: Literal["tpu", "gpu"] | None = None
    """Refuse to run on anything else: without it JAX falls back to the CPU when the accelerator does not start."""
    wait: float = 300.0
    """Seconds to wait for the others."""

    def __post_init__(self) -> None:
        check_choices(self, "--")
        check_numbers(self, "--", processes=COUNT, process=NATURAL, wait=_WAIT)
        three = (self.coordinator, self.processes, self.process)
        if three == (None, None, None):
            return
        if self.coordinator is None or self.processes is None or self.process is None:
            raise InputError("--coordinator HOST:PORT, --processes N and --process I go together: give all three")
        if not self.coordinator.rpartition(":")[2].isdecimal() or ":" not in self.coordinator:
            raise InputError(f"--coordinator takes HOST:PORT, got {self.coordinator!r}: try {self.coordinator}:8482")
        if not 0 < int(self.coordinator.rpartition(":")[2]) < 1 << 16:
            raise InputError(f"--coordinator takes a port from 1 to 65535, got {self.coordinator!r}: try 8482")
        if not 0 <= self.process < self.processes:
            raise InputError(
                f"--process counts from 0 and is below --processes; got {self.process} of {self.processes}"
            )


def start(hosts: Hosts = Hosts()) -> None:  # noqa: B008
    """Join the other processes if this is one of many; must come before anything touches a device.

    InputError on every host, with names: the coordinator does not answer, a host is missing or is there twice,
    versions differ, or JAX does not see the accelerator that `require` names.
    """
    cluster = find()
    if hosts.coordinator is not None and hosts.processes is not None and hosts.process is not None:
        cluster = ClusterSpec(hosts.coordinator, hosts.processes, hosts.process)
    if cluster is not None and cluster.processes > 1 and not jax.distributed.is_initialized():
        connections: list[socket.socket] = []
        me = Member(cluster.process, socket.gethostname(), installed_versions())
        members = meet(cluster, me, hosts.wait, connections)
        have = [(member.name, member.versions) for member in members]
        refuse_different(have, "versions", "install the same on every host")
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process,
            initialization_timeout=int(hosts.wait),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=PATIENCE,
        )
        if cluster.process == 0:
            watch.watch_others(connections, [f"process {one.process} on {one.host}" for one in members[1:]])
        else:
            watch.watch_first(connections[0], f"process 0 on {members[0].host}")
        preemption.install_handlers()
    if hosts.require is not None:
        require(hosts.require)


def require(platform: str) -> None:
    """Refuse to run on anything but this platform, above all on the CPU that JAX falls back to without an error."""
    try:
        found = jax.default_backend()
        reason = ""
    except RuntimeError as error:
        found = "nothing"
        reason = f" ({' '.join(str(error).split())[:200]})"
    if found != platform:
        raise InputError(
            f"--require {platform}: JAX sees {found} here{reason}: `jaxmlm doctor` says why; "
            "leave out --require to run on what there is"
        )


def assert_same(what: str, values: Mapping[str, Any], cure: str = "start the same command on every host") -> None:
    """Refuse hosts that were given different configurations or files: one program cannot run on two of them."""
    told = all_gather_json({"host": socket.gethostname(), "values": dict(_flat(values))})
    named = [(f"host {i} ({one['host']})", one["values"]) for i, one in enumerate(told)]
    refuse_different(named, what, cure)


def all_gather_json(value: Any) -> list[Any]:
    """Gather a JSON value from every process, in the order of the processes."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(np.max(multihost_utils.process_allgather(np.int32(len(data)))))
    padded = np.full(size, ord(" "), np.uint8)
    padded[: len(data)] = data
    return [json.loads(row.tobytes()) for row in np.asarray(multihost_utils.process_allgather(padded))]


def broadcast_from_primary(value: Any) -> Any:
    """Return process 0's JSON value on all processes, where theirs might differ, e.g. about files just written."""
    return all_gather_json(value)[0]


def check_shared_directory(directory: Path) -> None:
    """Refuse a directory that not every host sees: all of them write a run's checkpoints into it."""
    if jax.process_count() == 1:
        return
    probe = directory / f".seen-by-all-{all_gather_json(time.time_ns())[0]}"
    first = jax.process_index() == 0
    fresh = [parent for parent in (directory, *directory.parents) if not parent.exists()] if first else []
    if first:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
    all_gather_json(None)
    told = all_gather_json({"host": socket.gethostname(), "seen": _appears(probe)})
    if first:
        probe.unlink()
    if blind := [f"host {i} ({one['host']})" for i, one in enumerate(told) if not one["seen"]]:
        for parent in fresh:
            parent.rmdir()
        raise InputError(
            f"{directory} of host 0 ({told[0]['host']}) is not seen by {', '.join(blind[:4])}: the hosts do not share "
            "that disk: name a --workdir in a mounted bucket or on a network disk"
        )


def _appears(path: Path) -> bool:
    """Network disks show a new file a little later."""
    for _ in range(20):
        if path.exists():
            return True
        time.sleep(0.25)
    return False


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """Process 0 runs the body, then all others do: they find what it has written, or write their own elsewhere."""
    many = jax.process_count() > 1
    first = jax.process_index() == 0
    if many and not first:
        all_gather_json(None)
    try:
        yield
    finally:  # after an error too: the others meet the same one
        if many and first:
            all_gather_json(None)


def is_primary() -> bool:
    """Whether this process is the one that logs and prints: process 0."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def exit_process(code: int, why: str = "") -> None:
    """End this process at once if it is one of many: JAX's own exit would wait for the others, and abort.

    Process 0 goes a little later: the others would abort when they miss it, and mostly they have failed alike.

    Args:
        code: the exit code.
        why: error line for process 0 to print, if perhaps only this process saw the bad input.

    """
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        first = jax.process_index() == 0
        if first:
            time.sleep(2)
        # If only this process failed, the others would wait for it.
        if not first and why:
            here = f"process {jax.process_index()} on {socket.gethostname()}"
            watch.say_goodbye(watch.WRONG_INPUT + f"jaxmlm: {here}: {why}".encode()[: watch.MOST])
        elif not first:
            watch.say_goodbye(watch.FAULT if code == 1 else watch.GOODBYE)
        elif code != 1:
            watch.say_goodbye()
        os._exit(code)


def _flat(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield at + key, value
