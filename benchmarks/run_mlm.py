"""The loss curves of run_mlm.py and of jaxmlm beside each other: python benchmarks/run_mlm.py [--text wiki.txt]

Needs the extra `parity`, and accelerate. `run_mlm.py` is the Trainer of transformers with its collator of masked LMs.
Both programs start from the same exported weights and read the same rows in the same order, at 15 % and 80-10-10, with
the Trainer's own defaults: AdamW without weight decay, a linear schedule, a clipped norm, dropout 0.1. Masks and
dropout are each program's own draws, so the curves differ by noise: the seeds of either program say by how much.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxmlm
from jaxmlm import Batches, Data, Loop, Masking, Optim, Replace, Run
from jaxmlm.models import preset
from jaxmlm.training import AdamW

BATCH, LENGTH = 32, 64
RATE = 0.15
LEARNING_RATE = 1e-3


def main() -> None:
    """Print one JSON object: the losses of each program by step, mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="sample:20000")
    parser.add_argument("--vocab", type=int, default=700)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--window", type=int, default=100, help="steps of which a loss is the mean")
    parser.add_argument("--workdir", type=Path, default=Path("runs/run_mlm"))
    parser.add_argument("--only", choices=("jaxmlm", "peer"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:  # one run, in a process of its own
        program = ours if asked.only == "jaxmlm" else theirs
        print(json.dumps(program(asked, asked.seeds[0])))
        return
    start_weights(asked)
    curves: dict[str, list[dict[str, float]]] = {"jaxmlm": [], "peer": []}
    for seed in asked.seeds:
        for name, runs in curves.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--seeds", str(seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(name, seed, runs[-1], file=sys.stderr, flush=True)
    found = {name: {step: summary(runs, step) for step in runs[0]} for name, runs in curves.items()}
    print(json.dumps(found, indent=1))


def summary(runs: list[dict[str, float]], step: str) -> list[float]:
    """The mean of the seeds' losses and their standard deviation."""
    losses = [run[step] for run in runs]
    return [round(statistics.mean(losses), 4), round(statistics.stdev(losses), 4) if len(losses) > 1 else 0.0]


def data(asked: argparse.Namespace) -> Data:
    """The rows that both read, tokenized by the exported tokenizer."""
    store, exported = (str(asked.workdir / name) for name in ("store", "exported"))
    return Data(asked.text, store=store, tokenizer=exported, length=LENGTH, valid=0.02)


def start_weights(asked: argparse.Namespace) -> None:
    """Random weights and a tokenizer, as a directory of the transformers format."""
    text = Data(asked.text, vocab=asked.vocab)
    run = Run(str(asked.workdir / "start"), data=text, model=preset("tiny"), loop=Loop(steps=0))
    jaxmlm.pretrain(run)
    if not (asked.workdir / "exported").exists():
        jaxmlm.export(run.workdir, asked.workdir / "exported")


def ours(asked: argparse.Namespace, seed: int) -> dict[str, float]:
    """The losses of a run of jaxmlm, by the last step of each window."""
    run = Run(
        str(asked.workdir / f"ours_{seed}"),
        data=replace(data(asked), tokenizer=None),  # it comes with `init`
        masking=Masking(RATE, replace=Replace(mask=0.8, random=0.1, keep=0.1)),
        init=str(asked.workdir / "exported"),
        optim=Optim(LEARNING_RATE, warmup=0.0, optimizer=AdamW(b2=0.999, eps=1e-8, weight_decay=0.0), clip=1.0),
        loop=Loop(asked.steps, BATCH, seed=seed, save_every=asked.steps, log_every=asked.window),
    )
    jaxmlm.pretrain(run)
    lines = [json.loads(line) for line in Path(run.workdir, "log.jsonl").read_text().splitlines()]
    return {str(line["step"]): line["loss"] for line in lines if line.get("loss")}


def theirs(asked: argparse.Namespace, seed: int) -> dict[str, float]:
    """The losses of a run of the Trainer, by the last step of each window."""
    import torch
    import transformers

    start = asked.workdir / "exported"
    store = jaxmlm.open_store(data(asked), asked.workdir)
    batches = Batches(jaxmlm.open_rows(store, "train", LENGTH), BATCH, seed=seed)

    class RowsInOrder(torch.utils.data.Dataset):
        """The rows of each step, one after the other."""

        def __len__(self) -> int:
            return asked.steps * BATCH

        def __getitem__(self, number: int) -> dict[str, Any]:
            step, row = divmod(number, BATCH)
            if row == 0:
                self._rows = batches.at(step)["ids"].tolist()
            return {"input_ids": self._rows[row], "attention_mask": [1] * LENGTH}

    class InOrder(transformers.Trainer):
        """A Trainer that does not shuffle: the rows are shuffled already."""

        def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(RowsInOrder())

    arguments = transformers.TrainingArguments(
        str(asked.workdir / f"theirs_{seed}"),
        max_steps=asked.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        seed=seed,
        logging_steps=asked.window,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    trainer = InOrder(
        transformers.AutoModelForMaskedLM.from_pretrained(start),
        arguments,
        transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=RATE),
        RowsInOrder(),
    )
    trainer.train()
    return {str(line["step"]): float(line["loss"]) for line in trainer.state.log_history if "loss" in line}


if __name__ == "__main__":
    main()
