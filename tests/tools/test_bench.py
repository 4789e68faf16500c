"""`jaxmlm bench` on a tiny run."""

import json
from contextlib import redirect_stdout
from io import StringIO

import pytest

from jaxmlm.cli import main
from jaxmlm.models import EncoderConfig
from jaxmlm.models.flops import flops
from jaxmlm.tools.hardware import measured_peak

SMALL = "--model.layers 1 --model.width 32 --data.length 16 --data.vocab 64 --loop.batch 16 --loop.accumulate 2".split()


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return tmp_path_factory.mktemp("bench") / "trace"


@pytest.fixture(scope="module")
def result(trace):
    with redirect_stdout(StringIO()) as out:
        asked = ["--rounds", "3", "--profile", str(trace), "--json"]
        assert main(["bench", "configs/quickstart_run.py", *SMALL, *asked]) == 0
    return json.loads(out.getvalue().splitlines()[-1])


@pytest.mark.slow("compiles and times each part of a step")
def test_a_step_is_timed_and_shared_out(result, trace):
    step = result["step"]
    assert 0 < step["least"] <= step["median"] <= step["most"]
    assert result["tokens_per_second"] == pytest.approx(16 * 16 / step["median"])
    assert set(result["share"]) == {"input", "masking", "forward", "backward", "update"}
    assert all(share >= 0 for share in result["share"].values()) and result["share"]["forward"] > 0
    assert result["compile"] > 0 and result["memory"] > 10_000 and result["peer"] is None
    assert list(trace.rglob("*.xplane.pb"))


@pytest.mark.slow("compiles and times each part of a step")
def test_mfu_is_the_work_over_time_and_peak(result):
    counted = flops(EncoderConfig(layers=1, width=32, heads=2), 64, 16, 16, 6).training
    assert result["flops"]["training"] == counted
    assert result["mfu"] == pytest.approx(counted / result["step"]["median"] / result["peak"])
    assert result["peak"] > 1e9


def test_a_matrix_product_has_a_speed():
    assert measured_peak(seconds=0.01) > 1e9


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rounds", "1"], "at least 2"),
        (["--loop.batch", "13"], "take 12, or the nearest mesh"),
        (["--data.format", "sentences", "--tokens", "text"], "several lengths"),
        (["--data.format", "documents", "--peer", "transformers"], "rows without padding"),
    ],
)
def test_what_cannot_be_timed_is_refused(flags, said, capsys):
    assert main(["bench", "configs/quickstart_run.py", *flags]) == 2
    assert said in capsys.readouterr().err
