"""Checkpoints: what a kill, a move, a reader beside the run or damage does to a run."""

import errno
import gc
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from jaxmlm.errors import InputError
from jaxmlm.training import Checkpoints, Loop, TrainState, train
from jaxmlm.training import loop as loop_module
from jaxmlm.training.checkpoint import DamagedCheckpoint, _checksums, _sha256, fingerprint
from jaxmlm.training.step import make_step
from tests.training.test_loop import (
    OPTIM,
    STEPS,
    Killed,
    assert_equal,
    batch_at,
    devices,
    killed_at,
    linear_task,
    restored,
)

# A damaged read of Orbax ends while its other reads are under way; they complain that its event loop is closed.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in[\s\S]*(Event loop is closed|_read_array):pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """They complain when they are collected: here, and not within a test of another file."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def whole() -> TrainState:
    """The state after all steps of a run that nobody killed."""
    return train(linear_task(), OPTIM, Loop(STEPS, 8), devices(1, 1, 1)).state


def test_steps_that_are_to_be_kept_are_kept_through_a_kill(whole, tmp_path):
    """Beside the two newest; and they are checkpoints like any other."""
    assert STEPS == 6
    loop = Loop(STEPS, 8, save_every=2, keep=(1, 3))
    with pytest.raises(Killed):
        train(linear_task(killed_at(4)), OPTIM, loop, devices(1, 1, 1), tmp_path)
    done = train(linear_task(), OPTIM, loop, devices(1, 1, 1), tmp_path)
    assert_equal(done.state, whole)
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")) == [1, 3, 4, 6]
    with closing(Checkpoints(tmp_path / "checkpoints", read=True)) as checkpoints:
        first = checkpoints.model(whole.model, 1)
    assert not np.array_equal(*(jax.tree.leaves(model)[0] for model in (first, whole.model)))
    with pytest.raises(InputError, match=r"loop.keep names steps to keep, and loop.save_every 0 writes no checkpoint"):
        Loop(STEPS, 8, save_every=0, keep=(1,))


