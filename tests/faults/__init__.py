"""Faults on purpose: `python -m tests.faults --short` prints what became of them, as one table."""
