"""Checkpoints by Orbax: complete or absent, and checked by a checksum of every array before they are trusted.

A checkpoint holds flat dictionaries "path of the parameter" -> array, `model` and `rest` (step, optimizer) separately,
so that a model can be read without its optimizer, on any mesh.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json
from jaxmlm.parallel.hosts import all_gather_json, is_primary
from jaxmlm.training.finite import NotFinite
from jaxmlm.training.step import TrainState

_CURE = "delete that directory, and the previous checkpoint will be used"


_MACHINE = (
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
)
_SAID_OF_THE_MACHINE = (
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
    *map(os.strerror, (errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)),
)
"""What JAX, Orbax and TensorStore say of such errors, whose types tell nothing."""


class DamagedCheckpoint(InputError):
    """A checkpoint is not what was saved. `step` names it."""

    def __init__(self, directory: Path, why: str):
        super().__init__(f"{directory} is damaged: {why}; {_CURE}")
        self.step = int(directory.name)


def fingerprint(directory: Path) -> str | None:
    """A hash of the newest model in the directory of a run, or of that of a step; None: there is none.

    Raises:
        InputError: the checksums of that checkpoint are damaged.

    """
    newest = directory / "checksums" / "metadata"
    if not newest.is_file():
        steps = [path for path in directory.glob("checkpoints/[0-9]*/checksums/metadata") if path.parts[-3].isdigit()]
        if not steps:
            return None
        newest = max(steps, key=lambda path: int(path.parts[-3]))
    checked = read_json(newest, "the checksums of a checkpoint")
    if checked.pop("sha256", None) != _sha256(checked):
        raise InputError(f"{newest.parents[1]} is damaged: its file of checksums does not match its own; {_CURE}")
    return hashlib.sha256(json.dumps(checked["model"]).encode()).hexdigest()[:16]


class Checkpoints:
    """The checkpoints of a run, in `directory`/STEP.

    Args:
        directory: their directory.
        newest: number of the newest checkpoints that are kept.
        keep: steps whose checkpoints are kept as well.
        read: nothing is written, nor is removed what a kill left: a run may be saving there at that moment.

    """

    def __init__(self, directory: str | Path, newest: int = 2, keep: Collection[int] = (), read: bool = False):
        self.directory = Path(directory).absolute()
        kept = AnyPreservationPolicy([LatestN(newest), CustomSteps(list(keep))])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=kept, cleanup_tmp_directories=not read, create=not read, save_root_metadata=not read
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in ("model", "rest")}
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=handlers | {"checksums": ocp.JsonCheckpointHandler()}
        )
        # `all_hosts_stop` decides when to stop; Orbax (checked: 0.12.3) would give JAX's one counter other numbers.
        self._manager.reached_preemption = lambda step: False

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None: there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, notes: Mapping[str, Any] | None = None) -> None:
        """Write the state; returns as soon as the arrays are copied to the host.

        Args:
            state: of the run; its step names the checkpoint.
            notes: what else is needed to resume, plain JSON values.

        Raises:
            NotFinite: a weight or a number of the optimizer's state is not finite. Nothing is written: such a state
                must not take the place of a good one.

        """
        parts = {"model": _flat(state.model), "rest": _flat({"step": state.step, "opt_state": state.opt_state})}
        sums = {}
        bad = []
        for name, part in parts.items():
            found, finite = _checksums(part)
            sums[name] = found
            bad += [key for key, good in zip(sorted(part), finite, strict=True) if not good]
        if bad:
            raise NotFinite(bad)
        checked = {**sums, "notes": dict(notes or {})}
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(parts["model"]),
            rest=ocp.args.StandardSave(parts["rest"]),
            checksums=ocp.args.JsonSave({**checked, "sha256": _sha256(checked)}),
        )
        if not self._manager.save(int(state.step), args=items):
            raise RuntimeError(f"the checkpoint of step {int(state.step)} was not written to {self.directory}")

    def restore(self, like: TrainState) -> TrainState:
        """Read the newest checkpoint.

        Args:
            like: a state with the same shapes, arrays or abstract values; the result is sharded like it.

        Raises:
            InputError: there is no checkpoint, or it holds another model.
            DamagedCheckpoint: an array or the notes do not match their checksum, or cannot be read.

        """
        rest = self._read("rest", {"step": like.step, "opt_state": like.opt_state})
        return TrainState(rest["step"], self.model(like.model), rest["opt_state"])

    def notes(self) -> dict[str, Any]:
        """The notes of the newest checkpoint."""
        return self._checked(self._existing(None))["notes"]

    def model(self, like: Any, step: int | None = None) -> Any:
        """Read the model of a step, by default the newest; arguments and errors as in `restore`."""
        return self._read("model", like, step)

    def verify(self) -> Iterator[tuple[int, str]]:
        """Read every checkpoint as it was saved.

        Yields:
            its step and why it is damaged; "" if it is not.

        """
        for step in sorted(self._manager.all_steps()):
            try:
                for item in ("model", "rest"):
                    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                    stored = self._stored(step, item).items()
                    self._arrays(
                        step, item, {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device) for key, x in stored}
                    )
                yield step, ""
            except DamagedCheckpoint as error:
                yield step, str(error)

    def set_aside(self, step: int) -> Path | None:
        """Move a damaged checkpoint out of the way, to `damaged` beside the directory of the checkpoints.

        Returns:
            where it is now; None: there is no other checkpoint, and nothing was moved.

        """
        if len(self._manager.all_steps()) < 2:
            return None
        there = self.directory.parent / "damaged" / str(step)
        if is_primary():
            there.parent.mkdir(exist_ok=True)
            number = 1
            while there.exists():
                number += 1
                there = there.with_name(f"{step}-{number}")
            os.replace(self.directory / str(step), there)
        return Path(all_gather_json(str(there))[0])

    def close(self) -> None:
        """Wait until everything is on disk; an error of a write is raised here."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _read(self, item: str, like: Any, step: int | None = None) -> Any:
        step = self._existing(step)
        leaves, treedef = jax.tree.flatten(like)
        abstract = {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for key, x in _flat(like).items()}
        self._check_arrays(step, item, abstract)
        arrays = self._arrays(step, item, abstract)
        return jax.tree.unflatten(treedef, [arrays[key] for key in _flat(like)])

    def _existing(self, step: int | None) -> int:
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise InputError(f"{self.directory} holds no complete checkpoint: pre-train first")
        if step is not None and step not in steps:
            raise InputError(
                f"{self.directory / str(step)} is not a complete checkpoint: there are {', '.join(map(str, steps))}"
            )
        return steps[-1] if step is None else step

    def _arrays(self, step: int, item: str, abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """The arrays of an item, which have their checksums."""
        read = self._restored(step, item, ocp.args.StandardRestore(abstract))  # type: ignore[arg-type]
        sums, finite = _checksums(read)
        expected = self._checked(step)[item]
        if len(expected) != len(sums):
            raise DamagedCheckpoint(self.directory / str(step), f"{len(expected)} checksums for {len(sums)} arrays")
        bad = [key for key, found, sum_ in zip(sorted(abstract), sums, expected, strict=True) if found != sum_]
        if bad:
            raise DamagedCheckpoint(self.directory / str(step), f"{bad[0]} does not match its checksum")
        if bad := [key for key, good in zip(sorted(abstract), finite, strict=True) if not good]:
            raise DamagedCheckpoint(self.directory / str(step), f"{bad[0]} is not finite")
        return read

    def _checked(self, step: int) -> dict[str, Any]:
        """The checksums and the notes of a checkpoint, which have a checksum of their own."""
        read = self._restored(step, "checksums", ocp.args.JsonRestore())
        if not isinstance(read, dict) or read.pop("sha256", None) != _sha256(read):
            raise DamagedCheckpoint(self.directory / str(step), "its file of checksums does not match its own")
        return read

    def _restored(self, step: int, item: str, args: Any) -> Any:
        """One item; whatever Orbax or TensorStore say about a damaged one becomes one line, on all processes."""
        why, spared = "", False
        read = None
        try:
            with _quiet():
                read = self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        except Exception as error:  # ValueError, KeyError, OSError, JSONDecodeError, zstd's and many others
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200] or type(error).__name__
            spared = _is_of_the_machine(error)
        failed = [(why, spared) for why, spared in all_gather_json([why, spared]) if why]
        for why, spared in failed:
            if spared:
                raise InputError(_not_now(self.directory / str(step), why))
        if failed:
            raise DamagedCheckpoint(self.directory / str(step), failed[0][0])
        return read

    def _stored(self, step: int, item: str) -> dict[str, Any]:
        """Shape and type of the arrays of an item."""
        try:
            with _quiet():
                metadata: Any = self._manager.item_metadata(step)[item]
                return dict(metadata.tree.items())
        except Exception as error:  # many kinds, as in `_restored`
            if _is_of_the_machine(error):
                raise InputError(_not_now(self.directory / str(step), f"{type(error).__name__}: {error}")) from error
            why = f"the metadata of {item} cannot be read ({type(error).__name__})"
            raise DamagedCheckpoint(self.directory / str(step), why) from error

    def _check_arrays(self, step: int, item: str, abstract: dict[str, jax.ShapeDtypeStruct]) -> None:
        """Refuse the arrays of another model, and those that would be converted: their checksums are of other bits."""
        stored = self._stored(step, item)
        have = {key: tuple(x.shape) for key, x in stored.items()}
        want = {key: tuple(x.shape) for key, x in abstract.items()}
        if have != want:
            key = next(key for key in sorted(have.keys() | want.keys()) if have.get(key) != want.get(key))
            raise InputError(
                f"{self.directory / str(step)} holds another model: {key} is {have.get(key)} there and {want.get(key)} "
                "in this configuration"
            )
        for key, wanted in abstract.items():
            if str(stored[key].dtype) != str(wanted.dtype):
                raise InputError(
                    f"{self.directory / str(step)} holds {key} as {stored[key].dtype}, and this process makes it "
                    f"{wanted.dtype}: set JAX_ENABLE_X64 as it was when the checkpoint was written (usually: unset it)"
                )


