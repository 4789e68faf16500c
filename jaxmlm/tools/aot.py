"""A training step compiled for a TPU that is not there, in a process of its own: libtpu is loud, and alone in one.

`compiled_for` starts that process and gives what it found; `python -m jaxmlm.tools.aot` is the process.
"""

import base64
import importlib.machinery
import importlib.util
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from jaxmlm.errors import InputError, brief
from jaxmlm.json_files import to_json
from jaxmlm.masking.laws import Law
from jaxmlm.parallel import abstract, make_mesh, spec
from jaxmlm.rng import make_key
from jaxmlm.runs.run import Run
from jaxmlm.tasks.mlm import mlm_task
from jaxmlm.tools import hlo
from jaxmlm.tools.hardware import GENERATIONS, Topology, peak_memory
from jaxmlm.tools.stand_ins import BlankStore
from jaxmlm.training import TrainState
from jaxmlm.training.step import make_step
from jaxmlm.user_code import CONFIG_MODULE, directories_beside
from jaxmlm.wording import install_command

ENVIRONMENT = {
    "JAX_TRACEBACK_FILTERING": "off",  # else the last line of an error does not say what it is
    "JAX_PLATFORMS": "cpu",  # the TPU is a description only
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks a metadata server for minutes
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nor does it lock the machine's TPU, if there is one
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_ANSWER = "jaxmlm-ahead: "


def compiled_for(run: Run, topology: Topology, slices: int = 1) -> dict[str, Any]:
    """What the compiler says of a run's training step on this topology.

    {"fits": True, "chips", bytes on each chip: "parameters", "optimizer", "temporaries" over the whole step, "total" at
    the fullest moment; "moved": bytes of memory that a step reads and writes on each; "collectives": {kind: {"times",
    "bytes", "hidden"}}, bytes sent by each, and those of them that other work hides; "seconds" of compilation}. What
    does not fit has "fits" False, "why", "total" and "limit".
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"compiling for TPUs needs libtpu, which is not installed: {install_command('tpu')} "
            "(Linux on x86; no TPU is needed)"
        )
    asked = base64.b64encode(packed((run, topology, slices)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_COMPILATION_CACHE")}
    places = [*directories_beside(), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    done = subprocess.run(
        [sys.executable, "-m", "jaxmlm.tools.aot"],
        input=asked,
        capture_output=True,
        env={**environment, **ENVIRONMENT},
    )
    answers = [line for line in done.stdout.decode().splitlines() if line.startswith(_ANSWER)]
    if not answers:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise RuntimeError(f"compiling for {topology.name} ended with code {done.returncode}: {said[-1][:300]}")
    answer = json.loads(answers[-1].removeprefix(_ANSWER))
    if "wrong" in answer:
        raise InputError(answer["wrong"])
    return answer


def packed(asked: Any) -> bytes:
    """A pickle that another process can read, also where classes of a config file are in it.

    Raises:
        InputError: a class of it is not at the top of the config file.

    """
    file = io.BytesIO()
    try:
        _Pickler(file).dump(asked)
    except (pickle.PicklingError, AttributeError) as error:
        raise InputError(
            f"compiling is done in a process of its own, which cannot find a part of the configuration ({error}): "
            "define its class at the top of the config file"
        ) from error
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj.__module__.startswith(CONFIG_MODULE) and "." not in obj.__qualname__:
            return _of_config, (obj.__module__, obj.__name__)
        return NotImplemented


def _of_config(module: str, name: str) -> Any:
    """A class of a config file, which is run for it if this process has not done so."""
    if module not in sys.modules:
        loader = importlib.machinery.SourceFileLoader(module, module.removeprefix(CONFIG_MODULE))
        made = importlib.util.spec_from_loader(module, loader)
        assert made is not None
        sys.modules[module] = importlib.util.module_from_spec(made)
        loader.exec_module(sys.modules[module])
    return getattr(sys.modules[module], name)


def main() -> None:
    """Read what is asked from standard input, print the answer."""
    sys.dont_write_bytecode = True  # beside a config file
    try:
        run, topology, slices = pickle.loads(base64.b64decode(sys.stdin.buffer.read()))
        answer = _compile(run, topology, slices)
    except InputError as error:
        answer = {"wrong": str(error)}
    print(_ANSWER + to_json(answer), flush=True)


def _compile(run: Run, topology: Topology, slices: int) -> dict[str, Any]:
    devices = _devices(topology, slices)
    mesh = make_mesh(run.mesh, devices)
    units = run.needs_phrases
    with jax.set_mesh(mesh):
        key = abstract(lambda: make_key(0))
        store = BlankStore(run.data, run.loop.batch)
        task = mlm_task(store, run.data, run.masking, run.model, run.loop.batch, run.loop.seed)
        optimizer = run.optim.transformation(run.loop.steps)
        model = abstract(task.init, key)
        opt_state = abstract(optimizer.init, model)
        state = TrainState(_array((), jnp.int32), model, opt_state)
        rows = {"ids": _array((run.loop.batch, run.data.length), jnp.int32, "batch", None)}
        rows["example"] = _array((run.loop.batch,), jnp.int32, "batch")
        if isinstance(run.masking.rate, Law):
            rows["place"] = _array((run.loop.batch,), jnp.int32, "batch")
        if run.data.format != "packed":
            rows["segments"] = _array((run.loop.batch, run.data.length), jnp.int32, "batch", None)
        if units:
            rows["unit"] = _array((run.loop.batch, run.data.length), jnp.uint8, "batch", None)
        started = time.perf_counter()
        lowered = (
            make_step(task, optimizer, run.loop.accumulate).trace(state, rows, key).lower(lowering_platforms=("tpu",))
        )
        sizes = {"chips": len(devices), "parameters": _held(model), "optimizer": _held(opt_state)}
        try:
            made = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return {"fits": False, **sizes, **_too_much(str(error)), "seconds": time.perf_counter() - started}
    seconds = time.perf_counter() - started
    program = hlo.read(made.as_text())
    found: dict[str, dict[str, float]] = {}
    for one in program.collectives():
        sums = found.setdefault(one.kind, {"times": 0, "bytes": 0.0, "hidden": 0.0})
        sums["times"] += one.times
        sums["bytes"] += one.bytes
        sums["hidden"] += one.bytes * one.hidden
    return {
        "fits": True,
        **sizes,
        "temporaries": made.memory_analysis().temp_size_in_bytes,
        "total": peak_memory(made),
        "moved": program.moved(),
        "collectives": found,
        "seconds": seconds,
    }


def _devices(topology: Topology, slices: int) -> list:
    from jax.experimental import topologies

    options = topology.options | ({"num_slices": slices} if slices > 1 else {})
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        names = ", ".join(f"{topology.generation}:{sizes}" for sizes in GENERATIONS[topology.generation].slices)
        why = brief(error)[:120]
        raise InputError(f"libtpu knows no {slices} x {topology.name} ({why}); it knows {names}") from error


def _array(shape: tuple[int, ...], dtype: Any, *axes: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(jax.sharding.get_mesh(), spec(*axes)))


def _held(tree: Any) -> int:
    """Bytes that one device holds of these arrays."""
    leaves = jax.tree.leaves(tree)
    return sum(int(x.dtype.itemsize) * math.prod(x.sharding.shard_shape(x.shape)) for x in leaves)


def _too_much(error: str) -> dict[str, Any]:
    """What XLA says where a program does not fit: bytes it wants, bytes there are."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "": 1}
    told = re.search(r"([\d.]+)([KMGT]?)i?B? (?:of|exceeds available HBM \() ?([\d.]+)([KMGT]?)", error)
    line = next(line for line in error.splitlines() if "RESOURCE_EXHAUSTED" in line)[:300]
    if not told:
        return {"why": line, "total": None, "limit": None}
    return {"why": line, "total": float(told[1]) * units[told[2]], "limit": float(told[3]) * units[told[4]]}


if __name__ == "__main__":
    main()
