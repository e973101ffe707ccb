"""A daemon is recognised by its id and by the id of the game network on it."""

from __future__ import annotations

import unittest

from rtmanager.domain.container import LABEL_DEPLOYMENT, ContainerState, ContainerView
from rtmanager.domain.daemon import Daemon, Match, NoSuchNetwork, SeenDaemon, difference

RECORDED = Daemon("id-1", "host-1", "galaxy-net", "n" * 64)


def seen(daemon_id: str = "id-1", *network_ids: str, name: str = "host-2") -> SeenDaemon:
    return SeenDaemon(daemon_id, name, frozenset(network_ids))


class CompareTest(unittest.TestCase):
    def test_each_row_of_the_table(self) -> None:
        for daemon_id, network_ids, expected in (
            ("id-1", ["n" * 64], Match.SAME),
            ("id-1", ["n" * 64, "m" * 64], Match.SAME),
            ("id-1", ["m" * 64], Match.OTHER),
            ("id-1", [], Match.NETWORK_GONE),
            ("id-2", ["n" * 64], Match.OTHER),
            ("id-2", [], Match.OTHER),
        ):
            with self.subTest(daemon_id=daemon_id, network_ids=network_ids):
                self.assertIs(RECORDED.compare(seen(daemon_id, *network_ids)), expected)

    def test_a_host_that_was_renamed_has_the_same_daemon(self) -> None:
        self.assertIs(RECORDED.compare(seen("id-1", "n" * 64, name="renamed")), Match.SAME)

    def test_a_difference_names_both_daemons_and_what_differs(self) -> None:
        for other, expected in (
            (seen("id-2"), "host-2 (id id-2)"),
            (seen("id-1"), "no such network"),
            (seen("id-1", "m" * 64), "m" * 12),
        ):
            message = difference(RECORDED, other)
            self.assertIn("host-1 (id id-1)", message)
            self.assertIn(expected, message)

    def test_a_daemon_is_recorded_with_the_one_network_of_its_name(self) -> None:
        self.assertEqual(Daemon.of(seen("id-1", "m", name="host-1"), "net"), Daemon("id-1", "host-1", "net", "m"))
        for network_ids in ([], ["m", "n"]):
            with self.assertRaisesRegex(NoSuchNetwork, f"^{len(network_ids)} networks are called 'net' on host-2"):
                Daemon.of(seen("id-1", *network_ids), "net")


class DeploymentTest(unittest.TestCase):
    def test_a_container_without_the_label_is_of_no_other_deployment(self) -> None:
        for label, expected in ((None, False), ("", False), ("one", False), ("two", True), ("ONE", True)):
            labels = {} if label is None else {LABEL_DEPLOYMENT: label}
            view = ContainerView("c1", "name", "image", ContainerState.RUNNING, labels)
            self.assertIs(view.is_of_another("one"), expected, label)


if __name__ == "__main__":
    unittest.main()
