"""Writes `docs/configuration.md` from the table in `rtmanager/config/variables.py`:

    python -m rtmanager.tests.configuration_page > docs/configuration.md

A unit test fails while the page in the repository differs.
"""

import sys

from rtmanager.config.variables import VARIABLES, Variable

_HEAD = """\
# Configuration

The environment is the only configuration. A variable that is set to nothing counts as not set, but for `RTMANAGER_DOCKER_LOG_OPTS`. All faults are reported together, each with its name, its value (a secret is never shown) and what is expected; the process then exits 2. A name that begins with `RTMANAGER_` and is not in this table is reported in the log.

The value of a secret may be in a file, without the line end at its end: `<variable>_FILE` names it, and the variable itself is not set then. The file is read once, at the start.

Durations take `ms`, `s`, `m` or `h` (`500ms`, `1.5h`).

| variable | default | meaning |
|---|---|---|
"""

_TAIL = """
This page is made from `rtmanager/config/variables.py`: `python -m rtmanager.tests.configuration_page > docs/configuration.md`.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(variable) for variable in VARIABLES) + _TAIL


def _row(variable: Variable) -> str:
    default = "**required**" if variable.default is None else f"`{variable.default}`" if variable.default else "–"
    meaning = variable.meaning[0].upper() + variable.meaning[1:]
    return f"| `{variable.name}` | {default} | {meaning}{' (secret)' if variable.secret else ''} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
