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

from saving import OPTIONS, starts


def main() -> None:
    """Print one JSON object."""
    with tempfile.TemporaryDirectory() as directory:
        store = ["configs/base.py", *OPTIONS, "--data.store", f"{directory}/store"]
        subprocess.run([sys.executable, "-m", "jaxmlm", "prepare", *store], check=True, capture_output=True)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": f"{directory}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",  # as the command itself sets it
        }
        found = {}
        for name in ("empty cache", "warm cache"):
            words = [*store, "--workdir", f"{directory}/{name.replace(' ', '-')}"]
            began = time.time()
            found[f"{name}, seconds"] = round(starts(1, words)[0] - began, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
