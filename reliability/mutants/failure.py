"""Reads the failure from the output of a check."""

import re
from collections.abc import Sequence

#: The head of a failed test in the output of unittest: its name, and the first part of its place that is a module.
_FAILED_TEST = re.compile(r"={70}\n(FAIL|ERROR|UNEXPECTED SUCCESS): (\S+) \((?:\w+\.)*?(test_\w+)")
#: What follows the traceback of a failed test: the next one, or the summary.
_NEXT = re.compile(r"\n(?:={70}\n|-{70}\nRan )")
#: `AssertionError: …`, `subprocess.TimeoutExpired: …`, `KeyboardInterrupt`
_NAMES_ERROR = re.compile(r"([A-Za-z_]\w*\.)*[A-Z]\w*(:|$)")
#: Markers of a line of other checks that contains the failure; the first one found is quoted.
_MARKERS = ("last seen: ", "AssertionError: ", "Error: ", "I1: ", "I2: ", "I3: ", "I4: ", "I7: ", "I8: ", "log: ")
_QUOTED = 140


def failed_test(log: str) -> str | None:
    """Module, name and error of the first failed test in the output of unittest; None when no test failed."""
    if not (found := _FAILED_TEST.search(log)):
        return None
    how, name, module = found.groups()
    return f"{module}: {name}: {_error(_NEXT.split(log[found.end() :])[0]) or how}"


def _error(trace: str) -> str:
    """The line of a traceback that names the error: it follows the lines of the last place in the code."""
    _, _, after = trace.rpartition('\n  File "')
    return next((line[:_QUOTED] for line in after.splitlines() if _NAMES_ERROR.match(line)), "")


def marked_line(log: str) -> str:
    """The line of a log that contains the failure, from its marker on; the last line when none has a marker."""
    lines: Sequence[str] = log.splitlines()
    for marker in _MARKERS:
        for line in lines:
            if marker in line:
                return line[line.index(marker) :].removeprefix("last seen: ")[:_QUOTED].strip()
    return lines[-1][:_QUOTED] if lines else "nothing"
