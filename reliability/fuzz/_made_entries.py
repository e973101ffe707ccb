"""Generated stream entries of every kind, each with its required result."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Pairs = list[tuple[bytes, bytes]]

LARGEST = 10_000_000
MOST_FIELDS = 100_000

#: Bytes that are no readable name of a game.
_UNREADABLE = (b"", b"\n", b"g\r\n", b"\x1b[31mg", b"\xe2\x80\x8f", b"g\xe2\x80\x8b", b"\xc2\xa0", b"\xe2\x80\xa8")
_TIMES = (
    b"",
    "²".encode(),
    "\uff11\uff12".encode(),
    b" 1",
    b"1 ",
    b"-1",
    b"+1",
    b"1.5",
    b"1e3",
    b"0x10",
    b"9" * 19,
    b"\xff",
    b"1\0",
)
_IMAGES = (
    b"",
    b"NOT AN IMAGE",
    b"game:",
    b"x" * 600,
    b"game:\xff",
    b"game\0:1",
    "\uff47ame:1".encode(),
    b"../../etc",
    b"g:1\n",
)
_REASONS = (b"", b"Finished", b"finished ", b"bored", b"finished\0", "ﬁnished".encode())
#: Odd characters of a name that is answered although it is malformed.
_ODD = (
    "é",
    "中",
    "שלום",
    "ß",
    "%s",
    "{}",
    "'",
    '"',
    "\\",
    "..",
    "/",
    " ",
    "e\u0301",
    "😀",
    "#",
    ":",
    "\u0661",
    "$(id)",
    "\0",
    "﷽",
)


@dataclass(frozen=True)
class Made:
    """One entry; its single result must carry the name `game_id`, None stands for a dead letter."""

    stream: str
    pairs: Pairs
    game_id: str | None


def make(rng: random.Random, number: int) -> Made:
    """The `number`-th entry; the first ones are of the rare and large kinds."""
    if number < len(_LARGE):
        return _LARGE[number](rng, number)
    kinds, weights = zip(*_KINDS, strict=True)
    kind: Callable[[random.Random, int], Made] = rng.choices(kinds, weights)[0]
    return kind(rng, number)


def shown(raw: bytes) -> str:
    """Bytes in the contract's notation."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _name(rng: random.Random, number: int) -> bytes:
    """A unique name of a game that can be answered."""
    name = f"f{number}"
    if rng.random() < 0.3:
        name += "".join(rng.choices(_ODD, k=rng.randrange(1, 8)))
    raw = name.encode() + (b"\xff\xfe" if rng.random() < 0.05 else b"")
    return raw if len(shown(raw)) <= 200 else raw[:40]


def _stop(game_id: bytes, reason: bytes = b"finished", at: bytes = b"1") -> Pairs:
    return [(b"game_id", game_id), (b"reason", reason), (b"requested_at_ms", at)]


def _start(game_id: bytes, image_ref: bytes, at: bytes = b"1") -> Pairs:
    return [(b"game_id", game_id), (b"image_ref", image_ref), (b"requested_at_ms", at)]