@pytest.fixture(scope="module")
def halfway(tmp_path_factory) -> Path:
    """The directory of that run killed in step 5, with a checkpoint of step 3."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.raises(Killed):
        train(linear_task(killed_at(4)), OPTIM, Loop(STEPS, 8, save_every=3), devices(1, 1, 1), directory)
    return directory


def test_a_killed_run_ends_bit_for_bit_as_the_whole_one(whole, halfway, tmp_path):
    directory = Path(shutil.copytree(halfway, tmp_path / "run"))
    assert [child.name for child in (directory / "checkpoints").iterdir()] == ["3"]
    seen = []
    task = linear_task(lambda step: seen.append(step) or batch_at(step))
    state = train(task, OPTIM, Loop(STEPS, 8, save_every=3), devices(1, 1, 1), directory).state
    assert seen == [3, 4, 5]
    assert_equal(state, whole)
    assert_equal(restored(directory, devices(1, 1, 1)), whole)
    other = train(linear_task(), OPTIM, Loop(STEPS, 8, seed=1), devices(1, 1, 1)).state
    assert not np.array_equal(other.model.kernel[...], whole.model.kernel[...])


def test_a_checkpoint_is_read_on_another_mesh(halfway):
    one, other = restored(halfway, devices(1, 1, 1)), restored(halfway, devices(2, 2, 2))
    assert_equal(one, other)
    assert other.model.kernel[...].sharding.spec == jax.P("fsdp", "tensor")
    moments = [x for x in jax.tree.leaves(other.opt_state) if x.shape == (8, 4)]
    assert len(moments) == 2 and {x.sharding.spec for x in moments} == {jax.P("fsdp", "tensor")}


def test_weights_have_a_fingerprint(halfway, tmp_path, monkeypatch):
    """By the directory of the run or of the step: the same weights, the same; others, another; none, none."""
    directory = Path(shutil.copytree(halfway, tmp_path / "run"))
    before = fingerprint(directory)
    assert before and before == fingerprint(directory / "checkpoints" / "3")
    train(linear_task(), OPTIM, Loop(STEPS, 8, save_every=3), devices(1, 1, 1), directory)
    assert before == fingerprint(directory / "checkpoints" / "3") != fingerprint(directory)
    assert fingerprint(directory) == fingerprint(directory / "checkpoints" / "6")
    assert fingerprint(tmp_path) is None
    monkeypatch.chdir(shutil.copytree(directory / "checkpoints" / "3", tmp_path / "best"))
    assert before == fingerprint(tmp_path / "best") == fingerprint(Path())
    sums = directory / "checkpoints" / "6" / "checksums" / "metadata"
    for content in (sums.read_bytes()[:-9], b"{}", sums.read_bytes().replace(b"1", b"2")):
        sums.write_bytes(content)
        with pytest.raises(InputError, match="checksums"):
            fingerprint(directory)


def test_a_run_that_goes_on_makes_no_first_state(halfway, tmp_path):
    """It would lie beside the one that is read: twice the memory."""
    task = linear_task()

    def init(key: jax.Array) -> Any:
        assert isinstance(key, jax.core.Tracer)
        return task.init(key)

    directory = Path(shutil.copytree(halfway, tmp_path / "run"))
    train(task._replace(init=init), OPTIM, Loop(STEPS, 8, save_every=3), devices(1, 1, 1), directory)


def test_the_step_is_compiled_once_while_the_state_is_made(monkeypatch, caplog):
    """Beside it and for it: what is made has the shapes and shardings that were compiled for."""
    made = []
    monkeypatch.setattr(loop_module, "make_step", lambda *args: made.append(make_step(*args)) or made[-1])
    jax.config.update("jax_log_compiles", True)  # of all threads
    try:
        with caplog.at_level("WARNING"):
            train(linear_task(drop=0.25), OPTIM, Loop(2, 8, save_every=0), devices(2, 2, 2))
    finally:
        jax.config.update("jax_log_compiles", False)
    told = [record.getMessage() for record in caplog.records]
    assert sum("Finished XLA compilation of jit(step)" in line for line in told) == 1
    assert made[0]._cache_size() == 1


def test_who_reads_leaves_alone_what_is_being_written(halfway, tmp_path):
    """A run may be saving while its newest checkpoint is judged; what a kill left is for its next start to clear."""
    directory = Path(shutil.copytree(halfway / "checkpoints", tmp_path / "checkpoints"))
    (begun := directory / "6.orbax-checkpoint-tmp" / "model").mkdir(parents=True)
    for reading in (True, False):
        checkpoints = Checkpoints(directory, read=reading)
        assert checkpoints.latest() == 3
        checkpoints.close()
        for _ in range(100):  # Orbax deletes in the background
            if reading or not begun.exists():
                break
            time.sleep(0.1)
        assert begun.exists() == reading
    reader = Checkpoints(tmp_path / "none", read=True)
    assert reader.latest() is None and not (tmp_path / "none").exists()


def test_any_change_of_bits_changes_the_checksum():
    """Also of the highest bits, and of several: signs, whole arrays, two entries exchanged."""
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)

    def sum_of(array: np.ndarray) -> int:
        return int(_checksums({"x": jax.numpy.asarray(array)})[0][0])

    def flipped(*bits: tuple[int, int]) -> np.ndarray:
        changed = x.copy()
        for entry, bit in bits:
            changed.view(np.uint32).reshape(-1)[entry] ^= np.uint32(1 << bit)
        return changed

    pairs = [((i, bit), (j, bit)) for bit in (30, 31) for i in range(24) for j in range(i)]
    changed = [-x, x[::-1], x[:, ::-1], x * 2, *(flipped(*pair) for pair in pairs)]
    changed += [flipped((entry, bit)) for entry in range(24) for bit in range(32)]
    sums = {sum_of(one) for one in changed}
    assert sum_of(x) not in sums and len(sums) == len(changed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_a_checksum_is_the_same_on_every_mesh(dtype):
    x = np.random.default_rng(0).integers(0, 2, (8, 4)).astype(jax.numpy.dtype(dtype))
    sums = set()
    for mesh in (devices(1, 1, 1), devices(2, 2, 2)):
        with jax.set_mesh(mesh):
            array = jax.device_put(x, jax.NamedSharding(mesh, jax.P("fsdp", "tensor")))
            sums.add(int(_checksums({"x": array})[0][0]))
    assert len(sums) == 1 and sums != {0}


@pytest.fixture(scope="module")
def twice_saved(tmp_path_factory) -> Path:
    """The directory of a run killed in step 6, with checkpoints of steps 2 and 4."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.raises(Killed):
        train(linear_task(killed_at(5)), OPTIM, Loop(STEPS, 8, save_every=2), devices(1, 1, 1), directory)
    return directory


