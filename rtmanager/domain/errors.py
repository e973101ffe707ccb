"""What can go wrong, named as the neighbours know it.

`OperationFailed` ends an operation with a code of the contract. What a dependency does to a call is one of three
`DependencyError`s, and the adapter's table decides which (`adapters/*/answers.py`):

- `Unavailable`: silence. Nothing is decided, a job stays due, a REST caller is told to come again.
- `TemporaryAnswer`: an answer that is listed as temporary. It is retried, but not for ever.
- `FinalAnswer`: every other answer. It ends the operation.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """The stable codes of the contract (docs/contract.md, "Error codes"); messages beside them are for people."""

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


#: The remedy of an error whose message has it.
IN_MESSAGE = ""


class RuntimeManagerError(Exception):
    """The root of every error that this package raises on purpose."""

    #: What to do about it; None when the error does not know.
    remedy: str | None = None


def remedy_for(error: Exception, otherwise: str = "") -> str:
    """What to do about an error that its message does not say: its own remedy, else `otherwise`."""
    own = getattr(error, "remedy", None)
    return otherwise if own is None else own


def with_remedy(error: Exception, otherwise: str = "") -> str:
    """The message of an error with what to do about it, where that is known."""
    remedy = remedy_for(error, otherwise)
    return f"{error}; remedy: {remedy}" if remedy else str(error)


class OperationFailed(RuntimeManagerError):
    """The operation has an answer, and it is no: trying again with the same input would give the same."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DependencyError(RuntimeManagerError):
    """A dependency (named by `dependency`) did not do what was asked of it."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(message)
        self.dependency = dependency


class Unavailable(DependencyError):
    """Silence: the dependency does not answer, so nothing is decided and trying again later can help.

    `untouched` when the question surely did not reach it, so that nothing can have happened there.
    """

    def __init__(self, dependency: str, message: str, *, untouched: bool = False) -> None:
        super().__init__(dependency, message)
        self.untouched = untouched

    def again(self) -> Unavailable:
        """The same for one more waiter: one instance raised by two threads would mix their tracebacks."""
        return Unavailable(self.dependency, str(self), untouched=self.untouched)


class TemporaryAnswer(Unavailable):
    """An answer that is listed as temporary: retried like silence, but after a while it ends an operation.

    `answer` names the rule that it fits; `code` is what the operation then ends with.
    The dependency did not do what was asked.
    """

    def __init__(self, dependency: str, message: str, *, answer: str, code: ErrorCode) -> None:
        super().__init__(dependency, message, untouched=True)
        self.answer = answer
        self.code = code

    def again(self) -> TemporaryAnswer:
        """See `Unavailable.again`."""
        return TemporaryAnswer(self.dependency, str(self), answer=self.answer, code=self.code)


class FinalAnswer(DependencyError):
    """The dependency answers, and the answer is no: trying again with the same input would give the same."""


class InvalidValue(RuntimeManagerError, ValueError):
    """A value breaks a rule of the domain; the message names the value and what is expected."""
