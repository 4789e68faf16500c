"""What every test and doctest runs under: fake CPU devices, strict JAX, a device mesh; no silent skips."""

import os
from collections.abc import Iterator
from pathlib import Path

# Tiny programs run once or twice: their time is their compilation. LLVM's first level halves it (its zeroth compiles no
# faster and runs four times as long). XLA's own passes, whose programs some tests read, all run. Processes that tests
# start inherit it.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}".strip()

import jax
import pytest
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Shared by the workers and by the next run of the suite.
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
# On the CPU JAX rolls the rounds of threefry into a loop, which XLA cuts into many small kernels. By JAX's rule for all
# platforms, which does not, each draw has the same bits, and a masking program compiled in 1.4 s instead of 1.95.
getattr(mlir, "_platform_specific_lowerings", {}).get("cpu", {}).pop(threefry2x32_p, None)

# With CI set in the environment a test may be skipped for these reasons only; any other skip is a failure.
NO_REAL_DATA = "no real data: set JAXMLM_DATA to a folder with it (the project ships none)"
NO_SDK = "needs the Google Cloud SDK, which no package index has"
LISTED_REASONS = (NO_REAL_DATA, NO_SDK)


@pytest.fixture(scope="module", autouse=True)
def two_devices() -> Iterator[None]:
    """Let a run take two of the eight devices: on two cores a step of eight takes four times as long."""
    with pytest.MonkeyPatch.context() as patch:
        _take(2, patch)
        yield
    jax.clear_caches()  # programs of a module that has ended: gigabytes in all


@pytest.fixture
def eight_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run take all eight devices. A test that makes its own mesh takes them from `jax.local_devices()`."""
    _take(8, monkeypatch)


def _take(count: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jax, "devices", lambda *of: jax.local_devices()[:count])
    patch.setattr(jax, "device_count", lambda *of: count)


@pytest.fixture(autouse=True)
def mesh(request: pytest.FixtureRequest) -> Iterator[jax.sharding.Mesh]:
    """Run each test on an explicit mesh: one device, or what `@pytest.mark.mesh(data=4, tensor=2)` says."""
    marker = request.node.get_closest_marker("mesh")
    sizes = {"data": 1, "fsdp": 1, "tensor": 1} | (marker.kwargs if marker else {})
    explicit = (jax.sharding.AxisType.Explicit,) * len(sizes)
    with jax.set_mesh(jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=explicit)):
        yield jax.sharding.get_mesh()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: $JAXMLM_DATA, or the folder shared/data beside the clone."""
    folder = Path(os.environ.get("JAXMLM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(NO_REAL_DATA)
    return folder


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave alone tests/parity and tests/tf, which need the extras `parity` and `tf`, unless they were asked for."""
    room = collection_path.relative_to(ROOT).as_posix() if collection_path.is_relative_to(ROOT) else ""
    asked = config.getoption("-m").split(" or ")
    return True if room in ("tests/parity", "tests/tf") and room.removeprefix("tests/") not in asked else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no test be called slow without a reason; start with the scripts' tests, which wait more than they compute."""
    items.sort(key=lambda item: "tpu_scripts" not in item.path.parts)  # last, one worker would wait for them alone
    for item in items:
        if (slow := item.get_closest_marker("slow")) and not slow.args:
            raise pytest.UsageError(f'{item.nodeid}: give a reason, as @pytest.mark.slow("starts two processes")')


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Let no test be skipped in silence."""
    report = yield
    return _unlisted_skip_fails(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Let no test file be skipped in silence."""
    report = yield
    return _unlisted_skip_fails(report)


def _unlisted_skip_fails(report):
    if report.outcome == "skipped" and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in LISTED_REASONS:
            report.outcome = "failed"
            report.longrepr = f"skipped without a listed reason (LISTED_REASONS in conftest.py): {reason}"
    return report
