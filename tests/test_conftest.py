"""The ground that all tests stand on: each fails without its line in conftest.py or pyproject.toml."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jaxmlm.fields import replace_path

CONFTEST = Path(__file__).parent.parent / "conftest.py"


def test_a_run_takes_two_of_eight_devices_and_jax_is_strict():
    assert (len(jax.local_devices()), len(jax.devices()), jax.device_count()) == (8, 2, 2)
    assert jax.default_backend() == "cpu"
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_draws_are_compiled_without_a_loop_and_have_the_bits_of_jax():
    """The numbers are of a process without conftest.py."""
    draw = jax.jit(lambda key: jax.random.bits(key, (3,)))
    assert "while" not in draw.lower(jax.random.key(1)).as_text()
    assert draw(jax.random.key(1)).tolist() == [1883912375, 2292451390, 1915204986]


def test_types_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="path"):
        replace_path(None, 3, 0)  # type: ignore


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning):
        warnings.warn("planted", stacklevel=1)


def test_the_mesh_is_explicit(mesh):
    assert mesh.shape == {"data": 1, "fsdp": 1, "tensor": 1}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Explicit}


def test_a_test_can_ask_for_all_devices(eight_devices):
    assert len(jax.devices()) == jax.device_count() == 8


@pytest.mark.mesh(data=4, tensor=2)
def test_the_mesh_is_as_marked():
    assert jax.sharding.get_mesh().shape == {"data": 4, "fsdp": 1, "tensor": 2}


@pytest.mark.slow("starts pytest")
@pytest.mark.parametrize(("ci", "outcomes"), [("true", {"failed": 1, "skipped": 1, "errors": 1}), ("", {"skipped": 3})])
def test_an_unlisted_skip_fails_in_ci(pytester, monkeypatch, ci, outcomes):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("JAXMLM_DATA", "nowhere")
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = mesh\naddopts = -m 'not parity'")
    pytester.makepyfile(
        test_a="import pytest\ndef test_a():\n    pytest.skip('no mood')\ndef test_b(real_data): pass",
        test_c="import pytest\npytest.importorskip('no_such_module')",
    )
    result = pytester.runpytest_subprocess("--continue-on-collection-errors")
    assert result.parseoutcomes() == outcomes


@pytest.mark.slow("starts pytest")
def test_slow_needs_a_reason(pytester):
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers =\n  mesh\n  slow")
    pytester.makepyfile("import pytest\n@pytest.mark.slow\ndef test_a(): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*test_a: give a reason*")


@pytest.mark.slow("starts pytest")
def test_parity_tests_run_only_when_asked_for(pytester):
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers =\n  mesh\n  parity\naddopts = -m 'not parity'")
    (pytester.mkdir("tests") / "parity").mkdir()
    text = "import json\nimport pytest\npytestmark = pytest.mark.parity\ndef test_p(): pass"
    (pytester.path / "tests" / "parity" / "test_p.py").write_text(text)
    assert pytester.runpytest_subprocess().ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert pytester.runpytest_subprocess("-m", "parity").parseoutcomes() == {"passed": 1}
