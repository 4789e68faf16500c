"""`jaxmlm doctor`: what this machine is, what would stop a run here, and what to do about it."""

import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.parallel import hosts
from jaxmlm.parallel.hosts import Hosts
from jaxmlm.parallel.rendezvous import installed_versions
from jaxmlm.tools.hardware import GIB, chip_of
from jaxmlm.tools.integrity import damage
from jaxmlm.tools.versions import is_tested, versions_of_the_tests, wanted
from jaxmlm.wording import install_command

COUPLED = ("jaxlib", "flax", "libtpu", "jax-rocm7-plugin")
"""Packages that go with some versions of JAX only."""
LOCK = Path(tempfile.gettempdir()) / "libtpu_lockfile"
"""libtpu holds it while a process uses the TPU."""


@dataclass(frozen=True)
class Doctor(Hosts):
    """What to look at beside the machine."""

    workdir: str = "runs"
    """The directory where runs are to be written; what a run, a study or a store in it holds is verified."""
    bucket: str | None = None
    """A bucket to look into: gs://NAME."""
    wait: float = 30.0
    """Seconds to wait for the other hosts."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `stop`: a run would fail here; `note`: it would go, and you may want to know."""

    level: Literal["ok", "note", "stop"]
    what: str
    found: str
    do: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "note": "note", "stop": "STOP"}[self.level]
        return f"{mark}  {self.what:9} {self.found}" + (f": {self.do}" if self.do else "")


def doctor(options: Doctor = Doctor()) -> dict[str, Any]:  # noqa: B008
    """Look at everything and print it; {"ok", "findings"}, of which `ok` is false if something would stop a run."""
    findings = list(look(options))
    if hosts.is_primary():
        for finding in findings:
            print(finding)
    return {"ok": all(one.level != "stop" for one in findings), "findings": [asdict(one) for one in findings]}


def look(options: Doctor) -> Iterator[Finding]:
    """The findings, those first that need no device: a TPU whose other hosts are missing would hang."""
    yield versions(installed_versions())
    yield from pairs(installed_versions()["jax"])
    yield from lock(LOCK)
    joined = True
    try:
        hosts.start(Hosts(options.coordinator, options.processes, options.process, None, options.wait))
    except InputError as error:
        joined = False
        yield Finding("stop", "hosts", str(error))
    if joined:
        yield from devices(options.require, accelerator())
    yield from disk(options.workdir)
    yield from contents(options.workdir)
    if options.bucket is not None:
        yield bucket(options.bucket)


def versions(have: dict[str, str]) -> Finding:
    """Are these versions those of a run of the tests?"""
    names = [name for name in ("python", "jax", "jaxlib", "flax", "libtpu") if name in have]
    said = ", ".join(f"{name} {have[name]}" for name in names)
    if is_tested(have):
        return Finding("ok", "versions", said)
    return Finding("note", "versions", said, f"tested are {versions_of_the_tests()}")


def pairs(
    jax_: str, have: Mapping[str, str] | None = None, requirements: Sequence[str] | None = None
) -> Iterator[Finding]:
    """The packages that do not go with this JAX. Without a TPU a wrong libtpu stops plans only.

    Args:
        jax_: its version.
        have: the versions of the packages of `COUPLED`; those that are installed, if not given.
        requirements: the requirements of JAX; those of the one that is installed, if not given.

    """
    for name in COUPLED:
        version = _version(name, have)
        goes = wanted(name, jax_, requirements)
        if version is None or goes is None or goes.contains(version, prereleases=True):
            continue
        level = "note" if name == "libtpu" and accelerator() != "tpu" else "stop"
        said = f"{name} {version} does not go with jax {jax_}, which wants {goes}"
        yield Finding(level, "versions", said, f"pip install '{name}{goes}'")


def _version(name: str, have: Mapping[str, str] | None) -> str | None:
    if have is not None:
        return have.get(name)
    return importlib.metadata.version(name) if any(importlib.metadata.distributions(name=name)) else None


def lock(path: Path) -> Iterator[Finding]:
    """Does another process hold the TPU?"""
    if not path.exists():
        return
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        yield Finding("stop", "TPU lock", f"another process holds {path}", f"end it (sudo lsof -t {path} names it)")
    except PermissionError:
        yield Finding("stop", "TPU lock", f"{path} belongs to another user", f"sudo rm {path} when no job is running")
    else:
        if accelerator():
            yield Finding("ok", "TPU lock", f"{path} is there and free")


def accelerator() -> str | None:
    """What the system has by its device files, whether or not JAX can use it."""
    if any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*")):
        return "tpu"
    return "gpu" if any(Path("/dev").glob("nvidia[0-9]*")) else None


