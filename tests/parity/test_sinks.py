"""TensorBoard and Weights & Biases (offline) get what log.jsonl holds, also after a run is resumed."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxmlm.training import Loop, train
from tests.training.test_loop import OPTIM, STEPS, Killed, counting_eval, devices, killed_at, linear_task, lines

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def resumed_run(directory: Path, sink: str) -> list[dict[str, Any]]:
    """The log of a run that was killed after step 5, whose newest checkpoint was of step 4."""
    loop = Loop(STEPS, 8, log_every=1, save_every=2, eval_every=2, sinks=(sink,))
    with pytest.raises(Killed):
        train(linear_task(killed_at(5), evals=counting_eval([])), OPTIM, loop, devices(1, 1, 1), directory)
    train(linear_task(evals=counting_eval([])), OPTIM, loop, devices(1, 1, 1), directory)
    return lines(directory)


def test_tensorboard(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    log = resumed_run(tmp_path, "tensorboard")
    found: dict[tuple[str, int], float] = {}
    purged = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            data = data[12 + size + 4 :]
            if event.HasField("session_log"):
                purged.append(event.step)
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    assert purged == [1, 5]  # of a start from step 0, and what the killed run wrote after its checkpoint of step 4
    training = [line for line in log if "eval" not in line]
    for line in training:
        assert found["train/loss", line["step"]] == pytest.approx(line["loss"], abs=1e-6)
    assert {step for tag, step in found if tag == "mean_output/mean"} == {2, 4, 6}
    assert {"train/grad_norm", "train/skipped_updates", "train/tokens_per_second"} <= {tag for tag, _ in found}


def level_db_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, each record in one to several fragments."""
    at, record = 7, b""  # after W&B's own header
    while at < len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # complete, or the last fragment
            yield record
            record = b""


def test_wandb_offline(tmp_path, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "jaxmlm-test")
    log = resumed_run(tmp_path, "wandb")
    rows: list[dict[str, Any]] = []
    ids = set()
    for file in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        for data in level_db_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = record.history.item
                rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    assert ids == {(tmp_path / "wandb_id").read_text()}
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert losses == {line["step"]: line["loss"] for line in log if "eval" not in line}
    assert {row["step"] for row in rows if "mean_output/mean" in row} == {2, 4, 6}
