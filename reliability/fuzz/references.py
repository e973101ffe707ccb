"""Image references against the daemon's own parser: the daemon accepts every reference that the manager accepts.

The daemon itself decides every case. A pull or a tag request carries a second, malformed tag, which the daemon detects
only after it has parsed the reference. A container of a missing image is not created.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness import daemon
from harness.rtm import engine_image
from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.image_ref import parse_image_ref

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_COUNT = 20_000

#: Threads that send requests to the daemon.
THREADS = 8
#: The status when a container was created after all.
CREATED = 201
#: Invalid as a tag in every version of the daemon.
NO_TAG = "-"
#: The daemon's error for `NO_TAG`, in lower case: it has parsed everything before it.
_REFUSES_THE_TAG = ("invalid tag format",)
#: Reported examples of references that the daemon accepts and the manager rejects.
EXAMPLES = 12

_ALPHANUMERIC = "abcxyz0189"
_SEPARATORS = (".", "_", "__", "-", "--", "---", "___", "..", "._", "-_", "_.")
_ODD = "AZ/:@._- \0\n%?#[]{}\\é²\ud800+~$&=,;'\"!*()<>|^`"
_REGISTRIES = (
    "localhost", "Localhost", "LOCALHOST:5000", "docker.io", "index.docker.io", "Docker.io", "registry-1.docker.io",
    "docker.io:443", "127.0.0.1:5000", "10.0.0.1", "[::1]", "[::1]:5000", "[2001:db8::1]:443", "[fe80::1%eth0]:1",
    "registry.test", "registry:5000", "Registry:5000", "UP", "Up", "reg_istry.test", "reg_istry:5000", "-a.b", "a-.b",
    "a.b-", "a..b", ".a", "a.", "xn--bcher-kva.example", "a.b:0", "a.b:65535", "a.b:65536", "a.b:99999", "a.b:123456",
    "a.b:", "a.b:port", "1.2", "a--b.c", "library", "a_b", "a.b.c.d.e.f",
)  # fmt: skip
_WORDS = ("game", "galaxy", "library", "scratch", "sha256", "sha512", "latest", "localhost", "docker.io", "json", "get")
_DIGESTS = {"sha256": 64, "sha384": 96, "sha512": 128, "md5": 32, "sha1": 40, "SHA256": 64, "sha256+b": 64}
_LENGTHS = (1, 2, 17, 63, 64, 65, 127, 128, 129, 200, 236, 237, 238, 244, 245, 246, 254, 255, 256, 300)


def references(seed: int, count: int) -> Iterator[str]:
    """References of which many are well-formed, and most of the others nearly so."""
    chance = random.Random(seed)
    for _ in range(count):
        text = _well_made(chance)
        for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
            text = _spoilt(chance, text)
        yield text


def _well_made(chance: random.Random) -> str:
    registry = chance.choice(_REGISTRIES) if chance.random() < 0.6 else ""
    parts = [_part(chance) for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5)))]
    text = "/".join([registry, *parts] if registry else parts)
    if chance.random() < 0.1:
        text += _letters(chance, max(0, chance.choice(_LENGTHS) - len(text)))
    if chance.random() < 0.6:
        text += f":{_tag(chance)}"
    if chance.random() < 0.3:
        text += f"@{_digest(chance)}"
    return text


def _part(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.2:
        return chance.choice(_WORDS)
    if kind < 0.3:
        return _hexadecimal(chance, chance.choice((8, 12, 63, 64, 65)))
    joined = _letters(chance, chance.randint(1, 6))
    for _ in range(chance.choice((0, 0, 1, 2))):
        # The first five belong to the grammar.
        joined += chance.choice(_SEPARATORS[: chance.choice((5, 5, 5, len(_SEPARATORS)))])
        joined += _letters(chance, chance.randint(1, 4))
    return joined


def _tag(chance: random.Random) -> str:
    first = chance.choice("aZ_0" if chance.random() < 0.9 else ".-+")
    length = chance.choice((0, 1, 4, 8, 63, 126, 127, 128)) if chance.random() < 0.5 else 4
    return first + "".join(chance.choice("azAZ09_.-") for _ in range(length))


def _digest(chance: random.Random) -> str:
    name = chance.choice(list(_DIGESTS)) if chance.random() < 0.4 else "sha256"
    length = _DIGESTS[name] + (chance.choice((-32, -1, 1, 32)) if chance.random() < 0.2 else 0)
    digits = _hexadecimal(chance, length)
    return f"{name}:{digits.upper() if chance.random() < 0.1 else digits}"


def _letters(chance: random.Random, length: int) -> str:
    return "".join(chance.choice(_ALPHANUMERIC) for _ in range(length))


def _hexadecimal(chance: random.Random, length: int) -> str:
    return "".join(chance.choice("0123456789abcdef") for _ in range(length))


def _spoilt(chance: random.Random, text: str) -> str:
    """Make one small change."""
    at = chance.randint(0, len(text))
    change = chance.randrange(6)
    if change == 0:
        return text[:at] + chance.choice(_ODD) + text[at:]
    if change == 1:
        return text[:at] + text[at + 1 :]
    if change == 2:
        return text[:at] + text[at : at + 1].upper() + text[at + 1 :]
    if change == 3:
        return text[:at] + chance.choice(("/", ":", "@", ".", "-", "_", "//", "::")) + text[at + 1 :]
    if change == 4:
        return text[:at] + text[at:] * 2
    return chance.choice(_REGISTRIES) + "/" + text


def accepted(text: str) -> bool:
    """Whether the manager's grammar accepts it."""
    try:
        parse_image_ref(text)
    except InvalidValue:
        return False
    return True