def devices(require: str | None, there: str | None) -> Iterator[Finding]:
    """What JAX sees, and why it is not what is there."""
    try:
        found = jax.devices()
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        yield Finding("stop", "devices", f"JAX starts no backend: {why}", _cure(require or there))
        return
    platform = jax.default_backend()
    kind = found[0].device_kind
    n = jax.process_count()
    counted = f"{len(found)} x {kind} ({platform})" + (f" on {n} hosts" if n > 1 else "")
    wanted = require or there
    if wanted is not None and platform != wanted:
        where = "--require asks for one" if require else "this machine has one"
        yield Finding("stop", "devices", f"JAX sees {counted} and no {wanted}, but {where}", _cure(wanted))
    elif platform == "cpu":
        yield Finding(
            "note", "devices", counted, "no accelerator: small configurations only (configs/quickstart_run.py)"
        )
    else:
        yield Finding("ok", "devices", counted)
    chip = chip_of(kind)
    if chip is not None:
        yield Finding("ok", "peak", f"{chip.flops / 1e12:.0f} TFLOP/s, {chip.memory / GIB:.1f} GiB for each device")
    elif platform != "cpu":
        yield Finding("note", "peak", f"unknown for {kind}", "jaxmlm bench cannot compute its MFU")
    used = {}
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if stats.get("bytes_limit"):
            used[device.id] = stats.get("bytes_in_use", 0) / stats["bytes_limit"]
    if any(share > 0.1 for share in used.values()):
        most = max(used, key=lambda i: used[i])
        yield Finding(
            "note", "memory", f"device {most} is {used[most]:.0%} full before anything runs", "end what uses it"
        )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    yield Finding("ok" if pages >= 4 else "note", "memory", f"{pages:.0f} GiB of this host, {os.cpu_count()} cores")


def _cure(wanted: str | None) -> str:
    if os.environ.get("JAX_PLATFORMS") and wanted not in os.environ["JAX_PLATFORMS"].split(","):
        return f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} hides it: unset JAX_PLATFORMS"
    if wanted == "tpu" and importlib.util.find_spec("libtpu") is None:
        return f"libtpu is not installed: {install_command('tpu')}"
    if wanted == "gpu" and not any("cuda" in (d.metadata["Name"] or "") for d in importlib.metadata.distributions()):
        return f"JAX is there without CUDA: {install_command('cuda')}"
    return "end other jobs on it, start the same command on all hosts; JAX_PLATFORMS=tpu or cuda shows why"


def disk(workdir: str) -> Iterator[Finding]:
    """Can runs be written there?"""
    if "://" in workdir:
        bucket_ = workdir.split("://")[1].split("/")[0]
        yield Finding(
            "stop", "disk", f"--workdir {workdir} is not a directory", f"mount it: gcsfuse {bucket_} DIRECTORY"
        )
        return
    directory = expanded(workdir).absolute()
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        yield Finding("stop", "disk", f"{there} cannot be written to", "name another --workdir")
        return
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"jaxmlm")
    except OSError as error:
        yield Finding("stop", "disk", f"{there}: {error.strerror}", "free some space or name another --workdir")
        return
    free = shutil.disk_usage(there).free / GIB
    level = "stop" if free < 0.5 else "note" if free < 10 else "ok"
    advice = "" if level == "ok" else "a base-size checkpoint takes 1.3 GiB and two are kept"
    yield Finding(level, "disk", f"{free:.1f} GiB free in {there}", advice)


def contents(workdir: str) -> Iterator[Finding]:
    """Is what a run or a study has left there what was written?"""
    found = list(damage(expanded(workdir)))
    for _, why in found:
        if why:
            yield Finding("stop", "contents", why)
    if found and not any(why for _, why in found):
        yield Finding("ok", "contents", f"{len(found)} files and checkpoints in {workdir} are as they were written")


def bucket(name: str) -> Finding:
    """Can this machine list the bucket?"""
    if not name.startswith("gs://"):
        return Finding("stop", "bucket", f"{name} is not gs://NAME", "write gs:// before it")
    if importlib.util.find_spec("gcsfs") is None:
        return Finding("stop", "bucket", "gcsfs is not installed", install_command("gcp"))
    import gcsfs  # type: ignore[import-not-found]

    try:
        gcsfs.GCSFileSystem(timeout=20, retries=1).ls(name.removeprefix("gs://"))
    except Exception as error:  # of gcsfs, google-auth and aiohttp
        why = " ".join(f"{type(error).__name__} {error}".split())[:160]
        return Finding(
            "stop", "bucket", f"{name} cannot be listed ({why})", "give this account roles/storage.objectAdmin on it"
        )
    return Finding("ok", "bucket", f"{name} can be listed")
