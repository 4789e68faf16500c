"""Fine-tuning beside transformers: python benchmarks/glue.py DIRECTORY        # DIRECTORY: glue_data; extra `parity`

An encoder of 4 x 256 (a BERT, random weights, a WordPiece vocabulary trained on the task) in both; the same rows, 16 in
a batch, at most 128 tokens, AdamW, dropout 0.1, float32. Theirs pads each batch to its longest row (the usual
collator); ours has its length buckets. Both take turns over spans of steps, each in a process of its own; compilation
is not counted, each span is the same number of rows. `--memory` runs many fine-tunings in one process and prints its
memory after each.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from turns import in_turns, jax_product, serve, torch_product

from jaxmlm.malloc import keep_freed_memory

BATCH, LENGTH = 16, 128


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--tasks", nargs="+", default=["rte", "sst2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="steps in a span")
    parser.add_argument("--memory", type=int, default=0, metavar="RUNS")
    parser.add_argument("--only", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        if asked.only == "jaxmlm":
            keep_freed_memory()  # as the command does
        span = PROGRAMS[asked.only](asked.tasks[0], asked.directory, asked.model)
        serve(lambda: span(asked.steps), jax_product() if asked.only == "jaxmlm" else torch_product())
        return
    with tempfile.TemporaryDirectory() as directory:
        for task in asked.tasks:
            place = str(Path(directory) / task)
            saved(task, asked.directory, place)
            if asked.memory:
                print(json.dumps({f"memory, {task}": memory(task, asked.directory, place, asked.memory)}), flush=True)
            else:
                words = [asked.directory, "--tasks", task, "--model", place, "--steps", str(asked.steps)]
                found = in_turns(__file__, list(PROGRAMS), words, asked.rounds)
                for name in PROGRAMS:
                    found[name]["examples/s"] = round(asked.steps * BATCH / found[name]["seconds"], 1)
                print(json.dumps({f"fine-tuning, {task}": found}), flush=True)


def saved(task: str, data: str, directory: str) -> None:
    """A BERT with random weights and a vocabulary of the task's sentences, in the transformers format."""
    import tokenizers
    import transformers

    from jaxmlm.tasks import glue

    texts = [text for column in glue.sets(glue.TASKS[task], data).train.texts for text in column]
    made = tokenizers.BertWordPieceTokenizer(lowercase=True)
    made.train_from_iterator(texts, vocab_size=8192, show_progress=False)
    made_of: Any = transformers.BertTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]
    fast = made_of(tokenizer_object=made._tokenizer)
    fast.save_pretrained(directory)
    config = transformers.BertConfig(
        vocab_size=len(fast), hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    transformers.BertForMaskedLM(config).save_pretrained(directory)


def jaxmlm_steps(task: str, data: str, directory: str) -> Any:
    """Our step function over our batches, batching and placing included; each call begins where the last stopped."""
    from jaxmlm.parallel import Mesh, make_mesh, place
    from jaxmlm.runs import Finetune
    from jaxmlm.runs.finetuning import make_task
    from jaxmlm.runs.loading import load
    from jaxmlm.training import Optim
    from jaxmlm.training.step import init_state, make_step

    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh):
        made = make_task(load(directory), Finetune(task, data=data, batch=BATCH, length=LENGTH), 0)[0]
        optimizer, key = Optim(1e-4).transformation(10_000), jax.random.key(0)
        step = make_step(made, optimizer)
        state = {"now": init_state(made, optimizer, key), "at": 0}
        # One batch of each length, so that all programs are there.
        seen: set[int] = set()
        for number in range(made.epoch):
            batch = made.batch_at(number)
            if batch["ids"].shape[1] not in seen:
                seen.add(batch["ids"].shape[1])
                state["now"], _ = step(state["now"], place(batch, mesh), key)

    def run(steps: int) -> None:
        with jax.set_mesh(mesh):
            for _ in range(steps):
                state["now"], _ = step(state["now"], place(made.batch_at(state["at"]), mesh), key)
                state["at"] += 1
            jax.block_until_ready(state["now"].step)

    return run


def transformers_steps(task: str, data: str, directory: str) -> Any:
    """Theirs: encoded once, shuffled, padded to the batch's longest row, AdamW."""
    import torch
    import transformers

    from jaxmlm.tasks import glue

    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory, num_labels=2).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    rows = glue.sets(glue.TASKS[task], data).train
    encoded = tokenizer(*rows.texts, truncation=True, max_length=LENGTH)
    assert rows.labels is not None
    examples = [
        {**{name: column[i] for name, column in encoded.items()}, "label": int(rows.labels[i])}
        for i in range(len(rows))
    ]  # fmt: skip
    collate = transformers.DataCollatorWithPadding(tokenizer)
    loader = torch.utils.data.DataLoader(examples, BATCH, shuffle=True, drop_last=True, collate_fn=collate)  # type: ignore[arg-type]
    optimizer, batches = torch.optim.AdamW(model.parameters(), 1e-4), iter(loader)

    def run(steps: int) -> None:
        nonlocal batches
        for _ in range(steps):
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader)
                batch = next(batches)
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


PROGRAMS = {"jaxmlm": jaxmlm_steps, "transformers": transformers_steps}


def memory(task: str, data: str, directory: str, runs: int) -> dict[str, Any]:
    """MiB of this process after each of many fine-tunings of few steps: 5 learning rates, seeds after seeds."""
    from jaxmlm.runs import Finetune, finetune

    resident = []
    for run in range(runs):
        rate = 1e-4 * (1 + run % 5)
        finetune(
            directory, Finetune(task, data=data, learning_rate=rate, limit=64, epochs=1.0, length=64, seeds=(run,))
        )
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
    slope = np.polyfit(np.arange(runs // 2), resident[runs - runs // 2 :], 1)[0]
    return {"MiB": resident, "MiB a run over the second half": round(float(slope), 2)}


if __name__ == "__main__":
    main()
