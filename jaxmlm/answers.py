"""What a command prints when it ends: its results, or one line that says why there are none."""

import os
import sys
import traceback
from collections.abc import Iterator


def complain(message: str, code: int, advice: str = "") -> tuple[int, str]:
    """Print an error as one line, with the traceback before it if JAXMLM_DEBUG is set.

    Returns:
        The exit code, and the line without advice.

    """
    if os.environ.get("JAXMLM_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
        advice = ""
    line = " ".join(message.split())
    print(f"jaxmlm: {line}" + (f" ({advice})" if advice else ""), file=sys.stderr, flush=True)
    return code, line


def say(result: dict, as_json: bool = False) -> None:
    """Print what a verb gave: as JSON, or the lines of its results with scores rounded."""
    if as_json:
        from jaxmlm.json_files import to_json

        print(to_json(result), flush=True)
        return
    from jaxmlm.runs.tables import lines

    rows = result.get("rows")
    results = rows if isinstance(rows, list) else []  # the audit of a collator has printed itself, and counts its rows
    found = [line for row in results for line in lines(row, bool(result.get("sets")))]
    if {"summary", "difference", "average"} & result.keys():
        from jaxmlm.runs import comparison

        found += comparison.say(result) if "summary" in result else ()
        found += comparison.say_comparison(result) if "difference" in result else ()
        found += comparison.say_average(result) if "average" in result else ()
    if {"fills", "architecture"} & result.keys():
        found += lines_of_a_model(result)
    print("".join(f"{line}\n" for line in found), end="", flush=True)


def lines_of_a_model(result: dict) -> Iterator[str]:
    """The lines of fill, import and export."""
    if "fills" in result:
        for number, fills in enumerate(result["fills"], 1):
            yield from (f"mask {number}: {fill['probability']:.3f}  {fill['token']}" for fill in fills)
    elif "kind" in result:
        yield f"{result['architecture']} ({result['kind']}) in {result['directory']}"
        yield from (f"not used: {name}" for name in result["unused"])
        yield from (f"note: {note}" for note in result["notes"])
    else:
        if result["directory"] is not None:
            yield f"{result['architecture']} written to {result['directory']}"
        if "pushed" in result:
            yield f"{result['architecture']} pushed to {result['pushed']}"
