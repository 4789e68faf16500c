"""A long run with saves, evaluations and resumes: memory, files, threads and the time of a step stay as they are."""

import json
import os
import statistics
import sys
import time
from pathlib import Path

from tests.faults.common import CONFIG, PREPARE, Figure, Running, well


def soak(work: Path, short: bool) -> Figure:
    """Train in one process, ended and resumed every thousandth step by a signal; watch what it holds.

    The time of a step is that of the processor, which other programs change little; tokens/s are told beside it.
    """
    steps, each = (400, 100) if short else (20_000, 1_000)
    figure = Figure(
        f"a soak of {steps:,} steps, resumed every {each:,}: memory, files, threads, processor time within 2 %"
    )
    loop = f"steps={steps}, batch=8, log_every={each // 5}, eval_every={each}, save_every={each // 2}"
    config = CONFIG.replace("steps=12, batch=8, log_every=2, eval_every=4, save_every=4", loop)
    config = config.replace('"run",', '"run", most_epochs=1000,')
    (work / "run.py").write_text(config)
    well(work, PREPARE)
    told = work / "told"

    def body() -> int:
        import signal

        from jaxmlm.cli import main
        from jaxmlm.training import meter

        add = meter.Meter.add

        def adding(self: meter.Meter, step: int, *args: object) -> None:
            add(self, step, *args)
            if step % each == 0 and step < steps:
                os.kill(os.getpid(), signal.SIGTERM)

        meter.Meter.add = adding  # type: ignore[method-assign]
        spent = time.process_time()
        while (code := main(["pretrain", "run.py"])) == 75:
            now = time.process_time()
            with open(told, "a") as file:
                print(json.dumps(_held() | {"processor time": now - spent}), file=file)
            spent = now
        return code

    ended = Running(work, body, limit=0).wait()
    figure.add("" if ended.code == 0 else f"exit {ended.code}: {ended.last}")
    seen = [json.loads(line) for line in told.read_text().splitlines()]
    lines = [json.loads(line) for line in (work / "run" / "log.jsonl").read_text().splitlines()]
    figure.add(
        ""
        if len({line["step"] for line in lines if "eval" not in line}) == steps // (each // 5)
        else "a gap in the log"
    )
    speeds = [line["tokens_per_second"] for line in lines if line.get("tokens_per_second")]
    seen_speeds = (statistics.median(speeds[: len(speeds) // 2]), statistics.median(speeds[len(speeds) // 2 :]))
    half = len(seen) // 2
    changes = {}
    for name in seen[0]:
        before = statistics.median(one[name] for one in seen[1 : half + 1])
        changes[name] = statistics.median(one[name] for one in seen[half:]) / before - 1
        figure.add("" if changes[name] <= 0.02 else f"{name} changed by {100 * changes[name]:+.1f} %")
    changes["tokens/s"] = seen_speeds[1] / seen_speeds[0] - 1
    figure.notes = ", ".join(f"{name} {100 * change:+.1f} %" for name, change in changes.items())
    return figure


def _held() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "memory": float(status["VmRSS"].split()[0]),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": float(status["Threads"]),
        "modules": len(sys.modules),
    }


FIGURES = {"soak": soak}
