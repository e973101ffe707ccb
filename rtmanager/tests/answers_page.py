"""Writes `docs/generated/answers.md` from the tables in the adapters:

    python -m rtmanager.tests.answers_page > docs/generated/answers.md

A unit test fails while the page in the repository differs.
"""

import errno
import sys
from collections.abc import Iterator

from rtmanager.adapters import redis_streams
from rtmanager.adapters.docker.answers import CALLS, OTHER_TEMPORARY, RULES, Call, Meaning, Rule
from rtmanager.adapters.docker.registry_answers import HIDDEN, KINDS, LONGEST_READ
from rtmanager.adapters.postgres import answers as postgres
from rtmanager.adapters.state_directories import FINAL
from rtmanager.operations.runner import DEFECT_TRIES

_HEAD = """\
# Answers and outcomes

What follows from each answer of a dependency. *Silence* says nothing about the question: jobs wait, a call gets `service_unavailable`, no operation ever ends by it. A *temporary* answer is retried like silence; when nothing else has come for `RTMANAGER_DEFERRAL_LIMIT`, whichever they were, the operation ends with the last one and the code of its call (a half-done restart or patch goes on, with an alarm). Every other answer is *final*: it ends the operation at once, with the dependency's own words in the message, at most 1,000 characters of them. A registry's words are no part of a message.

"""

_REGISTRIES = f"""
### A registry's words

Docker repeats a registry's text. A message has one of these instead, the first whose mark is in the text outside of quotes. Of the marks of networks and TLS, only those about the image's own registry count, not those about a server to which it redirects. Every other text becomes "{HIDDEN}". The log has the text, at most {LONGEST_READ:,} characters of it: `a registry's answer, or Docker's, ends a pull`.

| marks | message |
|---|---|
"""

_POSTGRES = """\
## PostgreSQL

Silence, by how the SQLSTATE begins; a lost connection without one, too:

| SQLSTATE | why |
|---|---|
"""

_POSTGRES_TAIL = """
Every other SQLSTATE, and whatever psycopg cannot send or read, is a refusal of this statement with this data. An operation whose end is refused gets a plainer end, `internal_error` (or `container_start_failed`, with its container taken away again); when even the plainest is refused, `/readyz` names it and the operation is tried again every minute. There is no time limit by which PostgreSQL's or Redis's answers end an operation.

"""

_REDIS = """\
## Redis

No operation asks Redis anything: jobs and results wait. It is silent when it does not answer, and by these answers; every other answer is told in the log and in `/readyz` as a refusal, and the worker tries again.

| answer |
|---|
"""

_DIRECTORIES = f"""
## The games' directories

What this process lacks (descriptors, memory) is silence. Final, by `start_config_invalid`, are {", ".join(sorted(errno.errorcode[number] for number in FINAL))}. Every other error of the system is temporary.
"""

_DEFECTS = f"""
## Defects of the Runtime Manager

An operation that meets an unforeseen error is tried {DEFECT_TRIES} times in all, whichever instance has it, and then ends with `internal_error`. The log has each traceback.
"""

_TAIL = """
This page is made from the tables in `rtmanager/adapters`: `python -m rtmanager.tests.answers_page > docs/generated/answers.md`.
"""


def page() -> str:
    """The whole page."""
    return "".join(_parts())


def _parts() -> Iterator[str]:
    yield _HEAD
    yield "## Docker\n\n### By their words\n\nThe first line that fits decides. What Docker only repeats (in quotes, a path, a user) does not count. Words of silence in a place that an image may have chosen are temporary.\n\n| answer | to | is |\n|---|---|---|\n"
    for rule in RULES:
        yield f"| {rule.answers} | {_calls(rule)} | {rule.meaning} |\n"
    for answers in OTHER_TEMPORARY.values():
        yield f"| {answers} | any call | {Meaning.TEMPORARY} |\n"
    yield "| none within the deadline (`100 Continue` is none), no connection, or one that ends before an answer begins or is reset | any call | silence |\n"
    yield "\n### Final answers\n\n| call | answer | outcome |\n|---|---|---|\n"
    for name, call in CALLS.items():
        yield from _finals(name, call)
    yield _REGISTRIES
    for kind in KINDS:
        yield f"| {', '.join(kind.marks)} | {kind.words} |\n"
    yield "\n" + _POSTGRES
    for beginning, why in postgres.SILENCE.items():
        yield f"| {beginning}… | {why} |\n" if len(beginning) < 5 else f"| {beginning} | {why} |\n"
    yield _POSTGRES_TAIL + _REDIS
    for error in redis_streams.SILENT_ERRORS:
        yield f"| `{error.__name__}` of redis-py |\n"
    for reply in redis_streams.SILENT_REPLIES:
        yield f"| `{reply}` |\n"
    yield _DIRECTORIES + _DEFECTS + _TAIL


def _calls(rule: Rule) -> str:
    if rule.calls:
        return ", ".join(f"`{call}`" for call in sorted(rule.calls))
    if rule.not_calls:
        return "any call but " + ", ".join(f"`{call}`" for call in sorted(rule.not_calls))
    return "any call"


#: The consequence of a final answer to a call that belongs to no operation.
_NO_OPERATION = {
    "remove_image": "the image stays, the next pass of retention tries again",
    "run": "the begin of the daemon's run is unknown; no end counts as an outage",
    "list": "the pass ends, the next one asks again",
    "logs": "the words stand in the place of the log, in `last_exit.log` and in the message of a start",
    "events": "the stream is asked for again, then all containers are listed",
    "plugins": "the same",
    "images": "`check` says so",
}


def _finals(name: str, call: Call) -> Iterator[str]:
    for special in call.specials:
        statuses = ", ".join(map(str, sorted(special.statuses)))
        marks = f" ({', '.join(special.marks)})" if special.marks else ""
        yield f"| `{name}`: `{call.request}` | {statuses}{marks} | {special.outcome} |\n"
    outcome = f"`{call.code}`" if call.code else _NO_OPERATION[name]
    yield f"| `{name}`: `{call.request}` | any other | {outcome} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