def _unknown_game(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    return Made("stop", _shuffled(rng, _stop(name)), shown(name))


def _bad_reason(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    return Made("stop", _shuffled(rng, _stop(name, rng.choice(_REASONS))), shown(name))


def _bad_time(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    return Made("stop", _stop(name, at=rng.choice(_TIMES)), shown(name))


def _bad_image(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    return Made("start", _shuffled(rng, _start(name, rng.choice(_IMAGES))), shown(name))


def _missing(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    pairs = [(b"game_id", name), *rng.sample([(b"reason", b"finished"), (b"", b""), (b"note", b"x")], 2)]
    return Made("start", pairs, shown(name))


def _twice(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    pairs = _stop(name)
    pairs.append((rng.choice((b"reason", b"requested_at_ms")), b"1"))
    if rng.random() < 0.3:
        pairs = [*pairs, (b"", b"a"), (b"", b"b")]
    return Made("stop", _shuffled(rng, pairs), shown(name))


def _game_twice(rng: random.Random, number: int) -> Made:
    name = _name(rng, number)
    return Made("stop", _shuffled(rng, [*_stop(name), (b"game_id", name)]), None)


def _nameless(rng: random.Random, number: int) -> Made:
    pairs = [
        (rng.randbytes(rng.randrange(0, 20)), rng.randbytes(rng.randrange(0, 300))) for _ in range(rng.randrange(1, 9))
    ]
    return Made(rng.choice(("start", "stop")), [(n, v) for n, v in pairs if n != b"game_id"], None)


def _unreadable(rng: random.Random, number: int) -> Made:
    name = rng.choice((*_UNREADABLE, b"x" * 201, b"\xff" * 60))
    return Made("stop", _stop(name), None)


def _nearly_named(rng: random.Random, number: int) -> Made:
    name = rng.choice((b"Game_id", b" game_id", b"game_id\0", b"game_id ", b"gameid", "\uff47ame_id".encode()))
    return Made("start", [(name, b"f%d" % number), (b"image_ref", b"x:1")], None)


def _medium(rng: random.Random, number: int) -> Made:
    return _sized(rng, number, rng.randrange(1_000, 200_000))


def _large(rng: random.Random, number: int) -> Made:
    return _sized(rng, number, rng.randrange(200_000, 2_000_000))


def _huge(rng: random.Random, number: int) -> Made:
    return _sized(rng, number, rng.randrange(2_000_000, LARGEST))


def _sized(rng: random.Random, number: int, size: int) -> Made:
    """An entry with one large field, known to the contract or not, with or without a game's name."""
    large = rng.choice((b"x", b"\0", b"\xff", "é".encode(), b'"')) * size
    name = _name(rng, number)
    what = rng.randrange(5)
    if what == 0:
        return Made("stop", _shuffled(rng, [*_stop(name), (b"note", large[:size])]), shown(name))
    if what == 1:
        return Made("start", _shuffled(rng, _start(name, large[:size])), shown(name))
    if what == 2:
        return Made("stop", [(large[:size], b"v"), *_stop(name, b"bored")], shown(name))
    if what == 3:
        return Made("stop", _stop(large[:size]), None)
    return Made("start", [(b"image_ref", b"x:1"), (b"note", large[:size])], None)


def _wide(rng: random.Random, number: int) -> Made:
    return _fields(rng, number, rng.randrange(100, 2_000))


def _widest(rng: random.Random, number: int) -> Made:
    return _fields(rng, number, MOST_FIELDS)


def _fields(rng: random.Random, number: int, count: int) -> Made:
    pairs = [(b"n%d" % each, b"v") for each in range(count)]
    if rng.random() < 0.5:
        return Made("start", pairs, None)
    name = _name(rng, number)
    return Made("stop", _shuffled(rng, [*pairs, *_stop(name, b"bored")]), shown(name))


def _shuffled(rng: random.Random, pairs: Pairs) -> Pairs:
    return rng.sample(pairs, len(pairs))


#: The first entries of a run, so that a short one has them, too.
_LARGE: Sequence[Callable[[random.Random, int], Made]] = (
    lambda rng, number: _sized(rng, number, LARGEST),
    *[_huge] * 3,
    *[_large] * 10,
    *[_widest] * 2,
)

_KINDS: Sequence[tuple[Callable[[random.Random, int], Made], float]] = (
    (_unknown_game, 20),
    (_bad_reason, 10),
    (_bad_time, 10),
    (_bad_image, 15),
    (_missing, 5),
    (_twice, 10),
    (_game_twice, 5),
    (_nameless, 10),
    (_unreadable, 5),
    (_nearly_named, 5),
    (_medium, 2),
    (_large, 0.2),
    (_huge, 0.1),
    (_wide, 1),
    (_widest, 0.05),
)
