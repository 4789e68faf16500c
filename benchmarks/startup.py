"""From the command to the first step of base on a CPU: python benchmarks/startup.py

`jaxmlm pretrain configs/base.py` (12 x 768, float32, 8 rows of 128) in a process of its own, on a store of generated
text that is there already: with an empty compilation cache, then with the one that this has filled. Counted are the
seconds from the start of the process until the first step is dispatched.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

OPTIONS = "--text sample:5000 --data.vocab 1000 --model.dtype float32 --model.remat none --loop.batch 8".split()
PROGRAM = """
import os, sys, time
from jaxmlm import cli
from jaxmlm.training import loop

made = loop.make_step
def make_step(*options):
    step = made(*options)
    def first(*arguments):
        step(*arguments)
        print(time.time(), flush=True)
        os._exit(0)
    first.lower = step.lower
    return first
loop.make_step = make_step
cli.main(sys.argv[1:])
"""


def main() -> None:
    """Print one JSON object."""
    with tempfile.TemporaryDirectory() as directory:
        store = ["configs/base.py", *OPTIONS, "--data.store", f"{directory}/store"]
        subprocess.run([sys.executable, "-m", "jaxmlm", "prepare", *store], check=True, capture_output=True)
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": f"{directory}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",  # as the command itself sets it
        }
        found = {}
        for name in ("empty cache", "warm cache"):
            words = ["pretrain", *store, "--workdir", f"{directory}/{name.replace(' ', '-')}"]
            began = time.time()
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *words], env=environment, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(done.stderr)
            found[f"{name}, seconds"] = round(float(done.stdout.split()[-1]) - began, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
