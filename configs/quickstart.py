"""The main job in small: jaxmlm study configs/quickstart.py

Three masking rates and four seeds on the generated sample, each evaluated on generated tasks, beside an encoder that
was not pre-trained. No network, no download. It exercises the whole pipeline; it is not evidence about masking rates.
"""

from pathlib import Path
from runpy import run_path

from jaxmlm.fields import replace_path
from jaxmlm.runs import Finetune, ZeroShot
from jaxmlm.studies import Study, Vary

RUN = run_path(str(Path(__file__).with_name("quickstart_run.py")))["config"]()


def config(small: bool = False) -> Study:
    """`--small` is the twin that the tests run: two minutes on one core, too short to learn anything."""
    run, tune = RUN, {"data": "sample:", "learning_rate": 2e-4, "epochs": 2.0, "batch": 16, "length": 64, "seeds": (0,)}
    if small:
        run = replace_path(replace_path(run, "loop.steps", 20), "data.text", "sample:2000")
        run = replace_path(replace_path(run, "model.width", 32), "loop.log_every", 5)
        tune |= {"epochs": 0.2}
    return Study(
        workdir="runs/quickstart_small" if small else "runs/quickstart",
        title="Quickstart: which masking rate is best on {text}?",
        run=run,
        vary=(Vary("masking.rate", (0.15, 0.40, 0.80)),),
        seeds=(0,) if small else (0, 1, 2, 3),
        sentence="Dobith bought a sparrow at the market. Which bird did she buy? She bought the sparrow.",
        zero_shot=ZeroShot(blimp="sample:", pairs=20 if small else 100),
        finetune=tuple(Finetune(task, **tune) for task in ("cola", "squad")),
    )
