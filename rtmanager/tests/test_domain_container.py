"""Limits are parsed strictly, and only containers that certainly belong to the manager are touched."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from dataclasses import replace

from rtmanager.domain.container import (
    ContainerSpec,
    ContainerState,
    Limits,
    NameConflict,
    limits_of_image,
    parse_cpus,
    parse_memory,
    parse_pids,
    resolve_name_conflict,
)
from rtmanager.domain.errors import InvalidValue
from rtmanager.tests.making import IMAGE, IMAGE_2, LIMITS, NETWORK, view

SPEC = ContainerSpec(
    game_id="g1",
    image_ref=IMAGE,
    network=NETWORK,
    limits=LIMITS,
    state_path="/games/g1",
    mount_path="/state",
    environment={},
    started_at_ms=1767225600000,
    log_driver="json-file",
    log_options={},
)


class LimitTextTest(unittest.TestCase):
    def assert_refused(self, parse: Callable[[str], float], *texts: str) -> None:
        for text in texts:
            with self.subTest(text[:40]), self.assertRaises(InvalidValue) as caught:
                parse(text)
            self.assertIn(repr(text)[:60], str(caught.exception))

    def test_memory_is_bytes_or_has_a_unit_of_1024(self) -> None:
        for text, size in {
            "512m": 512 << 20,
            "512M": 512 << 20,
            "1.5g": 3 << 29,
            "1G": 1 << 30,
            "6144k": 6 << 20,
            "268435456": 268435456,
            "268435456b": 268435456,
            "512mb": 512 << 20,
            "512MiB": 512 << 20,
            " 512 m ": 512 << 20,
            "1t": 1 << 40,
            "6291456": 6 << 20,
        }.items():
            with self.subTest(text):
                self.assertEqual(parse_memory(text), size)

    def test_memory_that_is_no_size_or_too_little_is_refused(self) -> None:
        bad = (
            "",
            "m",
            "lots",
            "-1m",
            "+512m",
            "512mm",
            "512 m b",
            "5m",
            "6291455",
            "0",
            "1e9",
            ".5g",
            "1.g",
            "nan",
            "inf",
        )
        self.assert_refused(parse_memory, *bad, "\u0665\u0661\u0662m", "0x200m")

    def test_memory_beyond_all_measure_is_refused(self) -> None:
        self.assert_refused(parse_memory, "9" * 30, "99999999t", "9" * 400, "9" * 400 + "t")

    def test_cpus_are_cores(self) -> None:
        for text, cores in {"1.0": 1.0, "0.5": 0.5, "2": 2.0, "0.01": 0.01, " 1 ": 1.0, "9999": 9999.0}.items():
            with self.subTest(text):
                self.assertEqual(parse_cpus(text), cores)
        self.assert_refused(parse_cpus, "", "0", "0.0", "0.001", "-1", "1.", ".5", "1e2", "nan", "inf", "10000", "one")

    def test_the_process_limit_is_a_whole_number_above_zero(self) -> None:
        for text, number in {"1": 1, "512": 512, " 512 ": 512, "4194304": 4194304}.items():
            with self.subTest(text):
                self.assertEqual(parse_pids(text), number)
        self.assert_refused(parse_pids, "", "0", "-1", "1.0", "01", "1e3", "1000000000", "unlimited", "\u0665")


class ImageLimitsTest(unittest.TestCase):
    def test_an_image_without_labels_gets_the_defaults(self) -> None:
        self.assertEqual(limits_of_image({"other": "1"}, LIMITS), (LIMITS, []))

    def test_each_label_replaces_its_default(self) -> None:
        labels = {"com.galaxy.cpu_quota": "0.5", "com.galaxy.memory": "128m", "com.galaxy.pids_limit": "64"}
        self.assertEqual(limits_of_image(labels, LIMITS), (Limits(0.5, 128 << 20, 64), []))

    def test_a_label_that_cannot_be_read_leaves_its_default_and_is_complained_about(self) -> None:
        for label, bad in {
            "com.galaxy.cpu_quota": ("", "fast", "-1", "9" * 400),
            "com.galaxy.memory": ("", "much", "1m", "9" * 400),
            "com.galaxy.pids_limit": ("", "0", "unlimited", "9" * 400),
        }.items():
            for text in bad:
                with self.subTest(label=label, text=text[:20]):
                    limits, complaints = limits_of_image({label: text}, LIMITS)
                    self.assertEqual(limits, LIMITS)
                    self.assertEqual(len(complaints), 1)
                    self.assertIn(label, complaints[0])

    def test_one_bad_label_does_not_spoil_the_others(self) -> None:
        labels = {"com.galaxy.cpu_quota": "x", "com.galaxy.memory": "128m", "com.galaxy.pids_limit": "y"}
        limits, complaints = limits_of_image(labels, LIMITS)
        self.assertEqual(limits, Limits(1.0, 128 << 20, 512))
        self.assertEqual(len(complaints), 2)


class NameConflictTest(unittest.TestCase):
    """The action for a container that has the name of a new one."""

    def test_ours_with_the_wanted_image_depends_on_its_state(self) -> None:
        expected = {
            ContainerState.CREATED: NameConflict.REMOVE,
            ContainerState.RUNNING: NameConflict.TAKE,
            ContainerState.PAUSED: NameConflict.REFUSE,
            ContainerState.RESTARTING: NameConflict.REFUSE,
            ContainerState.REMOVING: NameConflict.REMOVE,
            ContainerState.EXITED: NameConflict.REMOVE,
            ContainerState.DEAD: NameConflict.REMOVE,
            ContainerState.UNKNOWN: NameConflict.REFUSE,
        }
        self.assertEqual(set(expected), set(ContainerState))
        for state, action in expected.items():
            with self.subTest(state):
                self.assertIs(resolve_name_conflict(view(state=state), SPEC), action)

    def test_ours_with_another_image_is_never_taken(self) -> None:
        for state in ContainerState:
            with self.subTest(state):
                found = view(state=state, image_ref=IMAGE_2)
                expected = NameConflict.REMOVE if found.ended else NameConflict.REFUSE
                self.assertIs(resolve_name_conflict(found, SPEC), expected)

    def test_one_outside_the_network_is_not_taken(self) -> None:
        self.assertIs(resolve_name_conflict(view(networks=frozenset({"bridge"})), SPEC), NameConflict.REFUSE)

    def test_one_that_a_killed_docker_has_not_joined_to_its_network_is_ours_while_it_has_no_process(self) -> None:
        created = view(state=ContainerState.CREATED, networks=frozenset(), made_for=SPEC.network)
        self.assertIs(resolve_name_conflict(created, SPEC), NameConflict.REMOVE)
        self.assertIs(resolve_name_conflict(replace(created, made_for="bridge"), SPEC), NameConflict.REFUSE)
        running = replace(created, state=ContainerState.RUNNING)
        self.assertIs(resolve_name_conflict(running, SPEC), NameConflict.REFUSE)

    def test_what_is_not_surely_ours_is_refused_in_every_state(self) -> None:
        for label, value in {
            "com.galaxy.owner": "somebody",
            "com.galaxy.kind": "database",
            "com.galaxy.game_id": "g2",
        }.items():
            for state in ContainerState:
                with self.subTest(label=label, state=state):
                    found = view(state=state, labels={label: value})
                    self.assertIs(resolve_name_conflict(found, SPEC), NameConflict.REFUSE)
        for state in ContainerState:
            with self.subTest(name="other", state=state):
                self.assertIs(resolve_name_conflict(view(state=state, name="other"), SPEC), NameConflict.REFUSE)

    def test_the_labels_and_the_name_are_those_of_the_contract(self) -> None:
        self.assertEqual(SPEC.name, "galaxy-game-g1")
        self.assertEqual(
            SPEC.labels,
            {
                "com.galaxy.owner": "rtmanager",
                "com.galaxy.kind": "game-engine",
                "com.galaxy.game_id": "g1",
                "com.galaxy.engine_image_ref": IMAGE,
                "com.galaxy.started_at_ms": "1767225600000",
            },
        )
