"""Image references are parsed as Docker parses them, and versions as Semantic Versioning defines them."""

from __future__ import annotations

import unittest

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.image_ref import MAX_LENGTH, ImageRef, Version, may_patch, parse_image_ref, version_of

DIGEST = "sha256:" + "0123456789abcdef" * 4

GOOD = {
    "game": ImageRef("game", None, None),
    "galaxy/game:1.0.0": ImageRef("galaxy/game", "1.0.0", None),
    "registry:5000/game": ImageRef("registry:5000/game", None, None),
    "registry:5000/galaxy/game:1.0.0": ImageRef("registry:5000/galaxy/game", "1.0.0", None),
    "registry.example.com/a/b/c:latest": ImageRef("registry.example.com/a/b/c", "latest", None),
    "localhost/game": ImageRef("localhost/game", None, None),
    "REGISTRY.example/game:1": ImageRef("REGISTRY.example/game", "1", None),
    "localhost:5000": ImageRef("localhost", "5000", None),
    f"game@{DIGEST}": ImageRef("game", None, DIGEST),
    f"galaxy/game:1.0.0@{DIGEST}": ImageRef("galaxy/game", "1.0.0", DIGEST),
    "a_b/c__d/e-f/g--h.i:T_a.G-1": ImageRef("a_b/c__d/e-f/g--h.i", "T_a.G-1", None),
    f"game:{'t' * 128}": ImageRef("game", "t" * 128, None),
    "game:_1": ImageRef("game", "_1", None),
    "REGISTRY:5000/game:1": ImageRef("REGISTRY:5000/game", "1", None),
    "Docker.io/game:1": ImageRef("Docker.io/game", "1", None),
    f"registry.test/{'a' * 64}": ImageRef(f"registry.test/{'a' * 64}", None, None),
    "registry:65535/game": ImageRef("registry:65535/game", None, None),
    "galaxy/sha256:1": ImageRef("galaxy/sha256", "1", None),
    f"game@sha512:{'a' * 128}": ImageRef("game", None, f"sha512:{'a' * 128}"),
}

BAD = (
    "",
    " ",
    " game",
    "game ",
    "game\n",
    "game:1.0.0\n",
    "Galaxy/Game",
    "galaxy/Game:1.0.0",
    "game:",
    "game@",
    "game:1:2",
    ":1.0.0",
    "/game",
    "game/",
    "a//b",
    "game..x",
    "game___x",
    "game_",
    "-game",
    "game:-1",
    "game:.1",
    f"game:{'t' * 129}",
    "game:1.0+build",
    "http://registry/game",
    "registry:port/game",
    "registry:123456/game",
    "game@sha256:",
    "game@sha256:xyz",
    f"game@sha256:{'a' * 31}",
    f"@{DIGEST}",
    "gáme",
    "game:1.0.0\0",
    "game:1.0.0 --privileged",
    "../game",
    "a" * (MAX_LENGTH + 1),
)

#: References that Docker versions parse differently, with a word of the remedy.
NOT_EVERYWHERE = {
    "Up/x:1": "lower case",
    "Localhost/x:1": "lower case",
    "up/X:1": "lower case",
    "a.b/X:1": "lower case",
    "[::1]:5000/game:1": "host name",
    "[2001:db8::1]/game:1": "host name",
    "a" * 64: "id of an image",
    f"{'a' * 64}:1": "id of an image",
    f"docker.io/library/{'0' * 64}": "id of an image",
    "sha256:1": "id of an image",
    f"sha256:{'a' * 64}": "id of an image",
    "scratch": "reserves",
    "index.docker.io/scratch:1": "reserves",
    "my_registry.test/game": "is not a registry",
    "registry:0/game": "is not a registry",
    "registry:65536/game": "is not a registry",
    "registry:/game": "is not a registry",
    "a.-b/game": "is not a registry",
    f"game@sha256:{'a' * 64}:1": "digest",
    f"game@SHA256:{'a' * 64}": "digest",
    f"game@md5:{'a' * 32}": "digest",
    f"game@sha256:{'a' * 64}@sha256:{'a' * 64}": "digest",
}


