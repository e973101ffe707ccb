"""Tokens in files: what a file may hold, and what the manager accepts while files change."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import unittest
from pathlib import Path

from rtmanager.adapters.token_files import PERIOD_S, TokenFiles, TokensInvalid
from rtmanager.domain.access import LONGEST_TOKEN, SHORTEST_TOKEN, Role, Token, Tokens, digest_of, parse_token_file
from rtmanager.domain.errors import InvalidValue, with_remedy

ONE, OTHER, THIRD = "one-token-of-game-master", "other/token+of=admin~~", "third.token_that_reads"


class ParseTest(unittest.TestCase):
    def test_the_name_has_role_and_caller_and_white_space_at_the_end_is_no_part(self) -> None:
        for content in (ONE, f"{ONE}\n", f"{ONE} \t\r\n\n"):
            token = parse_token_file("gm.game-master-1", content.encode())
            self.assertEqual(token, Token("game-master-1", Role.GM, digest_of(ONE)))
        self.assertNotIn("digest", repr(token))

    def test_a_faulty_file_is_refused_by_its_name_and_without_its_content(self) -> None:
        secret = "s3cret-s3cret-s3cret"
        names = (
            "gm",
            "gm.",
            "GM.x",
            "root.x",
            "gm.x.bak",
            "gm.x~",
            "gm.-x",
            "gm.ü",
            "gm." + "x" * 65,
            "gm x",
            "x" * 200,
        )
        files = [(name, secret.encode()) for name in names]
        contents = (b"", b" \n", b"x" * (SHORTEST_TOKEN - 1), b"x" * (LONGEST_TOKEN + 1))
        inner = (
            f" {secret}",
            f"{secret} {secret}",
            f"{secret}\n{secret}",
            f"{secret}\0",
            f"{secret}ü",
            f"\ufeff{secret}",
        )
        files += [("gm.x", content) for content in (*contents, *(text.encode() for text in inner))]
        for name, content in files:
            with self.subTest(name, content=content[:30]), self.assertRaises(InvalidValue) as raised:
                parse_token_file(name, content)
            self.assertIn(name[:20], str(raised.exception))
            self.assertIn("expected", str(raised.exception))
            self.assertNotIn(secret, str(raised.exception))

    def test_a_token_is_found_by_all_of_its_text(self) -> None:
        tokens = Tokens((Token("a", Role.GM, digest_of(ONE)), Token("b", Role.ADMIN, digest_of(OTHER))))
        for given, caller in ((ONE, "a"), (OTHER, "b")):
            found = tokens.find(given)
            self.assertEqual(found and found.caller, caller)
        for given in ("", ONE[:-1], f"{ONE}x", ONE.upper(), f"{ONE} ", "ü" * 20, "x" * 100_000):
            self.assertIsNone(tokens.find(given), given[:30])


class DirectoryTest(unittest.TestCase):
    def setUp(self) -> None:
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        self.home = Path(home.name)
        self.path = self.home / "tokens"
        self.path.mkdir()
        self.now = 100.0
        self.log = io.StringIO()
        logger = logging.Logger("tokens-test")
        logger.addHandler(logging.StreamHandler(self.log))
        logger.handlers[0].setFormatter(_WithFields())
        self.files = TokenFiles(str(self.path), logger, lambda: self.now)

    def write(self, name: str, token: str, mode: int = 0o600) -> Path:
        path = self.path / name
        path.write_text(token)
        path.chmod(mode)
        return path

    def accepted(self) -> list[str]:
        """The names of the accepted tokens, a second later."""
        self.now += PERIOD_S
        return sorted(token.name for token in self.files.current().accepted)

    def faults(self) -> str:
        with self.assertRaises(TokensInvalid) as raised:
            self.files.check()
        text = with_remedy(raised.exception)
        for token in (ONE, OTHER, THIRD):
            self.assertNotIn(token, text)
        self.assertIn("remedy: ", text)
        return text

    def test_a_good_directory_is_described_by_the_number_of_tokens(self) -> None:
        self.write("gm.a", ONE)
        self.assertEqual(self.files.check(), (f"1 token in {self.path}", []))
        self.write("gm.b", OTHER)
        self.write("read.a", THIRD)
        self.assertEqual(self.files.check(), (f"3 tokens in {self.path}", []))

    def test_every_fault_is_reported_at_once(self) -> None:
        self.write("gm.a", ONE)
        self.write("admin.a", ONE)
        self.write("admin.empty", "")
        self.write("root.x", OTHER)
        (self.path / "gm.folder").mkdir()
        os.mkfifo(self.path / "gm.pipe")
        (self.path / "gm.dangling").symlink_to("nowhere")
        found = self.faults()
        for text in (
            "admin.a and gm.a have the same token",
            "'admin.empty' is empty",
            "'root.x' is no name of a token",
            "'gm.folder' cannot be read",
            "'gm.pipe' cannot be read: it is no regular file",
            "'gm.dangling' cannot be read: No such file",
            str(self.path),
            "RTMANAGER_HTTP_TOKENS_DIR",
        ):
            self.assertIn(text, found)

    def test_a_directory_that_is_none_or_has_no_token_is_a_fault(self) -> None:
        self.assertIn("has no token", self.faults())
        self.path.rmdir()
        self.assertIn("No such file", self.faults())
        self.path.write_text(ONE)
        self.assertIn("Not a directory", self.faults())

    def test_a_file_that_every_user_may_read_is_warned_of(self) -> None:
        self.write("gm.a", ONE, 0o644)
        self.write("gm.b", OTHER, 0o640)
        _, [warning] = self.files.check()
        self.assertIn("gm.a", warning)
        self.assertNotIn("gm.b", warning)
        self.assertIn("remedy: chmod", warning)

    def test_tokens_follow_their_files_within_a_second(self) -> None:
        self.write("gm.a", ONE)
        self.files.check()
        self.assertEqual(self.accepted(), ["gm.a"])
        self.write("gm.b", OTHER)
        self.assertEqual(len(self.files.current().accepted), 1, "read again although a second has not passed")
        self.assertEqual(self.accepted(), ["gm.a", "gm.b"])
        (self.path / "gm.a").unlink()
        self.assertEqual(self.accepted(), ["gm.b"])
        self.assertIsNone(self.files.current().find(ONE))
        self.write("gm.b", THIRD)
        self.accepted()
        self.assertIsNone(self.files.current().find(OTHER))
        self.assertIsNotNone(self.files.current().find(THIRD))
        for token in (ONE, OTHER, THIRD):
            self.assertNotIn(token, self.log.getvalue())

    def test_a_faulty_file_keeps_its_last_good_token_and_is_reported_once(self) -> None:
        file = self.write("gm.a", ONE)
        self.write("gm.b", OTHER)
        self.files.check()
        file.write_text("")
        for _ in range(3):
            self.assertEqual(self.accepted(), ["gm.a", "gm.b"])
        self.assertIsNotNone(self.files.current().find(ONE))
        self.assertEqual(self.log.getvalue().count("'gm.a' is empty"), 1)
        file.write_text(THIRD)
        self.accepted()
        self.assertIsNone(self.files.current().find(ONE))
        self.assertEqual(self.log.getvalue().count("have no fault any more"), 1)

    def test_a_removed_file_loses_its_token_whatever_else_is_wrong(self) -> None:
        self.write("gm.a", ONE)
        self.write("gm.b", OTHER)
        self.files.check()
        self.write("root.x", THIRD)
        (self.path / "gm.a").unlink()
        self.assertEqual(self.accepted(), ["gm.b"])
        (self.path / "gm.b").unlink()
        (self.path / "gm.b").symlink_to("nowhere")
        self.assertEqual(self.accepted(), [])
        (self.path / "root.x").unlink()
        (self.path / "gm.b").unlink()
        self.assertEqual(self.accepted(), [])
        self.write("gm.a", ONE)
        self.assertEqual(self.accepted(), ["gm.a"])

    def test_a_repeated_token_takes_nobodys_token_away(self) -> None:
        self.write("gm.a", ONE)
        self.files.check()
        self.write("admin.b", ONE)
        self.assertEqual(self.accepted(), ["gm.a"])
        (self.path / "gm.a").unlink()
        self.assertEqual(self.accepted(), ["admin.b"])

    def test_a_token_that_moves_to_another_file_while_its_own_is_faulty_belongs_to_the_other(self) -> None:
        self.write("gm.a", ONE)
        self.files.check()
        self.write("gm.a", "")
        self.write("read.b", ONE)
        self.assertEqual(self.accepted(), ["read.b"])

    def test_no_token_is_accepted_while_the_directory_is_gone_and_all_while_it_cannot_be_read(self) -> None:
        self.write("gm.a", ONE)
        self.files.check()
        moved = self.path.rename(self.home / "moved")
        self.path.symlink_to(self.path)  # a loop of links: neither gone nor readable
        self.assertEqual(self.accepted(), ["gm.a"])
        self.path.unlink()
        self.assertEqual(self.accepted(), [])
        moved.rename(self.path)
        self.assertEqual(self.accepted(), ["gm.a"])

    def test_a_mounted_secret_is_replaced_in_one_step(self) -> None:
        """As Kubernetes does: files are links through `..data`, itself a link to a directory with a date."""
        for version, token in (("..2026_01", ONE), ("..2026_02", OTHER)):
            (self.path / version).mkdir()
            (self.path / version / "gm.a").write_text(token)
        (self.path / "..data").symlink_to("..2026_01")
        (self.path / "gm.a").symlink_to("..data/gm.a")
        self.assertEqual(self.files.check()[0], f"1 token in {self.path}")
        self.assertIsNotNone(self.files.current().find(ONE))
        (self.path / "..new").symlink_to("..2026_02")
        (self.path / "..new").rename(self.path / "..data")
        self.assertEqual(self.accepted(), ["gm.a"])
        self.assertIsNone(self.files.current().find(ONE))
        self.assertIsNotNone(self.files.current().find(OTHER))

    def test_a_link_in_place_of_the_directory_is_followed_each_time(self) -> None:
        self.write("gm.a", ONE)
        first = self.path.rename(self.home / "first")
        second = self.home / "second"
        second.mkdir()
        (second / "gm.b").write_text(OTHER)
        self.path.symlink_to(first)
        self.files.check()
        (self.home / "new").symlink_to(second)
        (self.home / "new").rename(self.path)
        self.assertEqual(self.accepted(), ["gm.b"])


class _WithFields(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.getMessage()} {vars(record).get('error', '')} {vars(record).get('files', '')}"


if __name__ == "__main__":
    unittest.main()
