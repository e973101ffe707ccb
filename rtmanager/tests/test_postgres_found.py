"""The checks of sessions and schema that need no server; `integration` has the others."""

from __future__ import annotations

import ast
import errno
import re
import resource
import socket
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import psycopg
from psycopg.conninfo import conninfo_to_dict

import rtmanager
from rtmanager.adapters.postgres import refusals
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.schema import Migration, _first_schema, known_migrations, primary_keys, relations
from rtmanager.config.dsn import SESSION_SETTINGS, session_settings, to_conninfo, with_option, without_options
from rtmanager.domain.errors import Unavailable, with_remedy


class SettingsTest(unittest.TestCase):
    def settings(self, dsn: str) -> dict[str, str]:
        return dict(session_settings(to_conninfo(dsn, statement_timeout_ms=5000)))

    def test_a_session_is_set_to_what_the_options_give_and_the_code_relies_on(self) -> None:
        found = self.settings("postgres://h/g?options=-c%20work_mem%3D7MB%20--geqo%3Doff%20-cTimeZone%3DAsia/Tokyo")
        self.assertEqual((found["work_mem"], found["geqo"], found["search_path"]), ("7MB", "off", "rtmanager"))
        self.assertEqual((found["statement_timeout"], found["plan_cache_mode"]), ("5000", "force_generic_plan"))
        self.assertLessEqual(SESSION_SETTINGS.items(), found.items())

    def test_values_with_blanks_and_backslashes_arrive(self) -> None:
        self.assertEqual(self.settings("postgres://h/g?search_path=a,%20b%5Cc")["search_path"], r"a, b\c")

    def test_options_can_be_left_out_and_added_to(self) -> None:
        conninfo = to_conninfo("postgres://u:p@h:1/g", statement_timeout_ms=1)
        self.assertEqual(conninfo_to_dict(without_options(conninfo))["options"], "", "else libpq takes PGOPTIONS")
        self.assertEqual(conninfo_to_dict(without_options(conninfo))["password"], "p")
        more = with_option(conninfo, "idle_session_timeout=0")
        self.assertTrue(str(conninfo_to_dict(more)["options"]).endswith(" -cidle_session_timeout=0"))
        self.assertEqual(with_option(more, "idle_session_timeout=0"), more)

    def test_the_encoding_of_the_client_is_ours_from_the_first_byte(self) -> None:
        found = conninfo_to_dict(to_conninfo("postgres://h/g?client_encoding=LATIN1", statement_timeout_ms=1))
        self.assertEqual(found["client_encoding"], "UTF8")


