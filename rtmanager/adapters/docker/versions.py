"""Negotiates the API version with the daemon."""

from __future__ import annotations

import re
from collections.abc import Mapping

from docker.constants import DEFAULT_DOCKER_API_VERSION, MINIMUM_DOCKER_API_VERSION

from rtmanager.adapters.docker.answers import Unreadable
from rtmanager.domain.game import shown

#: The newest and the oldest API version of the SDK.
NEWEST = DEFAULT_DOCKER_API_VERSION
OLDEST = MINIMUM_DOCKER_API_VERSION

_FORM = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


class NoCommonVersion(Exception):
    """The daemon and the SDK share no API version; the message has the remedy."""


class Agreement:
    """The API version that the clients of one host share; None before the daemon has named a usable one."""

    def __init__(self) -> None:
        self.version: str | None = None

    def read(self, engine: Mapping[str, object]) -> None:
        """Take the version from the daemon's answer to `GET /version`; None when none is usable."""
        try:
            self.version = agreed(engine)
        except (NoCommonVersion, Unreadable):
            self.version = None


def agreed(engine: Mapping[str, object]) -> str:
    """Return the newest common version, from the daemon's answer to `GET /version`.

    Raises `NoCommonVersion` or `Unreadable`.
    """
    newest, lowest = engine.get("ApiVersion"), engine.get("MinAPIVersion") or OLDEST
    theirs = _numbers(newest)
    if theirs is None:
        raise Unreadable(f"it gives {shown(newest, 40)} as the version of its API; is it a Docker engine?")
    if theirs < _order(OLDEST):
        raise NoCommonVersion(f"it speaks API {newest}, and at least {OLDEST} is needed: install Docker 20.10 or newer")
    least = _numbers(lowest)
    if least is not None and least > _order(NEWEST):
        raise NoCommonVersion(
            f"it speaks API {lowest} to {newest}, and this service speaks {OLDEST} to {NEWEST}: install a newer "
            f"package `docker` (pip install --upgrade docker), or start dockerd with DOCKER_MIN_API_VERSION={NEWEST}"
        )
    return str(newest) if theirs < _order(NEWEST) else NEWEST


def _numbers(version: object) -> tuple[int, int] | None:
    match = _FORM.fullmatch(version) if isinstance(version, str) else None
    return None if match is None else (int(match[1]), int(match[2]))


def _order(version: str) -> tuple[int, int]:
    return _numbers(version) or (0, 0)
