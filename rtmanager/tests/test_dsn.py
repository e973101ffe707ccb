"""A DSN in the form of other services becomes one that libpq accepts, with the schema in its options."""

from __future__ import annotations

import unittest

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from rtmanager.config.dsn import PLANNING, described, to_conninfo

SETTINGS = f"-cstatement_timeout=5000 -cidle_in_transaction_session_timeout=10000 {PLANNING}"


def read(dsn: str) -> dict[str, object]:
    return dict(conninfo_to_dict(to_conninfo(dsn, statement_timeout_ms=5000)))


class DsnTest(unittest.TestCase):
    def test_the_search_path_of_the_url_becomes_an_option(self) -> None:
        found = read("postgres://u:p@h:5433/galaxy?search_path=rtmanager&sslmode=require")
        self.assertEqual((found["host"], found["port"], found["dbname"]), ("h", "5433", "galaxy"))
        self.assertEqual((found["user"], found["password"], found["sslmode"]), ("u", "p", "require"))
        self.assertEqual(found["options"], f"-csearch_path=rtmanager {SETTINGS}")

    def test_without_a_search_path_it_is_the_schema_of_the_contract(self) -> None:
        for dsn in ("postgresql://h/galaxy", "host=h dbname=galaxy"):
            with self.subTest(dsn):
                self.assertIn("-csearch_path=rtmanager", str(read(dsn)["options"]))

    def test_a_search_path_among_key_value_pairs_is_taken_too(self) -> None:
        options = str(read("host=h dbname=galaxy search_path=elsewhere")["options"])
        self.assertIn("-csearch_path=elsewhere", options)
        self.assertNotIn("rtmanager", options)

    def test_options_that_are_given_are_kept_and_may_name_the_schema(self) -> None:
        options = str(read("postgres://h/g?options=-csearch_path%3Dx%20-cgeqo%3Doff")["options"])
        self.assertEqual(options, f"-csearch_path=x -cgeqo=off {SETTINGS}")

    def test_several_schemas_are_escaped(self) -> None:
        options = str(read("postgres://h/g?search_path=a,%20b%5Cc")["options"])
        self.assertIn(r"-csearch_path=a,\ b\\c", options)

    def test_values_that_need_escaping_arrive_as_they_were_meant(self) -> None:
        found = read("postgres://u%40x:p%3Aq%2Fr%3Fs%23@h/g?search_path=x&application_name=a%20b%26c%2Bd")
        self.assertEqual((found["user"], found["password"]), ("u@x", "p:q/r?s#"))
        self.assertEqual(found["application_name"], "a b&c+d")

    def test_what_is_given_is_not_replaced_and_what_is_not_has_a_default(self) -> None:
        self.assertEqual(read("postgres://h/g?connect_timeout=1")["connect_timeout"], "1")
        found = read("postgres://h/g")
        self.assertEqual((found["connect_timeout"], found["application_name"]), ("5", "rtmanager"))

    def test_several_hosts_and_sockets_are_kept(self) -> None:
        self.assertEqual(read("postgres://h1:1,h2:2/g?search_path=x")["host"], "h1,h2")
        self.assertEqual(read("postgres:///g?host=/run/postgresql")["host"], "/run/postgresql")

    def test_a_parameter_that_libpq_does_not_know_is_an_error(self) -> None:
        with self.assertRaises(ProgrammingError):
            read("postgres://h/g?foo=bar")

    def test_a_description_has_no_password(self) -> None:
        for dsn, expected in {
            "postgres://u:S3cret@h:5433/galaxy": "postgres at h:5433/galaxy",
            "postgres://u:S3cret@h/galaxy": "postgres at h:5432/galaxy",
            "host=h dbname=galaxy password=S3cret": "postgres at h:5432/galaxy",
            "postgres:///galaxy?password=S3cret": "postgres at the local socket:5432/galaxy",
        }.items():
            with self.subTest(dsn):
                self.assertEqual(described(dsn), expected)