def _is_of_the_machine(error: Exception) -> bool:
    """Whether an error says nothing of the checkpoint: memory, permissions, open files, a file system that is away."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE):
        return True
    return any(said in str(error) for said in _SAID_OF_THE_MACHINE)


def _not_now(directory: Path, why: str) -> str:
    return f"{directory} cannot be read now: {why}: it is left as it is; start the same command again when it can be"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that Orbax logs before it raises what `DamagedCheckpoint` says in a line."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).replace("/", "|"): leaf for path, leaf in leaves}


def _checksums(arrays: dict[str, jax.Array]) -> tuple[list[int], list[bool]]:
    """One number of 32 bits for each array, sorted by name, and whether all its numbers are finite.

    One program at a time: of several that are under way, each waiting for the other hosts, the threads of a CPU hold
    some, those of another host hold others, and all wait for ever (seen with two processes on two cores).
    """
    jax.block_until_ready(arrays)
    found = [jax.device_get(_checksum(arrays[key])) for key in sorted(arrays)]
    return [int(sum_) for sum_, _ in found], [bool(finite) for _, finite in found]


# A program for each shape, not one for all arrays: those of the optimizer have the shapes of the model's, and less is
# compiled.
@jax.jit
def _checksum(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum, modulo 2^32, of a hash of each entry's bits and place, and whether all entries are finite.

    The hash is a bijection of 32 bits, so any change of one entry changes the sum; several changes leave it as it was
    once in 2^32. Integer sums are exact in any order: the number is the same on every mesh.
    """
    finite = jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.ones((), bool)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(x.shape):
        shape = (1,) * axis + (size,) + (1,) * (x.ndim - axis - 1)
        place = _mixed(place * np.uint32(0x01000193) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis))
    return jnp.sum(_mixed(bits + place), dtype=jnp.uint32), finite


def _mixed(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: every bit of the result depends on every bit of x, one to one."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
