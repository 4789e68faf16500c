"""SQuAD beside transformers: python benchmarks/squad.py --squad DIRECTORY            # needs the extra `parity`

Features: all of dev-v1.1.json, from the file to padded arrays with labels, against a fast tokenizer of transformers
called as its example run_qa.py does (paddings, overflowing tokens, offsets), without the overhead of `datasets`.
Prediction: a 4 x 256 encoder with random weights on the same windows. Ours is timed from the windows to the scores;
PyTorch from the windows to the logits only, padded to the window's length as run_qa.py pads, and to each batch's
longest row. The programs take turns, each in a process of its own.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from turns import in_turns, jax_product, serve, torch_product

from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.data.buckets import pad
from jaxmlm.data.hf_tokenizer import export_tokenizer
from jaxmlm.models import Encoder, EncoderConfig, SpanPredictor
from jaxmlm.parallel import make_mesh
from jaxmlm.tasks import squad
from jaxmlm.training import evaluate

VOCAB, LAYERS, WIDTH, HEADS = 8192, 4, 256, 4


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", required=True, help="directory with dev-v1.1.json")
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--questions", type=int, default=400, help="of them, evenly taken, the windows are predicted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*FEATURES, *PREDICTION], help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    dev = Path(asked.squad) / "dev-v1.1.json"
    if asked.only:
        tokenizer = SentencePieceTokenizer.load(Path(asked.directory) / "tokenizer.model")
        step = {**FEATURES, **PREDICTION}[asked.only](dev, tokenizer, asked)
        serve(step, jax_product() if "jaxmlm" in asked.only else torch_product())
        return
    with tempfile.TemporaryDirectory() as directory:
        SentencePieceTokenizer.train(squad.read(dev).paragraphs, VOCAB).save(Path(directory))
        numbers = ("length", "stride", "batch", "questions")
        words = [f"--{name}={getattr(asked, name)}" for name in numbers]
        words += ["--squad", asked.squad, "--directory", directory]
        for programs in (FEATURES, PREDICTION):
            print(json.dumps(in_turns(__file__, list(programs), words, asked.rounds)), flush=True)


def features(dev: Path, tokenizer: SentencePieceTokenizer, asked: argparse.Namespace) -> Callable[[], Any]:
    """Make our features from the file."""
    return lambda: _ours(dev, tokenizer, asked)


def their_features(dev: Path, tokenizer: SentencePieceTokenizer, asked: argparse.Namespace) -> Callable[[], Any]:
    """Make theirs from the file."""
    import transformers

    with tempfile.TemporaryDirectory() as directory:
        export_tokenizer(tokenizer, directory, asked.length)
        theirs = transformers.AutoTokenizer.from_pretrained(directory)
    return lambda: _run_qa(dev, theirs, asked)


def _ours(dev: Path, tokenizer: Tokenizer, asked: argparse.Namespace) -> int:
    """Every window with its labels, by thousands of windows padded to the full length; their number."""
    w = squad.windows(squad.read(dev), tokenizer, asked.length, asked.stride)
    for first in range(0, len(w.begin), 1000):
        part = range(first, min(first + 1000, len(w.begin)))
        ids = pad([w.row(i, tokenizer) for i in part], asked.length, tokenizer.pad_id)
        assert ids.shape == (len(part), asked.length)
    return len(w.begin)


def _run_qa(dev: Path, tokenizer: Any, asked: argparse.Namespace) -> int:
    """Training features as run_qa.py makes them, by thousands of questions; the number of windows."""
    examples = [
        (paragraph["context"], qa["question"], qa["answers"][0])
        for article in json.loads(dev.read_text())["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    number = 0
    for first in range(0, len(examples), 1000):
        part = examples[first : first + 1000]
        made = tokenizer(
            [question.lstrip() for _, question, _ in part],
            [context for context, _, _ in part],
            truncation="only_second",
            max_length=asked.length,
            stride=asked.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )
        starts, ends = [], []
        for i, offsets in enumerate(made["offset_mapping"]):
            ids, sides = made["input_ids"][i], made.sequence_ids(i)
            cls, answer = ids.index(tokenizer.cls_token_id), part[made["overflow_to_sample_mapping"][i]][2]
            begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            low, high = sides.index(1), len(ids) - 1
            while sides[high] != 1:
                high -= 1
            if not (offsets[low][0] <= begin and offsets[high][1] >= end):
                low = high = cls
            else:
                while low < len(offsets) and offsets[low][0] <= begin:
                    low += 1
                while offsets[high][1] >= end:
                    high -= 1
                low, high = low - 1, high + 1
            starts.append(low)
            ends.append(high)
        number += len(starts)
    return number


def prediction(dev: Path, tokenizer: SentencePieceTokenizer, asked: argparse.Namespace) -> Callable[[], Any]:
    """Score every window by our model."""
    data = _encoded(dev, tokenizer, asked)
    task = squad.objective(data, lambda key: None, batch=asked.batch, seed=0)
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        encoder = Encoder(EncoderConfig(LAYERS, WIDTH, HEADS, max_positions=asked.length), VOCAB, jax.random.key(0))
        model = SpanPredictor(encoder, jax.random.key(1))
        predict = jax.jit(task.evals["dev"].predict)

    def run() -> None:
        with jax.set_mesh(mesh):
            evaluate(task.evals["dev"], model, mesh, predict)

    return run


def their_prediction(
    to_longest: bool, dev: Path, tokenizer: SentencePieceTokenizer, asked: argparse.Namespace
) -> Callable[[], Any]:
    """Make the logits of every window by PyTorch's, padded to the longest row of a batch or to the window's length."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = transformers.RobertaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=asked.length + 2, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    model = transformers.RobertaForQuestionAnswering(config).eval()
    windows = _encoded(dev, tokenizer, asked).dev
    rows = [windows.row(i, tokenizer) for i in range(len(windows.begin))]

    def run() -> None:
        for first in range(0, len(rows), asked.batch):
            part = rows[first : first + asked.batch]
            longest = max(map(len, part)) if to_longest else asked.length
            ids = np.full((len(part), longest), tokenizer.pad_id)
            for row, tokens in zip(ids, part, strict=True):
                row[: len(tokens)] = tokens
            batch = torch.tensor(ids)
            with torch.inference_mode():
                model(input_ids=batch, attention_mask=(batch != tokenizer.pad_id).long())

    return run


FEATURES = {"features, jaxmlm": features, "features, transformers": their_features}
PREDICTION = {
    "prediction, jaxmlm": prediction,
    "prediction, transformers": partial(their_prediction, False),
    "prediction, transformers, to the longest": partial(their_prediction, True),
}


def _encoded(dev: Path, tokenizer: SentencePieceTokenizer, asked: argparse.Namespace) -> Any:
    """The windows of some of the questions, evenly taken."""
    with tempfile.TemporaryDirectory() as directory:
        questions = squad.read(_every(dev, asked.questions, Path(directory)))
        return squad.encode((questions, questions), tokenizer, asked.length, asked.stride)


def _every(dev: Path, number: int, directory: Path) -> Path:
    """A file with so many of the questions, evenly taken."""
    content = json.loads(dev.read_text())
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    step = max(1, sum(len(paragraph["qas"]) for paragraph in paragraphs) // number)
    count = 0
    for paragraph in paragraphs:
        kept = [qa for i, qa in enumerate(paragraph["qas"], count) if i % step == 0]
        count, paragraph["qas"] = count + len(paragraph["qas"]), kept
    path = directory / "few.json"
    path.write_text(json.dumps(content))
    return path


if __name__ == "__main__":
    main()
