"""Error types and codes.

`OperationFailed` ends an operation with a code of the contract. A failed call to a dependency raises one of three
`DependencyError`s; a table in the adapter decides which (`adapters/*/answers.py`):

- `Unavailable`: no answer. Nothing is decided, a job stays due, and a REST caller gets a retryable error.
- `TemporaryAnswer`: an answer that is listed as temporary. It is retried for a limited time.
- `FinalAnswer`: every other answer. It ends the operation.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """The stable codes of the contract (docs/contract.md, "Error codes")."""

    INVALID_REQUEST = "invalid_request"
    START_CONFIG_INVALID = "start_config_invalid"
    IMAGE_REF_NOT_SEMVER = "image_ref_not_semver"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    SEMVER_PATCH_ONLY = "semver_patch_only"
    SERVICE_UNAVAILABLE = "service_unavailable"
    #: Reserved by the contract, never emitted.
    DOCKER_UNAVAILABLE = "docker_unavailable"
    INTERNAL_ERROR = "internal_error"
    IMAGE_PULL_FAILED = "image_pull_failed"
    CONTAINER_START_FAILED = "container_start_failed"
    #: Not an error: the code of a success that found nothing to do.
    REPLAY_NO_OP = "replay_no_op"


#: The remedy of an error whose message already contains it.
IN_MESSAGE = ""


class RuntimeManagerError(Exception):
    """The base of every error that this package raises on purpose."""

    #: How to correct the cause; None when unknown.
    remedy: str | None = None


def remedy_for(error: Exception, otherwise: str = "") -> str:
    """Return a remedy that the error's message does not contain: its own, else `otherwise`."""
    own = getattr(error, "remedy", None)
    return otherwise if own is None else own


def with_remedy(error: Exception, otherwise: str = "") -> str:
    """Return the error's message with its remedy, if there is one."""
    remedy = remedy_for(error, otherwise)
    return f"{error}; remedy: {remedy}" if remedy else str(error)


class OperationFailed(RuntimeManagerError):
    """The operation has failed for good: a retry with the same input would fail the same way."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DependencyError(RuntimeManagerError):
    """A call to the dependency named by `dependency` failed."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(message)
        self.dependency = dependency


class Unavailable(DependencyError):
    """The dependency does not answer: nothing is decided, and a retry can help.

    `untouched`: the request certainly did not reach the dependency, so it had no effect.
    """

    def __init__(self, dependency: str, message: str, *, untouched: bool = False) -> None:
        super().__init__(dependency, message)
        self.untouched = untouched

    def again(self) -> Unavailable:
        """Copy the error for one more waiter: one instance raised by two threads would mix their tracebacks."""
        return Unavailable(self.dependency, str(self), untouched=self.untouched)


class TemporaryAnswer(Unavailable):
    """An answer that is listed as temporary: retried, but after a while it ends the operation.

    `answer` names the rule that matches; `code` is the error code that the operation then ends with. The dependency did
    not carry out the request.
    """

    def __init__(self, dependency: str, message: str, *, answer: str, code: ErrorCode) -> None:
        super().__init__(dependency, message, untouched=True)
        self.answer = answer
        self.code = code

    def again(self) -> TemporaryAnswer:
        """See `Unavailable.again`."""
        return TemporaryAnswer(self.dependency, str(self), answer=self.answer, code=self.code)


class FinalAnswer(DependencyError):
    """The dependency rejects the request: a retry with the same input would get the same answer."""


class InvalidValue(RuntimeManagerError, ValueError):
    """A value breaks a rule of the domain; the message names the value and what is expected."""
