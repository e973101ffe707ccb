"""JSON is reduced as it arrives: the result does not depend on the pieces, and its size is bounded."""

from __future__ import annotations

import io
import json
import random
import unittest
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import skim

LABELS = {f"label-{number}": "x" * 450 for number in range(4_000)}
OURS = {"com.galaxy.owner": "rtmanager", "com.galaxy.game_id": "g1"}


def container(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"Id": f"c{number}", "Names": [f"/n{number}"], "Labels": dict(OURS), "State": "running", **changes}


def compact(value: Any) -> bytes:
    """JSON in the format of Go's encoder."""
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
        expected = {"Id": "i", "Config": {"Labels": OURS}, "State": {"Health": None}}
        self.assertEqual(self.reduced(value), expected)

    def test_long_strings_are_cut_and_never_in_an_escape(self) -> None:
        for character in ("x", "\\", "\n", "\0", "é", "\U0001f3ae", '"', "\ud800"):
            for before in range(8):
                text = "y" * before + character * 100_000
                found = self.reduced(json.dumps({"Id": text, "Name": 1}).encode())
                self.assertEqual(found["Name"], 1)
                self.assertLess(len(found["Id"]), skim.LONGEST_STRING + 8)
                self.assertTrue(found["Id"].endswith("…"))

    def test_what_is_not_read_has_no_upper_bound(self) -> None:
        """Every field with content from users or images, larger than in any real answer."""
        large: dict[str, Any] = {
            "text": "x" * 5_000_000,
            "texts": ["y" * 900] * 1_000,
            "objects": [{"Id": "i", "Labels": OURS, "Health": {"Status": "s"}}] * 9_000,
            "lists": [[[]]] * 40_000,
            "members": {f"k{number}": {"Name": ["v"] * 9} for number in range(9_000)},
            "numbers": list(range(99_000)),
        }
        known = {
            "Id": "i",
            "State": {"Status": "exited", "ExitCode": 3, "Health": {"Status": "healthy"}},
            "Config": {"Image": "a:1", "Tty": False, "Labels": OURS},
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.1"}}},
        }
        for name, value in large.items():
            spoilt = json.loads(json.dumps(known))
            spoilt["State"]["Health"]["Log"] = value
            spoilt["Config"] |= {"Healthcheck": {"Test": value}, "Env": value, "Cmd": value}
            spoilt["NetworkSettings"]["Networks"]["n"] |= {"Aliases": value, "DNSNames": value}
            spoilt = {"Mounts": value, **spoilt, "GraphDriver": value}
            self.assertEqual(self.reduced(spoilt), known, name)

    def test_what_stands_in_the_place_of_something_read_is_kept_as_its_kind(self) -> None:
        filler = {"filler": "x" * skim.ORDINARY}
        for value, found in (({"a": [1] * 9}, {}), ([[1], 2], []), ("s", "s"), (1.5, 1.5), (None, None), (True, True)):
            self.assertEqual(self.reduced({**filler, "Id": value, "Name": "n"}), {"Id": found, "Name": "n"})
        names = ["/a", {"b": 1}, ["c"], None]
        self.assertEqual(self.reduced({**filler, "Names": names}), {"Names": ["/a", {}, [], None]})

    def test_of_names_that_others_choose_a_part_is_kept(self) -> None:
        networks = {f"n{number}": {"IPAddress": "10.0.0.1", "Aliases": ["a" * 99] * 99} for number in range(5_000)}
        found = self.reduced({"NetworkSettings": {"Networks": networks}, "Names": ["/n"] * 90_000})
        kept = list(networks)[: skim.MOST_MEMBERS]
        self.assertEqual(found["NetworkSettings"]["Networks"], {name: {"IPAddress": "10.0.0.1"} for name in kept})
        self.assertEqual(found["Names"], ["/n"] * skim.MOST_MEMBERS)

    def test_a_list_that_is_an_answer_is_whole_or_an_error(self) -> None:
        networks = [{"Name": f"n{number}", "Labels": LABELS} for number in range(9)]
        self.assertEqual(self.reduced(networks), [{"Name": each["Name"], "Labels": {}} for each in networks])
        entry = {"Scope": "x" * 99}
        self.assertEqual(len(self.reduced([entry] * skim.MOST_ENTRIES)), skim.MOST_ENTRIES)
        too_many = [entry] * (skim.MOST_ENTRIES + 1)
        for value in ([0] * 2_100_000, [{"Name": "x" * 2_000}] * 3_000, too_many):
            with self.assertRaises(ValueError):
                self.reduced(value)

    def test_what_is_no_json_stays_none(self) -> None:
        for text in (
            b"<html>" * 50_000,
            b'{"a":' * 50_000,
            b'{"Labels":{' + b'"a":"b",' * 50_000,
            b'"' + b"x" * 99_999,
            b'{"Id":"a" "b","x":"' + b"x" * 99_999 + b'"}',
            b'{"Id":"a","Name":"b":"c","x":"' + b"x" * 99_999 + b'"}',
            b'{"Id":tru,"x":"' + b"x" * 99_999 + b'"}',
            b'{"Id":"a",y,"x":"' + b"x" * 99_999 + b'"}',
            b'{"Id":"a"],"x":"' + b"x" * 99_999 + b'"}',
        ):
            with self.assertRaises(ValueError):
                self.reduced(text)

    def test_labels_that_are_no_object_of_strings_do_no_harm(self) -> None:
        padding = "z" * skim.ORDINARY
        for labels in (None, [], [{"a": "b"}], {"a": {"b": {"com.galaxy.owner": "x"}}, **OURS}, {"n": 5, **OURS}, "x"):
            found = self.reduced({"Labels": labels, "Id": 1, "padding": padding})
            self.assertEqual(found["Id"], 1)
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
            b'{"Id":"bad","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
            b'{"Id":"bad","Image":' + b"1" * 5_000_000 + b"}",
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

    def test_what_resembles_the_next_entry_within_one_is_part_of_it(self) -> None:
        inner = {"Devices": [{"Id": "a"}, {"Id": "b"}, {"Id": "c"}], "Text": '},{"Id":"'}
        values = [container(number, **inner) for number in range(60)]
        for of in (97, 1000, 1 << 16):
            self.assertEqual(listed(compact(values), of), values, of)

    def test_a_number_of_five_thousand_digits_hides_nothing(self) -> None:
        text = b'[{"Id":"c0","SizeRw":' + b"9" * 5000 + b"}]"
        self.assertEqual(listed(text), [{"Id": "c0", "SizeRw": None}])

    def test_a_broken_entry_hides_none_that_begins_as_dockers_do(self) -> None:
        ids = [f"{number:064x}" for number in range(3)]
        bad = f'{{"Id":"{9:064x}","Names":["/bad"]'.encode()
        good = [container(Id=container_id) for container_id in ids]
        inner = b'[{"Id":"a"},{"Id":"b"},{"Id":"c"}'
        for broken in (bad + b",", bad + b',"x":[1', bad + b',"x":' + inner, bad + b',"x":"y'):
            for filler in (b"", b',"x":"' + b"y" * 100_000 + b'"', b',"x":' + inner * 9_000):
                text = b"[" + compact(good[0]) + b"," + broken + filler + b"}," + compact(good[1:])[1:]
                for of in (997, 1 << 16):
                    found = listed(text, of)
                    self.assertEqual([each for each in found if each], good, (broken, filler[:9]))
                    self.assertIn(None, found)

    def test_what_is_no_list_or_breaks_off_before_anything_was_read_is_an_error(self) -> None:
        large = compact([container(1, Labels=LABELS)])
        for text in (b"", b"null", b"{}", b'{"message":"no"}', b"<html>", b"[", b'[{"Id":"', large[:-9], b"[null"):
            with self.assertRaises(ValueError, msg=text):
                listed(text)

    def test_of_a_list_that_breaks_off_what_could_be_read_is_and_that_something_is_missing(self) -> None:
        values = [container(1), container(2), container(3, Labels=LABELS)]
        whole = compact(values)
        read = [container(1), container(2), container(3, Labels={})]
        small = len(compact(values[:2]))
        for cut, expected in (
            (len(whole) - 1, read),
            (len(whole) - 9, read[:2]),
            (small + 90_000, read[:2]),
            (small + 9, read[:2]),
            (small, read[:2]),
            (small - 9, read[:1]),
        ):
            for of in (997, 1 << 16):
                self.assertEqual(listed(whole[:cut], of), [*expected, None], cut)

    def test_a_large_list_that_is_read_as_a_whole_has_not_too_many_entries(self) -> None:
        for entry in (b"{}", b'{"Id":1}', b"1", b"[]"):
            given = BytesIO(b"[" + (entry + b",") * 500_000 + entry + b"]")
            with self.subTest(entry), self.assertRaisesRegex(ValueError, "more than 1000 entries"):
                skim.reduced(given.read)
            self.assertLess(given.tell(), 100_000)  # rejected early, before all of it is read
        large = b"[" + b",".join([b'{"Name":"n","Labels":{"x":"' + b"x" * 100 + b'"}}'] * 1000) + b"]"
        self.assertEqual(len(skim.loads(skim.reduced(BytesIO(large).read))), 1000)

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

    def test_entries_that_whitespace_separates_are_given_as_they_arrive(self) -> None:
        for separators, indent in (((", ", ": "), None), ((",", ":"), None), ((", ", ":"), None), ((",", ": "), 1)):
            text = json.dumps([container() for _ in range(3000)], separators=separators, indent=indent).encode()
            given = 0

            def arriving(text: bytes = text) -> Iterator[bytes]:
                nonlocal given
                for begin in range(0, len(text), skim.PIECE):
                    given = begin
                    yield text[begin : begin + skim.PIECE]

            with self.subTest(separators=separators, indent=indent):
                behind = 0
                for number, entry in enumerate(skim.entries(arriving()), start=1):
                    self.assertEqual(entry, container())
                    behind = max(behind, given - number * len(text) // 3000)
                self.assertEqual(number, 3000)
                self.assertLess(behind, 4 * skim.PIECE, "entries wait for the end of the list")


if __name__ == "__main__":
    unittest.main()