@contextmanager
def no_file_left() -> Iterator[None]:
    """A block in which this process can open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class LacksTest(unittest.TestCase):
    """A resource that this process lacks is `Unavailable` with the remedy, whichever library reports it."""

    def setUp(self) -> None:
        self.database = Database("postgres://127.0.0.1:1/g", max_connections=2, silence_s=0.5)

    def assert_silent(self, caught: Unavailable, remedy: str) -> None:
        self.assertEqual(caught.dependency, "postgres")
        self.assertRegex(with_remedy(caught), f"remedy: .*{remedy}")

    def test_what_libpq_meets(self) -> None:
        with no_file_left(), self.assertRaises(Unavailable) as caught, self.database.watched():
            self.database.connect()
        self.assert_silent(caught.exception, "ulimit -n")

    def test_what_psycopg_and_python_meet(self) -> None:
        for error, remedy in (
            (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
            (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
            (RuntimeError("can't start new thread"), "ulimit -u"),
            (MemoryError(), "ulimit -v"),
        ):
            with self.subTest(error=error), mock.patch.object(psycopg, "connect", side_effect=error):
                with self.assertRaises(Unavailable) as caught, self.database.watched():
                    self.database.connect()
                self.assert_silent(caught.exception, remedy)

    def test_what_the_pool_meets(self) -> None:
        error = OSError(errno.EMFILE, "Too many open files")
        with mock.patch.object(psycopg.Connection, "connect", side_effect=error):
            self.database.open()
            self.addCleanup(self.database.close)
            with self.assertLogs("psycopg.pool"), self.assertRaises(Unavailable) as caught:
                self.database.read("records", b"SELECT 1", {})
        self.assert_silent(caught.exception, "ulimit -n")

    def test_any_other_error_of_the_system_or_of_ours_stays_what_it_is(self) -> None:
        for error in (OSError(errno.EIO, "no"), RuntimeError("no")):
            with self.assertRaises(type(error)), self.database.watched():
                raise error


class SchemaTest(unittest.TestCase):
    def test_what_a_migration_drops_is_not_missed(self) -> None:
        made = b"CREATE TABLE a (x int);\nCREATE UNIQUE INDEX IF NOT EXISTS b ON a (x); -- CREATE TABLE no\n"
        migrations = [Migration(1, "x", made), Migration(2, "y", b"DROP INDEX IF EXISTS b;\nCREATE SEQUENCE c;")]
        self.assertEqual(relations(migrations), {"a", "c"})

    def test_every_table_of_ours_is_known(self) -> None:
        self.assertLess(
            {"runtime_records", "operations", "outbox", "outbox_turn", "operations_one_running_per_game_idx"},
            relations(known_migrations()),
        )

    def test_the_key_of_every_table_of_ours_is_known(self) -> None:
        keys = primary_keys(known_migrations())
        made = re.findall(rb"CREATE TABLE (\w+)", b"".join(migration.sql for migration in known_migrations()))
        self.assertEqual(set(keys), {name.decode() for name in made})
        self.assertEqual(keys["runtime_records"], ("game_id",))
        self.assertEqual(keys["alarms"], ("game_id", "kind"))

    def test_the_schema_that_is_meant_is_the_first_that_is_named(self) -> None:
        for path, expected in {
            "rtmanager": "rtmanager",
            "RTManager, public": "rtmanager",
            '"Mixed, case", public': "Mixed, case",
            '"$user", public': None,
            "": None,
        }.items():
            self.assertEqual(_first_schema(path), expected, path)


class UpgradedInPlaceTest(unittest.TestCase):
    """The files of the package may be replaced or removed while a process of it serves."""

    def test_no_module_is_imported_and_no_file_of_the_package_is_read_after_the_start(self) -> None:
        found = set()
        package = Path(rtmanager.__file__).parent
        for file in sorted(package.rglob("*.py")):
            if {"tests", "fakes"} & set(file.relative_to(package).parts):
                continue
            for function in ast.walk(ast.parse(file.read_text())):
                if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found |= {f"{file.name}: {function.name}: {each}" for each in _late(function)}
        # The first runs on import of its module; the second caches what it has read.
        self.assertEqual(found, {"queries.py: _load: files", "schema.py: known_migrations: files"})

    def test_the_migrations_are_read_once(self) -> None:
        known = known_migrations()
        with mock.patch("rtmanager.adapters.postgres.schema.files", side_effect=FileNotFoundError):
            self.assertIs(known_migrations(), known)


def _late(function: ast.AST) -> Iterator[str]:
    """Yield what a function reads from the installed package."""
    for node in ast.walk(function):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield "import"
        elif isinstance(node, ast.Name) and node.id == "__file__":
            yield node.id
        elif isinstance(called, ast.Name) and called.id in {"files", "import_module", "__import__"}:
            yield called.id
        elif isinstance(called, ast.Attribute) and called.attr in {"files", "import_module", "find_spec", "get_data"}:
            yield called.attr


#: libpq's trace of a server with German messages.
TRACED = """F\t8\tSSLRequest\t 1234 5679
B\t1\tSSLResponse\t N
F\t37\tStartupMessage\t 3 0 "user" "nobody" "database" "galaxy"
B\t98\tErrorResponse\t S "FATAL" V "FATAL" C "57P03" M "das Datenbanksystem startet C \"28P01\"" F "postmaster.c" \\x00
"""


class RefusalsTest(unittest.TestCase):
    def test_the_code_is_read_whatever_the_language_and_the_text(self) -> None:
        self.assertEqual(refusals._ERROR.findall(TRACED), ["57P03"])

    def test_every_remedy_is_one_line(self) -> None:
        for code, remedy in refusals.REMEDIES.items():
            self.assertEqual((len(code), remedy.splitlines()), (5, [remedy]))

    def test_a_demand_of_the_dsn_that_the_server_does_not_meet_has_its_remedy(self) -> None:
        password_request = b"R\0\0\0\x08\0\0\0\x03"
        for demand, remedy in (
            ("", "asks for a password"),
            ("password=p require_auth=gss", "require_auth"),
            ("password=p channel_binding=require", "channel_binding"),
        ):
            with self.subTest(demand), socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
                pool.submit(_answer_once, server, password_request)
                where = f"host=127.0.0.1 port={server.getsockname()[1]} user=u dbname=g sslmode=disable"
                found = refusals.why_refused(f"{where} gssencmode=disable passfile=/nowhere {demand}", 5.0)
                self.assertIn(remedy, found.remedy)

    def test_a_process_with_many_open_files_learns_it_too(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 1200:
            self.skipTest("this process may not have so many open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool, ExitStack() as many:
            pool.submit(_answer_once, server, b"R\0\0\0\x08\0\0\0\x03")
            while many.enter_context(socket.socket()).fileno() < 1100:
                pass
            where = f"host=127.0.0.1 port={server.getsockname()[1]} user=u dbname=g sslmode=disable"
            found = refusals.why_refused(f"{where} gssencmode=disable passfile=/nowhere", 5.0)
            self.assertIn("asks for a password", found.remedy)

    def test_a_server_that_is_not_there_has_no_code(self) -> None:
        found = refusals.why_refused("host=127.0.0.1 port=1 dbname=g user=u password=p", 2.0)
        self.assertEqual(found.sqlstate, "")
        self.assertIn("is it running", found.remedy)

    def test_an_unknown_host_is_no_defect(self) -> None:
        found = refusals.why_refused("host=nowhere.invalid dbname=g user=u", 2.0)
        self.assertEqual(found.sqlstate, "")
        self.assertIn("resolver", found.remedy)


def _answer_once(server: socket.socket, answer: bytes) -> None:
    server.settimeout(10)
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(answer)
        connection.recv(1)  # until the client closes it
