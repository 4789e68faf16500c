"""A command and what it writes, as a picture of a terminal of 80 columns.

python docs/figures/terminal.py docs/figures/show.svg jaxmlm show configs/quickstart.py --rates 0.15 0.4
"""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 80
# A picture fetches nothing: the fonts of whoever looks at it.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Write the picture."""
    picture, *command = sys.argv[1:]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {shlex.join(command)}", style="bold"))
    console.print(Text.from_ansi(done.stdout.rstrip()))
    Path(picture).write_text(console.export_svg(title=" ".join(command[:2]), code_format=FORMAT))


if __name__ == "__main__":
    main()
