"""`python -m rtmanager check`: runs the checks in order, with results as lines or as JSON.

The JSON is one object: `ok` (no check failed) and `checks`, a list of objects with the members of `Result`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from rtmanager.bootstrap.dependencies import Check, NotTried
from rtmanager.domain.errors import RuntimeManagerError, remedy_for


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check."""

    name: str
    #: None: not tried.
    ok: bool | None
    message: str
    #: Remedy; empty where the message has it, or none is needed.
    remedy: str = ""
    #: Warnings, which do not prevent a start.
    warnings: Sequence[str] = ()


def results(checks: Iterable[Check], warnings: Mapping[str, Sequence[str]], logger: logging.Logger) -> Iterator[Result]:
    """Run the checks in order; one is not tried when a check that it needs failed or was not tried."""
    missing: set[str] = set()
    for each in checks:
        if in_the_way := [name for name in each.needs if name in missing]:
            found = Result(each.name, None, f"not tried: {in_the_way[0]} comes first")
        else:
            found = _result(each, warnings, logger)
        if not found.ok:
            missing.add(each.name)
        yield found


def _result(check: Check, warnings: Mapping[str, Sequence[str]], logger: logging.Logger) -> Result:
    try:
        description = check.run()
    except NotTried as error:
        return Result(check.name, None, f"not tried: {error}", remedy_for(error))
    except RuntimeManagerError as error:
        return Result(check.name, False, str(error), remedy_for(error, check.remedy), warnings.get(check.name, ()))
    except Exception as error:  # a defect hides no other check
        logger.exception("a check failed by a defect", extra={"check": check.name})
        return Result(check.name, False, f"a defect of this check, see the log: {type(error).__name__}: {error}")
    return Result(check.name, True, description, warnings=warnings.get(check.name, ()))


_WORDS = {True: "ok", False: "FAILED", None: "skipped"}


def as_lines(result: Result) -> str:
    """Format a result for a person: one line, with the remedy and the warnings below it."""
    lines = [f"{_WORDS[result.ok]:<8}{result.name:<10}  {result.message}"]
    if result.remedy:
        lines.append(f"{'':20}remedy: {result.remedy}")
    return "\n".join([*lines, *(f"warning {result.name:<10}  {warning}" for warning in result.warnings)])


def as_json(found: Sequence[Result]) -> str:
    """Format all results as JSON."""
    return json.dumps({"ok": passed(found), "checks": [asdict(each) for each in found]}, indent=2)


def passed(found: Iterable[Result]) -> bool:
    """Return whether no check failed."""
    return not any(each.ok is False for each in found)
