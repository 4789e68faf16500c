"""A command and what it writes, as a picture of a terminal of 80 columns.

    python docs/figures/terminal.py docs/figures/show.svg jaxmlm show configs/quickstart.py --rates 0.15 0.4
    python docs/figures/terminal.py --after 40 docs/figures/progress.svg jaxmlm pretrain configs/quickstart_run.py

With `--after` it is the screen so many seconds after the start, of a command that moves the cursor; that needs tmux.
"""

import argparse
import io
import os
import re
import shlex
import subprocess
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 80
# A picture fetches nothing: the fonts of whoever looks at it.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--after", type=float, help="seconds after which the screen is taken, before the command ends")
    parser.add_argument("picture", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    written = output(asked.command) if asked.after is None else screen(asked.command, asked.after)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {shlex.join(asked.command)}", style="bold"))
    console.print(Text.from_ansi(written.rstrip()))
    asked.picture.write_text(console.export_svg(title=" ".join(asked.command[:2]), code_format=FORMAT))


def output(command: list[str]) -> str:
    """What a command writes until it ends."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, text=True
    ).stdout


def screen(command: list[str], seconds: float) -> str:
    """The screen of a command so many seconds after its start; the command is ended."""

    def tmux(*arguments: str) -> str:
        return subprocess.run(["tmux", *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout

    name = f"picture-{os.getpid()}"
    tmux("new-session", "-d", "-s", name, "-x", str(WIDTH), "-y", "24", shlex.join(command))
    try:
        time.sleep(seconds)
        return tmux("capture-pane", "-p", "-e", "-t", name)
    finally:
        tmux("kill-session", "-t", name)


if __name__ == "__main__":
    main()
