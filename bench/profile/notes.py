"""The notes of a traced manager, and their conversion to spans."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Turn(StrEnum):
    """What a note marks."""

    BEGINS = "+"
    #: The current span ends, and another begins at once.
    BECOMES = "="
    ENDS = "-"


@dataclass(frozen=True, slots=True)
class Note:
    """One event on a thread, by the monotonic clock, which all processes of a machine share."""

    at_ns: int
    thread: str
    turn: Turn
    what: str


@dataclass(frozen=True, slots=True)
class Span:
    """One effect of a thread; an effect within it is a span of its own."""

    thread: str
    what: str
    began_ns: int
    ended_ns: int


def written(notes: Iterable[Note]) -> str:
    """The notes as text, one a line."""
    return "".join(f"{note.at_ns}\t{note.thread}\t{note.turn}\t{note.what}\n" for note in notes)


def read(text: str) -> Iterator[Note]:
    """Parse the notes of such a text."""
    for line in text.splitlines():
        at_ns, thread, turn, what = line.split("\t")
        yield Note(int(at_ns), thread, Turn(turn), what)


def spans(notes: Iterable[Note]) -> list[Span]:
    """The spans in the order of their beginnings, without those that never end."""
    found, under_way = [], defaultdict[str, list[Note]](list)
    for note in notes:
        stack = under_way[note.thread]
        if note.turn is not Turn.BEGINS and stack:
            begun = stack.pop()
            found.append(Span(note.thread, begun.what, begun.at_ns, note.at_ns))
        if note.turn is not Turn.ENDS:
            stack.append(note)
    return sorted(found, key=lambda span: span.began_ns)
