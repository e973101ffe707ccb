"""A game id has a restricted alphabet, and the game's names are derived from it."""

from __future__ import annotations

import unittest

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import check_game_id, container_name, engine_endpoint, is_game_id, shown


class GameIdTest(unittest.TestCase):
    def test_letters_digits_underscore_and_dash_make_an_id(self) -> None:
        for text in ("a", "0", "Z", "game-1", "G_1-x", "a" * 51, "0" * 51, "a-", "a_"):
            with self.subTest(text):
                self.assertTrue(is_game_id(text))
                self.assertEqual(check_game_id(text), text)

    def test_anything_else_is_refused_with_its_text(self) -> None:
        for text in (
            "",
            "-a",
            "_a",
            "a" * 52,
            "a.b",
            "a/b",
            "..",
            "a b",
            "a\n",
            "\na",
            "a\0",
            "é",
            "\uff11",
            "a:b",
            "A" * 9999,
        ):
            with self.subTest(text), self.assertRaises(InvalidValue) as caught:
                check_game_id(text)
            self.assertIn(repr(text)[:50], str(caught.exception))
            self.assertLess(len(str(caught.exception)), 400)

    def test_container_and_endpoint_are_named_after_the_game(self) -> None:
        self.assertEqual(container_name("g1"), "galaxy-game-g1")
        self.assertEqual(engine_endpoint("g1"), "http://galaxy-game-g1:8080")

    def test_the_longest_id_still_makes_a_host_name(self) -> None:
        self.assertEqual(len(container_name("a" * 51)), 63)


class ShownTest(unittest.TestCase):
    def test_a_foreign_value_is_quoted_on_one_line(self) -> None:
        self.assertEqual(shown("a\nb\0"), r"'a\nb\x00'")

    def test_a_long_value_is_cut_and_its_length_given(self) -> None:
        text = shown("x" * 1_000_000)
        self.assertLess(len(text), 160)
        self.assertIn("1000002 characters", text)
