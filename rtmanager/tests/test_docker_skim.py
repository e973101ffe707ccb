"""JSON that is reduced as it arrives: what is kept is the same whatever the pieces, and its size is bounded."""

from __future__ import annotations

import io
import json
import random
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import skim

LABELS = {f"label-{number}": "x" * 450 for number in range(4_000)}
OURS = {"com.galaxy.owner": "rtmanager", "com.galaxy.game_id": "g1"}


def container(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"Id": f"c{number}", "Names": [f"/n{number}"], "Labels": dict(OURS), "State": "running", **changes}


def compact(value: Any) -> bytes:
    """As Go writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def pieces(text: bytes, of: int) -> Iterator[bytes]:
    return (text[begin : begin + of] for begin in range(0, len(text), of))


def listed(text: bytes, of: int = 1 << 16) -> list[Any]:
    return list(skim.entries(pieces(text, of)))


class ReducedTest(unittest.TestCase):
    def reduced(self, value: Any) -> Any:
        text = value if isinstance(value, bytes) else compact(value)
        return skim.loads(skim.reduced(io.BytesIO(text).read))

    def test_a_text_of_ordinary_size_is_as_it_is(self) -> None:
        value: Any = {"Labels": {"any": "x"}, "Env": ["A=b"], "n": [1, 2.5, None, True, {"a": []}]}
        self.assertEqual(self.reduced(value), value)

    def test_of_a_long_one_only_the_labels_that_are_read_remain(self) -> None:
        value = {
            "Id": "i",
            "Config": {"Env": ["A=" + "b" * 900] * 90, "Labels": LABELS | OURS},
            "State": {"Health": None},
        }
        expected = {"Id": "i", "Config": {"Env": [], "Labels": OURS}, "State": {"Health": None}}
        self.assertEqual(self.reduced(value), expected)

    def test_long_strings_are_cut_and_never_in_an_escape(self) -> None:
        for character in ("x", "\\", "\n", "\0", "é", "\U0001f3ae", '"', "\ud800"):
            for before in range(8):
                text = "y" * before + character * 100_000
                found = self.reduced(json.dumps({"a": text, "b": 1}).encode())
                self.assertEqual(found["b"], 1)
                self.assertLess(len(found["a"]), skim.LONGEST_STRING + 8)
                self.assertTrue(found["a"].endswith("…"))

    def test_too_much_that_could_be_read_is_an_error(self) -> None:
        for value in (
            [0] * 1_000_000,
            {"NetworkSettings": {f"n{number}": {"a": "b" * 50} for number in range(50_000)}},
        ):
            with self.assertRaises(ValueError):
                self.reduced(value)

    def test_what_is_no_json_stays_none(self) -> None:
        for text in (
            b"<html>" * 50_000,
            b'{"a":' * 50_000,
            b'{"Labels":{' + b'"a":"b",' * 50_000,
            b'"' + b"x" * 99_999,
        ):
            with self.assertRaises(ValueError):
                self.reduced(text)

    def test_labels_that_are_no_object_of_strings_do_no_harm(self) -> None:
        padding = "z" * skim.ORDINARY
        for labels in (None, [], [{"a": "b"}], {"a": {"b": {"com.galaxy.owner": "x"}}, **OURS}, {"n": 5, **OURS}, "x"):
            found = self.reduced({"Labels": labels, "after": 1, "padding": padding})
            self.assertEqual(found["after"], 1)
            if isinstance(labels, dict):
                self.assertEqual(found["Labels"], OURS)

    def test_the_pieces_do_not_matter(self) -> None:
        text = json.dumps(
            {"Labels": LABELS | OURS, "x": "\\" * 9000, "y": {"Env": [["a"], {}], "z": "é"}}, indent=1
        ).encode()
        expected = skim.Skim()
        expected.feed(text)
        chance = random.Random(5)
        for of in (7, 4096, chance.randrange(2, 9000)):
            found = skim.Skim()
            for piece in pieces(text, of):
                found.feed(piece)
            self.assertEqual(found.text, expected.text, of)
        self.assertEqual(skim.loads(expected.text)["Labels"], OURS)


class EntriesTest(unittest.TestCase):
    def test_they_are_those_of_the_list_whatever_its_pieces_and_its_form(self) -> None:
        for values in ([], [container()], [container(number) for number in range(300)]):
            for text in (compact(values), json.dumps(values, indent=2).encode(), b" \n" + compact(values) + b"\n"):
                for of in (1, 50, 1 << 16) if len(values) < 2 else (997, 1 << 16):
                    self.assertEqual(listed(text, of), values)

    def test_one_with_megabytes_of_labels_is_read_without_them(self) -> None:
        values = [container(1), container(2, Labels=LABELS | OURS), container(3, Labels=LABELS), container(4)]
        expected = [container(1), container(2), container(3, Labels={}), container(4)]
        for of in (100, 1 << 16):
            self.assertEqual(listed(compact(values), of), expected)

    def test_one_that_cannot_be_read_is_none_and_hides_no_other(self) -> None:
        bad = (
            b'{"Id":"bad","x":tru}',
            b'{"Id":"bad","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"Id":"bad","x":[' + b"1," * 900_000 + b"1]}",
            b'{"Id":"bad","x":"' + b"y" * 100_000 + b"}",
            b'{"Id":"bad","Labels":{"x":"' + b"y" * 100_000 + b'","z:"y"}}',
        )
        for each in bad:
            text = b"[" + compact(container(1)) + b"," + each + b"," + compact(container(2)) + b"]"
            for of in (5000, 1 << 16):
                found = listed(text, of)
                self.assertEqual((found[0], found[-1]), (container(1), container(2)), each[:40])
                self.assertIn(None, found[1:-1])
            self.assertEqual(listed(b"[" + compact(container(1)) + b"," + each + b"]"), [container(1), None])

    def test_what_looks_like_the_next_entry_within_one_is_part_of_it(self) -> None:
        inner = {"Devices": [{"Id": "a"}, {"Id": "b"}, {"Id": "c"}], "Text": '},{"Id":"'}
        values = [container(number, **inner) for number in range(60)]
        for of in (97, 1000, 1 << 16):
            self.assertEqual(listed(compact(values), of), values, of)

    def test_a_number_of_five_thousand_digits_hides_nothing(self) -> None:
        text = b'[{"Id":"c0","SizeRw":' + b"9" * 5000 + b"}]"
        self.assertEqual(listed(text), [{"Id": "c0", "SizeRw": None}])

    def test_what_is_no_list_or_breaks_off_is_an_error(self) -> None:
        whole = compact([container(1), container(2)])
        for text in (b"", b"null", b"{}", b'{"message":"no"}', b"<html>", b"[", whole[:-1], whole[:-9]):
            with self.assertRaises(ValueError, msg=text):
                listed(text)

    def test_memory_does_not_grow_with_the_labels(self) -> None:
        entry = compact(container(Labels=LABELS | OURS))
        given = 0

        def arriving() -> Iterator[bytes]:
            nonlocal given
            yield b"["
            for number in range(20):
                for piece in pieces(entry, 1 << 16):
                    given += len(piece)
                    yield piece
                yield b"," if number < 19 else b"]"

        with mock.patch.object(skim, "LONGEST_REDUCED", 1 << 17):
            self.assertEqual(list(skim.entries(arriving())), [container()] * 20)
        self.assertGreater(given, 36_000_000)


if __name__ == "__main__":
    unittest.main()