def largest(directory: Path) -> Path:
    return max(directory.iterdir(), key=lambda file: file.stat().st_size)


def flip(file: Path, at: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 0x10
    file.write_bytes(content)


DAMAGE = {
    "data": lambda directory: flip(largest(directory / "model" / "d")),
    "optimizer": lambda directory: flip(largest(directory / "rest" / "d")),
    "data truncated": lambda directory: os.truncate(largest(directory / "model" / "d"), 10),
    "data gone": lambda directory: shutil.rmtree(directory / "rest" / "d"),
    "item gone": lambda directory: shutil.rmtree(directory / "rest"),
    "metadata gone": lambda directory: (directory / "model" / "_METADATA").unlink(),
    "metadata empty": lambda directory: (directory / "rest" / "_METADATA").write_text(""),
    "array metadata": lambda directory: flip(next((directory / "model" / "array_metadatas").iterdir()), 0.3),
    "manifest": lambda directory: flip(directory / "model" / "manifest.ocdbt"),
    "checksums gone": lambda directory: shutil.rmtree(directory / "checksums"),
    "notes": lambda directory: (sums := directory / "checksums" / "metadata").write_text(
        sums.read_text().replace('"tokens": ', '"tokens": 1')
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(what, twice_saved, whole, tmp_path, capfd):
    """Named in one line; the run ends with the same bits. What is harmless changes nothing."""
    directory = Path(shutil.copytree(twice_saved, tmp_path / "run"))
    DAMAGE[what](directory / "checkpoints" / "4")
    seen = []
    task = linear_task(lambda step: seen.append(step) or batch_at(step))
    state = train(task, OPTIM, Loop(STEPS, 8, save_every=2), devices(1, 1, 1), directory).state
    assert_equal(state, whole)
    said = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line or "Traceback" in line]
    if 2 not in seen:
        assert what == "array metadata" and not said  # nothing that is read stands there
        return
    assert len(said) == 1 and "checkpoints/4 is damaged: " in said[0]
    assert said[0].endswith(f"set aside as {directory / 'damaged' / '4'}") and (directory / "damaged" / "4").is_dir()


def test_a_damaged_checkpoint_may_not_be_passed_over_in_silence(twice_saved, tmp_path):
    """Where a flag forbids it, or where there is no other."""
    directory = Path(shutil.copytree(twice_saved, tmp_path / "run"))
    flip(largest(directory / "checkpoints" / "4" / "model" / "d"))
    with pytest.raises(DamagedCheckpoint, match=r"checkpoints/4 is damaged"):
        train(linear_task(), OPTIM, Loop(STEPS, 8, save_every=2, fallback=False), devices(1, 1, 1), directory)
    shutil.rmtree(directory / "checkpoints" / "2")
    with pytest.raises(DamagedCheckpoint, match=r"checkpoints/4 is damaged"):
        train(linear_task(), OPTIM, Loop(STEPS, 8, save_every=2), devices(1, 1, 1), directory)
    assert (directory / "checkpoints" / "4").is_dir()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234 bytes."),
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("what", ["restore", "item_metadata"])
def test_an_error_of_the_machine_leaves_a_checkpoint_alone(what, error, twice_saved, whole, tmp_path, monkeypatch):
    """It is not the checkpoint's fault, which the next start reads."""
    directory = Path(shutil.copytree(twice_saved, tmp_path / "run"))

    def fails(*_, **__):
        raise error

    loop = Loop(STEPS, 8, save_every=2)
    with monkeypatch.context() as patched:
        patched.setattr(orbax.checkpoint.CheckpointManager, what, fails)
        with pytest.raises(InputError, match="checkpoints/4 cannot be read now: .*: it is left as it is") as caught:
            train(linear_task(), OPTIM, loop, devices(1, 1, 1), directory)
    assert not isinstance(caught.value, DamagedCheckpoint) and not (directory / "damaged").exists()
    assert_equal(train(linear_task(), OPTIM, loop, devices(1, 1, 1), directory).state, whole)


def test_every_checkpoint_of_a_run_is_verified_without_its_model(twice_saved, tmp_path):
    directory = Path(shutil.copytree(twice_saved, tmp_path / "run"))
    flip(largest(directory / "checkpoints" / "2" / "rest" / "d"))
    checkpoints = Checkpoints(directory / "checkpoints", read=True)
    found = dict(checkpoints.verify())
    checkpoints.close()
    assert found[4] == "" and "checkpoints/2 is damaged" in found[2]


@pytest.mark.parametrize("item", ["model", "rest"])
def test_a_flipped_byte_is_refused(halfway, tmp_path, item):
    directory = Path(shutil.copytree(halfway, tmp_path / "run"))
    flip(largest(directory / "checkpoints" / "3" / item / "d"))
    with pytest.raises(InputError, match=r"checkpoints/3 is damaged.*delete that directory"):
        restored(directory, devices(1, 1, 1))


def test_other_values_than_were_saved_are_refused(halfway, tmp_path):
    directory = Path(shutil.copytree(halfway, tmp_path / "run"))
    (sums,) = (directory / "checkpoints" / "3" / "checksums").glob("*metadata*")
    plain = json.loads(sums.read_text())
    plain["model"][1] ^= 1
    sums.write_text(json.dumps(plain))
    with pytest.raises(InputError, match=r"checkpoints/3 is damaged: its file of checksums does not match its own"):
        restored(directory, devices(1, 1, 1))
    plain["sha256"] = _sha256({name: value for name, value in plain.items() if name != "sha256"})
    sums.write_text(json.dumps(plain))
    with pytest.raises(InputError, match=r"checkpoints/3 is damaged: \.kernel.*checksum"):
        restored(directory, devices(1, 1, 1))


def test_numbers_of_another_type_are_not_called_damaged(halfway, whole):
    """As under JAX_ENABLE_X64: the checkpoint is good, and its checksums are not those of converted numbers."""
    converted = jax.tree.map(lambda x: x.astype(jnp.bfloat16), whole.model)
    with closing(Checkpoints(halfway / "checkpoints", read=True)) as checkpoints:
        with pytest.raises(
            InputError, match=r"checkpoints/3 holds \.\w+.* as float32, and this process makes it bfloat16"
        ):
            checkpoints.model(converted, 3)
        assert checkpoints.model(whole.model, 3)


def test_the_checkpoint_of_another_model_is_refused(halfway):
    with pytest.raises(InputError, match=r"checkpoints/3 holds another model: .*\(4,\) there and \(6,\)"):
        restored(halfway, devices(1, 1, 1), linear_task(width=6))
    with pytest.raises(InputError, match="holds no complete checkpoint"):
        restored(halfway / "elsewhere", devices(1, 1, 1))
