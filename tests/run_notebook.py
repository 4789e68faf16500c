"""Run tpu_scripts/colab_demo.ipynb whole, as a user would, and say how long it took: python tests/run_notebook.py

With a directory as argument its figures are written there, to look at.
"""

import base64
import os
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOK = Path(__file__).parent.parent / "tpu_scripts" / "colab_demo.ipynb"


def main(figures: Path | None = None) -> None:
    """Execute every cell in an empty directory; an error in a cell is raised."""
    import nbclient  # of the extra `notebook`
    import nbformat

    notebook = nbformat.read(NOTEBOOK, 4)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        client = nbclient.NotebookClient(
            notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": directory}}
        )
        client.execute(env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(Path(directory) / "xla")})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2, f"the notebook drew {len(pictures)} figures: the curves and the matrix were to be there"
    for number, picture in enumerate(pictures if figures else ()):
        figures.mkdir(parents=True, exist_ok=True)
        (figures / f"{number}.png").write_bytes(base64.b64decode(picture))
    print(f"{NOTEBOOK.name}: {len(notebook.cells)} cells, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
