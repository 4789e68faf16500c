"""`jaxmlm bench --peer transformers`: the same step in PyTorch, in a process of its own."""

import pytest

from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Run
from jaxmlm.tools.bench import Bench, bench
from jaxmlm.training import Loop

pytestmark = pytest.mark.parity


def test_the_peer_answers_from_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # a minute of a C++ compiler, for a step of milliseconds
    model = EncoderConfig(layers=1, width=16, heads=2, max_positions=16)
    data = Data("random", vocab=100, length=16)
    run = Run(str(tmp_path / "run"), data=data, model=model, loop=Loop(1, 8, accumulate=2))
    result = bench(run, Bench(rounds=2, peer="transformers"))
    assert result["peer"]["name"].startswith("transformers (RobertaPreLayerNormForMaskedLM")
    assert result["ratio"] > 0 and result["peer"]["tokens_per_second"] == pytest.approx(8 * 16 / result["peer"]["step"])