class ImageRefTest(unittest.TestCase):
    def test_a_good_reference_is_taken_apart(self) -> None:
        for text, expected in GOOD.items():
            with self.subTest(text):
                self.assertEqual(parse_image_ref(text), expected)

    def test_a_bad_reference_is_refused_with_its_text(self) -> None:
        for text in BAD:
            with self.subTest(text), self.assertRaises(InvalidValue) as caught:
                parse_image_ref(text)
            self.assertIn(repr(text)[:100], str(caught.exception))
            self.assertLess(len(str(caught.exception)), 400)

    def test_a_name_is_no_longer_than_docker_takes(self) -> None:
        for prefix, written_out in (
            ("", "docker.io/library/"),
            ("docker.io/", "docker.io/library/"),
            ("index.docker.io/", "docker.io/library/"),
            ("a/", "docker.io/a/"),
            ("index.docker.io/a/", "docker.io/a/"),
            ("localhost/", "localhost/"),
            ("registry.test:5000/a/", "registry.test:5000/a/"),
        ):
            with self.subTest(prefix):
                longest = prefix + "a" * (255 - len(written_out))
                parse_image_ref(longest)
                with self.assertRaisesRegex(InvalidValue, "longer than 255"):
                    parse_image_ref(f"{longest}a")

    def test_what_not_every_docker_reads_alike_is_refused_with_the_remedy(self) -> None:
        for text, remedy in NOT_EVERYWHERE.items():
            with self.subTest(text), self.assertRaisesRegex(InvalidValue, remedy):
                parse_image_ref(text)

    def test_it_names_the_registry_as_docker_does(self) -> None:
        for text, registry in {
            "game": "docker.io",
            "galaxy/game:1": "docker.io",
            "index.docker.io/galaxy/game": "docker.io",
            "docker.io/game": "docker.io",
            "localhost/game": "localhost",
            "localhost:5000/game": "localhost:5000",
            "Registry.test/game": "Registry.test",
        }.items():
            with self.subTest(text):
                self.assertEqual(parse_image_ref(text).registry, registry)

    def test_of_a_tag_and_a_digest_the_digest_counts(self) -> None:
        for text, full in {
            "game": "game:latest",
            "game:1": "game:1",
            f"game@{DIGEST}": f"game@{DIGEST}",
            f"game:1@{DIGEST}": f"game@{DIGEST}",
        }.items():
            with self.subTest(text):
                self.assertEqual(parse_image_ref(text).pulled_as, full)

    def test_a_sha256_digest_has_64_hexadecimal_digits_in_lower_case(self) -> None:
        for digits in ("a" * 32, "a" * 63, "a" * 65, "A" * 64):
            with self.subTest(digits), self.assertRaises(InvalidValue):
                parse_image_ref(f"game@sha256:{digits}")


class VersionTest(unittest.TestCase):
    def test_a_tag_that_is_a_semantic_version_is_read(self) -> None:
        for tag, expected in {
            "1.2.3": Version(1, 2, 3),
            "v1.2.3": Version(1, 2, 3),
            "0.0.0": Version(0, 0, 0),
            "10.20.30": Version(10, 20, 30),
            "1.2.3-rc.1": Version(1, 2, 3),
            "1.2.3-0": Version(1, 2, 3),
            "1.2.3-0a.x-y": Version(1, 2, 3),
            "1.2.3--": Version(1, 2, 3),
            "99999999999999999999.0.0": Version(99999999999999999999, 0, 0),
        }.items():
            with self.subTest(tag):
                self.assertEqual(version_of(f"registry:5000/game:{tag}"), expected)
                self.assertEqual(version_of(f"game:{tag}@{DIGEST}"), expected)

    def test_any_other_tag_is_no_version(self) -> None:
        for tag in (
            "latest",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.02.3",
            "1.2.03",
            "V1.2.3",
            "vv1.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.x",
            "1.2.3_1",
        ):
            with self.subTest(tag), self.assertRaises(InvalidValue) as caught:
                version_of(f"game:{tag}")
            self.assertIn(tag, str(caught.exception))

    def test_without_a_tag_there_is_no_version(self) -> None:
        for text in ("game", f"game@{DIGEST}", "registry:5000/game"):
            with self.subTest(text), self.assertRaises(InvalidValue) as caught:
                version_of(text)
            self.assertIn("has no tag", str(caught.exception))

    def test_only_the_third_number_may_change_in_a_patch(self) -> None:
        for current, wanted, allowed in (
            ("1.0.0", "1.0.1", True),
            ("1.0.9", "1.0.2", True),
            ("v1.0.0", "1.0.1", True),
            ("1.0.0-rc.1", "1.0.0", True),
            ("1.0.0", "1.1.0", False),
            ("1.0.0", "2.0.0", False),
            ("1.1.0", "11.0.0", False),
        ):
            with self.subTest(current=current, wanted=wanted):
                self.assertEqual(may_patch(version_of(f"g:{current}"), version_of(f"g:{wanted}")), allowed)
