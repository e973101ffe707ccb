"""Image patterns are compared part by part; registries on the host itself need a pattern."""

from __future__ import annotations

import random
import re
import unittest
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.image_policy import ImagePattern, ImagePolicy, is_near, parse_patterns

DIGEST = "sha256:" + "0123456789abcdef" * 4

#: Patterns, references that they allow, and references that they do not.
EXAMPLES = {
    "registry.example/games/**": (
        ("registry.example/games/x", "REGISTRY.example/games/x/y:1", f"registry.example/games/x@{DIGEST}"),
        (
            *("registry.example.evil/games/x", "registry.example/games-evil/x", "registry.example/games"),
            *("registry.example:443/games/x", "registry.example/x/games/x", "games/x", "evil/registry.example/games/x"),
            *("docker.io/registry.example/games/x", "aregistry.example/games/x", "registry.example/gamesx/y"),
        ),
    ),
    "registry.example:5000/*/game:1.*": (
        ("registry.example:5000/a/game:1.2.3", f"registry.example:5000/b/game@{DIGEST}"),
        (
            *("registry.example:5000/a/game:2.1", "registry.example:5000/a/b/game:1.2", "registry.example/a/game:1.2"),
            *("registry.example:5000/game:1.2", "registry.example:5000/a/game", "registry.example:50001/a/game:1.2"),
            f"registry.example:5000/a/game:2.0@{DIGEST}",
        ),
    ),
    "game": (
        ("game", "game:1", "docker.io/game:1", "index.docker.io/library/game", "docker.io/library/game"),
        ("galaxy/game", "games", "registry.example/game", "registry.example/library/game"),
    ),
    "index.docker.io/galaxy/game:latest": (("galaxy/game", "galaxy/game:latest"), ("galaxy/game:1", "game")),
    "*": (("game:1",), ("galaxy/game", "registry.example/game")),
    "**": (("game:1", "a/b/c", "docker.io/game"), ("registry.example/game", "localhost/game", "127.0.0.1:1/game")),
    "LOCALHOST:5000/**": (("localhost:5000/a", "LocalHost:5000/a/b"), ("localhost/a", "localhost:5001/a", "a")),
    "galaxy/game:*.*.*-*": (("galaxy/game:1.2.3-rc1", "galaxy/game:1.2.3.4-a-b"), ("galaxy/game:1.2.3", "galaxy/game")),
}

MALFORMED = (
    *("registry.example", "localhost", "registry.example:5000x/a", "registry.example:/a", "registry.example:0/a"),
    *("*.example/a", "registry.*/a", "registry.example:*/a", "[::1]:5000/a", "http://registry.example/a"),
    *("a/**/b", "**/a", "a/b*", "*a/b", "a/***", "A/b", "a//b", "/a", "a/", "-a/b", "a/..", "../a", "a b@"),
    *("a:", "a:.1", "a:-1", "a:1:2", "a:b/c", "a:" + "1" * 129, f"a@{DIGEST}", f"a:1@{DIGEST}", ",", " , ,"),
)

NEAR = (
    *("localhost", "LocalHost", "a.localhost", "a.b.LOCALHOST", "localhost.localdomain", "ip6-localhost"),
    *("127.0.0.1", "127.255.255.254", "127.1", "127.0.1", "2130706433", "0x7f.1", "0x7F000001", "0177.0.0.1"),
    *("017700000001", "0127.0.0.1", "127.0.0.01", "0", "0.0.0.0", "0x0.0", "000.000.000.000", "0.1.2.3"),
    *("169.254.169.254", "169.254.0.1", "2851995648", "0xa9fea9fe", "169.16689662", "0251.254.169.254"),
    *("::1", "[::1]", "::", "0:0:0:0:0:0:0:1", "fe80::1", "[fe80::1%eth0]", "febf::1", "::ffff:127.0.0.1"),
    *("::ffff:7f00:1", "[::ffff:169.254.169.254]", "::127.0.0.1", "::ffff:0.0.0.0"),
)
FAR = (
    *("registry.example", "docker.io", "localhost.example", "notlocalhost", "xlocalhost.com", "127.0.0.1.example"),
    *("126.255.255.255", "128.0.0.1", "10.0.0.1", "169.253.255.255", "169.255.0.0", "1.0.0.0", "192.168.1.1"),
    *("2147483648", "0x80.1", "127.example", "2001:db8::1", "fec0::1", "::ffff:10.0.0.1", "1e100.net", "0x7f.example"),
)


@dataclass(frozen=True)
class Made:
    """A reference or a pattern, from which a simple reading of the rules follows."""

    registry: str
    parts: tuple[str, ...]
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        name = "/".join([*filter(None, [self.registry]), *self.parts])
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def path(self) -> str:
        registry = self.registry.lower() or "docker.io"
        official = registry == "docker.io" and len(self.parts) == 1 and self.parts != ("**",)
        return "/".join([registry, *(["library"] if official else []), *self.parts])


def allows(pattern: Made, ref: Made) -> bool:
    """Return what the rules mean, by regular expressions instead of comparisons of parts."""
    path = re.escape(pattern.path).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
    if not re.fullmatch(path, ref.path):
        return False
    tag = ref.tag or ("" if ref.digest else "latest")
    return not pattern.tag or not tag or fnmatchcase(tag, pattern.tag)


