"""Checkpoints by Orbax: complete or absent, and checked by a checksum of every array before they are trusted.

A checkpoint holds flat dictionaries "path of the parameter" -> array, `model` and `rest` (step, optimizer) separately,
so that a model can be read without its optimizer, on any mesh.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxmlm.errors import InputError
from jaxmlm.training.step import TrainState


def fingerprint(folder: Path) -> str | None:
    """A hash of the newest model in the directory of a run, or of that of a step; None: there is none."""
    steps = [path for path in folder.glob("checkpoints/[0-9]*/checksums/metadata") if path.parts[-3].isdigit()]
    if (own := folder / "checksums" / "metadata").is_file():
        steps.append(own)
    if not steps:
        return None
    newest = max(steps, key=lambda path: int(path.parts[-3]))
    return hashlib.sha256(json.dumps(json.loads(newest.read_text())["model"]).encode()).hexdigest()[:16]


class Checkpoints:
    """The checkpoints of a run, in `folder`/STEP.

    Args:
        folder: their directory.
        keep: number of the newest checkpoints that are kept.
        read: nothing is written, nor is removed what a kill left: a run may be saving there at that moment.

    """

    def __init__(self, folder: str | Path, keep: int = 2, read: bool = False):
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=not read, create=not read, save_root_metadata=not read
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in ("model", "rest")}
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=handlers | {"checksums": ocp.JsonCheckpointHandler()}
        )
        # `stop_agreed` decides when to stop; Orbax (checked: 0.12.3) would give JAX's one counter numbers of its own.
        self._manager.reached_preemption = lambda step: False

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None: there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, notes: Mapping[str, Any] | None = None) -> None:
        """Write the state; returns as soon as the arrays are copied to the host.

        Args:
            state: of the run; its step names the checkpoint.
            notes: what else is needed to resume, plain JSON values.

        """
        model, rest = _flat(state.model), _flat({"step": state.step, "opt_state": state.opt_state})
        sums = {
            key: [int(x) for x in jax.device_get(_checksums(part))] for key, part in (("model", model), ("rest", rest))
        }
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(model),
            rest=ocp.args.StandardSave(rest),
            checksums=ocp.args.JsonSave(sums | {"notes": dict(notes or {})}),
        )
        if not self._manager.save(int(state.step), args=items):
            raise RuntimeError(f"the checkpoint of step {int(state.step)} was not written to {self.folder}")

    def restore(self, like: TrainState) -> TrainState:
        """Read the newest checkpoint.

        Args:
            like: a state with the same shapes, arrays or abstract values; the result is sharded like it.

        Raises:
            InputError: there is no checkpoint, it holds another model, or it is damaged.

        """
        rest = self._read("rest", {"step": like.step, "opt_state": like.opt_state})
        return TrainState(rest["step"], self.model(like.model), rest["opt_state"])

    def notes(self) -> dict[str, Any]:
        """The notes of the newest checkpoint."""
        read = self._manager.restore(self.latest(), args=ocp.args.Composite(checksums=ocp.args.JsonRestore()))
        return read["checksums"].get("notes", {})

    def model(self, like: Any, step: int | None = None) -> Any:
        """Read the model of a step, by default the newest; arguments and errors as in `restore`."""
        return self._read("model", like, step)

    def close(self) -> None:
        """Wait until everything is on disk; an error of a write is raised here."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _read(self, item: str, like: Any, step: int | None = None) -> Any:
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise InputError(f"{self.folder} holds no complete checkpoint: pre-train first")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise InputError(
                f"{self.folder / str(step)} is not a complete checkpoint: there are {', '.join(map(str, steps))}"
            )
        leaves, treedef = jax.tree.flatten(like)
        abstract = {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for key, x in _flat(like).items()}
        kinds = {item: ocp.args.StandardRestore(abstract), "checksums": ocp.args.JsonRestore()}  # type: ignore[arg-type]
        try:
            self._same_shapes(step, item, abstract)
            read = self._manager.restore(step, args=ocp.args.Composite(**kinds))
        except InputError:
            raise
        except (ValueError, LookupError, OSError) as error:  # how Orbax and TensorStore report damage
            raise self._damaged(step, " ".join(str(error).split())[:200]) from error
        sums = np.array(jax.device_get(_checksums(read[item])))
        if not np.array_equal(sums, np.array(read["checksums"][item])):
            bad = [key for key, a, b in zip(sorted(abstract), sums, read["checksums"][item], strict=True) if a != b]
            raise self._damaged(step, f"{bad[0]} does not have its checksum")
        return jax.tree.unflatten(treedef, [read[item][key] for key in _flat(like)])

    def _damaged(self, step: int, why: str) -> InputError:
        return InputError(
            f"{self.folder / str(step)} is damaged: {why}: delete that directory, then the checkpoint before it is used"
        )

    def _same_shapes(self, step: int, item: str, abstract: dict[str, jax.ShapeDtypeStruct]) -> None:
        stored = self._manager.item_metadata(step)[item]
        have = {key: tuple(x.shape) for key, x in stored.tree.items()} if stored is not None else {}
        want = {key: tuple(x.shape) for key, x in abstract.items()}
        if have != want:
            key = next(key for key in sorted(have.keys() | want.keys()) if have.get(key) != want.get(key))
            raise InputError(
                f"{self.folder / str(step)} holds another model: {key} is {have.get(key)} there and {want.get(key)} "
                "in this configuration"
            )


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).replace("/", "|"): leaf for path, leaf in leaves}


@jax.jit
def _checksums(arrays: dict[str, jax.Array]) -> list[jax.Array]:
    """One uint32 for each array, sorted by name: the sum of its bits times odd weights, modulo 2^32.

    Integer sums are exact in any order, so the number is the same on every mesh. Any single changed entry changes it.
    """

    def one(x: jax.Array) -> jax.Array:
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
        weights = jnp.ones((), jnp.uint32)
        for axis, size in enumerate(x.shape):
            iota = jax.lax.broadcasted_iota(jnp.uint32, (1,) * axis + (size,) + (1,) * (x.ndim - axis - 1), axis)
            weights = weights * (2 * iota + 1) if axis == 0 else weights * (2 * iota * np.uint32(40503 + 2 * axis) + 1)
        return jnp.sum(bits * weights, dtype=jnp.uint32)

    return [one(arrays[key]) for key in sorted(arrays)]
