"""Print the figures of docs/results/faults.md: `python -m tests.faults --short` or `--long`."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

# Before JAX is imported, which reads them then.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[2] / ".cache" / "faults"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_NUM_CPU_DEVICES": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=1",  # tiny programs: their time is their compilation
    "PYTHONDONTWRITEBYTECODE": "1",  # a limit on the size of files would leave bytecode written in part
}

from tests.faults import disks, flips, inputs, kills, meshes, processes, soak

FIGURES = {
    name: figure
    for module in (kills, processes, flips, disks, meshes, inputs, soak)
    for name, figure in module.FIGURES.items()
}
SHORT = ("kill-pretrain", "flips", "full-disks", "bad-inputs")
"""What the short form makes."""


def main() -> int:
    """Make the figures that were asked for; 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--short", action="store_true", help="some figures from few trials, in about two minutes")
    length.add_argument("--long", action="store_true", help="all figures, in hours")
    parser.add_argument("--only", help=f"names with commas between: {', '.join(FIGURES)}")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else SHORT if options.short else FIGURES
    if unknown := [name for name in names if name not in FIGURES]:
        parser.error(f"--only {unknown[0]}: there are {', '.join(FIGURES)}")
    os.environ["FAULTS_JOBS"] = str(options.jobs)
    rows = []
    wrong = 0
    for name in names:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            figure = FIGURES[name](Path(work), options.short)
        wrong += len(figure.wrong)
        notes = f"; {figure.notes}" if figure.notes else ""
        seconds = time.monotonic() - started
        rows.append(f"{figure.right:4} of {figure.of:4}  {name:14} {figure.what}{notes}  [{seconds:.0f} s]")
        print(rows[-1], flush=True)
    print("", *rows, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