class PatternTest(unittest.TestCase):
    def test_examples(self) -> None:
        for text, (allowed, refused) in EXAMPLES.items():
            policy = ImagePolicy((ImagePattern.parse(text),))
            for ref in allowed:
                with self.subTest(text, allowed=ref):
                    policy.check(ref)
            for ref in refused:
                with self.subTest(text, refused=ref), self.assertRaisesRegex(InvalidValue, "RTMANAGER_IMAGE_ALLOW"):
                    policy.check(ref)

    def test_generated_references_are_allowed_as_a_simple_reading_of_the_rules_says(self) -> None:
        source = random.Random(20261203)
        registries = ("", "", "docker.io", "a.example", "A.example", "a.example:5000", "a.example.b", "localhost:5000")
        names, tags = ("a", "b", "a-b", "a.b", "ab", "library"), ("1", "1.2.3", "1.2", "2.1", "latest", "v1.2-rc")
        wild = ("*", "1.*", "*1", "*.*", "1*2", "1.2.3", "*-*", "l*t", "**", "*1*")
        answers = {True: 0, False: 0}

        def some(choices: tuple[str, ...], most: int) -> tuple[str, ...]:
            return tuple(source.choice(choices) for _ in range(source.randint(1, most)))

        for _ in range(20_000):
            ref = Made(
                source.choice(registries), some(names, 3), source.choice(("", *tags)), source.choice(("", "", DIGEST))
            )
            parts = some((*names, "*", "*"), 3)
            if source.random() < 0.3:
                parts = (*parts[:-1], "**")
            pattern = Made(source.choice(registries), parts, source.choice(("", "", *wild)))
            if source.random() < 0.5:  # close to the reference
                parts = tuple(source.choice((part, "*")) for part in ref.parts)
                pattern = Made(ref.registry, parts, pattern.tag)
            if any(not each.registry and "." in each.parts[0] for each in (ref, pattern)):
                continue  # the first part is a registry then
            try:
                ImagePolicy((ImagePattern.parse(str(pattern)),)).check(str(ref))
                found = True
            except InvalidValue:
                found = False
            # Capitals in the name of the default registry would make another one of it; none is generated.
            self.assertEqual(found, allows(pattern, ref), f"{pattern} {ref}")
            answers[found] += 1
        self.assertGreater(min(answers.values()), 2_000)

    def test_a_malformed_pattern_is_refused(self) -> None:
        for text in MALFORMED:
            with self.subTest(text), self.assertRaises(InvalidValue):
                parse_patterns(text)

    def test_a_list_has_commas_or_white_space(self) -> None:
        self.assertEqual(len(parse_patterns("a/b, c.d/**\n\tgame:1.*,,x")), 4)
        self.assertEqual(parse_patterns(""), ())

    def test_many_wildcards_take_no_time(self) -> None:
        policy = ImagePolicy((ImagePattern.parse("a:" + "*a" * 60 + "*b"),))
        for _ in range(1_000):
            with self.assertRaises(InvalidValue):
                policy.check("a:" + "a" * 128)


class NearTest(unittest.TestCase):
    def test_each_spelling_of_the_host_itself_and_of_link_local_addresses_is_recognised(self) -> None:
        for host in NEAR:
            with self.subTest(host):
                self.assertTrue(is_near(host))
        for host in FAR:
            with self.subTest(host):
                self.assertFalse(is_near(host))

    def test_a_near_registry_needs_a_pattern_that_names_it(self) -> None:
        refs = [f"{host}:5000/x/y:1" for host in NEAR if ":" not in host] + ["localhost/x", "127.0.0.1/x", "0x7f.1/x:1"]
        for ref in refs:
            with self.subTest(ref):
                with self.assertRaisesRegex(InvalidValue, "RTMANAGER_IMAGE_ALLOW"):
                    ImagePolicy().check(ref)
                with self.assertRaisesRegex(InvalidValue, "RTMANAGER_IMAGE_ALLOW"):
                    ImagePolicy(parse_patterns("** */** registry.example/**")).check(ref)
                ImagePolicy(parse_patterns(f"{ref.partition('/')[0]}/**")).check(ref)

    def test_every_other_registry_needs_none_without_patterns(self) -> None:
        for ref in (
            "game",
            "galaxy/game:1",
            "registry.example/a/b:1",
            "registry:5000/a",
            "10.0.0.1:5000/a",
            "2130706433/x",
        ):
            ImagePolicy().check(ref)


class DigestTest(unittest.TestCase):
    def test_a_reference_without_a_digest_is_refused_where_one_is_required(self) -> None:
        policy = ImagePolicy(parse_patterns("galaxy/**"), require_digest=True)
        policy.check(f"galaxy/game@{DIGEST}")
        policy.check(f"galaxy/game:1.2.3@{DIGEST}")
        with self.assertRaisesRegex(InvalidValue, "RTMANAGER_IMAGE_REQUIRE_DIGEST"):
            policy.check("galaxy/game:1.2.3")
        with self.assertRaisesRegex(InvalidValue, "RTMANAGER_IMAGE_ALLOW"):
            policy.check(f"other/game@{DIGEST}")