class Oracle:
    """The daemon's verdict on a reference."""

    def __init__(self, client: APIClient, image: str) -> None:
        self._client = client
        self._image = image

    def refusal(self, text: str) -> str | None:
        """The daemon's error when it cannot parse a reference at the start of a pull; None when it can."""
        return self._beyond(self._request("POST", "/images/create", {"fromImage": text, "tag": NO_TAG}))

    def refusals(self, text: str) -> Iterator[str]:
        """All of the daemon's errors for a reference, wherever the manager uses it."""
        ref = parse_image_ref(text)
        name, full = ref.name, ref.pulled_as
        given = text if ref.tag else full  # never a bare name: one of hex digits may be the beginning of an image's id
        checks: dict[str, Callable[[], str | None]] = {
            "pull": lambda: self.refusal(text),
            "pull of the name": lambda: self.refusal(name),
            "tag": lambda: self._beyond(
                self._request("POST", f"/images/{self._image}/tag", {"repo": name, "tag": NO_TAG})
            ),
            "inspect": lambda: self._absent(self._request("GET", f"/images/{full}/json", {})),
            "history": lambda: self._absent(self._request("GET", f"/images/{full}/history", {})),
            "create": lambda: self._absent(self._request("POST", "/containers/create", {}, {"Image": full})),
            "create as given": lambda: self._absent(self._request("POST", "/containers/create", {}, {"Image": given})),
        }
        for call, check in checks.items():
            message = check()
            if message is not None:
                yield f"{text!r}: {call}: {message}"

    def _request(self, method: str, path: str, params: dict[str, str], body: object = None) -> tuple[int, str]:
        url = f"{self._client.base_url}/v{self._client.api_version}{path}"
        answer = self._client.request(method, url, params=params, json=body)
        if answer.status_code == CREATED:
            self._client.remove_container(answer.json()["Id"])
        return answer.status_code, answer.text.strip()

    def _beyond(self, answer: tuple[int, str]) -> str | None:
        """None when only the second tag was rejected."""
        status, message = answer
        lowered = message.lower()
        return None if any(text in lowered for text in _REFUSES_THE_TAG) else f"{status} {message}"

    def _absent(self, answer: tuple[int, str]) -> str | None:
        """None when the daemon has parsed it and has no such image."""
        status, message = answer
        return None if status == 404 and "no such image" in message.lower() else f"{status} {message}"


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """See `reliability.fuzz`."""
    oracle = Oracle(daemon.client(), engine_image().ref)
    texts = list(dict.fromkeys(references(seed, count)))
    ours = [text for text in texts if accepted(text)]
    others = [text for text in texts if not accepted(text) and _encodes(text)]
    with ThreadPoolExecutor(THREADS) as threads:
        violations = [
            message for found in threads.map(lambda text: list(oracle.refusals(text)), ours) for message in found
        ]
        refused = list(threads.map(oracle.refusal, others))
    stricter = [text for text, message in zip(others, refused, strict=True) if message is None]
    report(f"{len(texts)} different references: we take {len(ours)}, the daemon {len(ours) + len(stricter)}")
    report(f"the daemon takes and we refuse {len(stricter)}: {dict(_why(stricter))}")
    for text in stricter[:EXAMPLES]:
        report(f"  {text[:100]!r}")
    return violations


def _why(texts: list[str]) -> Counter[str]:
    """The number of rejections by reason."""
    reasons: Counter[str] = Counter()
    for text in texts:
        try:
            parse_image_ref(text)
        except InvalidValue as error:
            why = str(error).partition("is not an image reference: ")[2].partition(";")[0]
            reasons["…".join(why.split("'")[::2])] += 1
    return reasons


def _encodes(text: str) -> bool:
    """Whether it can be sent at all: half a surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
