"""docs/reliability.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(tests/[\w/.]+)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())


def test_every_promise_is_proven_by_a_test_that_exists():
    missing = [(file, name) for file, name in NAMED if f"def {name}(" not in (ROOT / file).read_text()]
    assert len(NAMED) > 15 and not missing
