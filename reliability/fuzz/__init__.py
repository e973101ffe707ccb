"""Seeded fuzz runs against real services: `python -m reliability.fuzz NAME`.

Each module here is one run. It has `DEFAULT_COUNT`, the inputs of a full run, and `run(seed, count, report) ->
list[str]`, which returns the violations: none is a pass. A seed always produces the same inputs. `make test` runs a
short form of each through `integration/test_fuzz.py`.
"""

from __future__ import annotations

#: The maximal length of a line in a manager's log, in characters.
LONGEST_LINE = 20_000


def log_violations(log: str) -> list[str]:
    """Forbidden content of a manager's log: tracebacks, in any form, and lines that are too long."""
    lines = log.splitlines()
    found = next((line for line in lines if "Traceback" in line or '"traceback": ' in line), None)
    violations = [] if found is None else [f"a traceback in the log: {found[:2000]}"]
    longest = max(map(len, lines), default=0)
    if longest > LONGEST_LINE:
        violations.append(f"a line of {longest} characters in the log")
    return violations
