"""The Runtime Manager's database layout, and the address of its Docker daemon."""

import os
import unittest
from unittest import mock

from harness import daemon, start_postgres
from harness.rtm import RUNTIME_MANAGER
from harness.runs import flag


class LayoutTest(unittest.TestCase):
    def test_the_role_owns_its_schema_and_may_do_nothing_beside(self) -> None:
        flag.check()
        with start_postgres() as server, server.create_database(RUNTIME_MANAGER).connect("rtmanagerservice") as inside:
            row = inside.execute(
                "SELECT current_schema, rolsuper, nspowner = pg_roles.oid,"
                " has_schema_privilege('public', 'CREATE'), has_database_privilege(current_database(), 'CREATE')"
                " FROM pg_roles JOIN pg_namespace ON nspname = 'rtmanager' WHERE rolname = current_user"
            ).fetchone()
        self.assertEqual(row, ("rtmanager", False, True, False, False))


class DaemonTest(unittest.TestCase):
    def test_the_address_of_the_managers_daemon_comes_first(self) -> None:
        addresses = {"RTMANAGER_DOCKER_HOST": "unix:///one", "DOCKER_HOST": "unix:///other"}
        with mock.patch.dict(os.environ, addresses):
            self.assertEqual(daemon.configured_host(), "unix:///one")
            os.environ["RTMANAGER_DOCKER_HOST"] = ""
            self.assertEqual(daemon.configured_host(), "unix:///other")
