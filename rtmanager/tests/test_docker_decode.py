"""Decoding of Docker's answers about a container, and of the end of its log."""

from __future__ import annotations

import struct
import time
import unittest
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rtmanager.adapters.docker import Deadlines, DockerRuntime, decode
from rtmanager.adapters.docker.runtime import LOG_CHARACTERS, LOG_LINES
from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.errors import InvalidValue, Unavailable
from rtmanager.domain.game import is_game_id
from rtmanager.domain.image_ref import parse_image_ref
from rtmanager.tests.fake_daemon import AT_ONCE_S, Exchange, FakeDaemon

NEVER = "0001-01-01T00:00:00Z"
NETWORKS = {
    "galaxy-net": {"IPAddress": "10.0.0.7", "GlobalIPv6Address": "fd00::7"},
    "six": {"IPAddress": "", "GlobalIPv6Address": "fd00::8"},
    "none": {"IPAddress": ""},
}
LOGS = "GET /containers/c1/logs"


def inspected(status: str = "running", restart_count: object = 0, **state: Any) -> ContainerView:
    """A container as the answer to `inspect`."""
    return decode.inspected(
        {
            "Id": "c1",
            "Name": "/galaxy-game-g1",
            "Config": {"Image": "galaxy/game:1.0.0", "Labels": None},
            "State": {"Status": status, "ExitCode": 0, "OOMKilled": False, **state},
            "NetworkSettings": {"Networks": NETWORKS},
            "HostConfig": {"NetworkMode": "galaxy-net"},
            "RestartCount": restart_count,
        }
    )


def listed_view(entry: object) -> ContainerView:
    """A container as an entry of the list."""
    view = decode.listed(entry)
    assert view is not None
    return view


class ViewsTest(unittest.TestCase):
    def test_a_containers_addresses_are_those_that_it_has_ipv4_first(self) -> None:
        expected = {"galaxy-net": "10.0.0.7", "six": "fd00::8"}
        found = inspected()
        self.assertEqual((dict(found.addresses), found.networks), (expected, frozenset(NETWORKS)))
        self.assertEqual(found.made_for, "galaxy-net")
        listed = listed_view(
            {"Id": "c1", "Image": "i", "State": "running", "NetworkSettings": {"Networks": NETWORKS}, "Labels": None}
        )
        self.assertEqual(dict(listed.addresses), expected)

    def test_a_container_without_networks_has_no_address(self) -> None:
        for settings in ({}, {"NetworkSettings": None}, {"NetworkSettings": {"Networks": None}}):
            listed = listed_view({"Id": "c1", "Image": "i", "State": "exited", **settings})
            self.assertEqual((dict(listed.addresses), listed.networks), ({}, frozenset()))

    def test_a_list_has_no_times_no_restarts_and_no_exit(self) -> None:
        listed = listed_view({"Id": "c1", "Image": "i", "State": "running"})
        found = (listed.started_at, listed.finished_at, listed.restart_count, listed.exit_code)
        self.assertEqual(found, (None, None, 0, None))

    def test_the_status_text_of_a_list_shows_what_has_run_for_an_hour_and_what_is_unhealthy(self) -> None:
        for status, expected in {
            "Up About an hour": (True, ""),
            "Up 2 hours (unhealthy)": (True, "unhealthy"),
            "Up 47 hours (healthy)": (True, ""),
            "Up 2 days": (True, ""),
            "Up 3 weeks": (True, ""),
            "Up 14 months": (True, ""),
            "Up 2 years (Paused)": (True, ""),
            "Up Less than a second": (False, ""),
            "Up 1 second": (False, ""),
            "Up 59 minutes (unhealthy)": (False, "unhealthy"),
            "Up About a minute (health: starting)": (False, ""),
            "Restarting (1) 2 hours ago": (False, ""),
            "Exited (0) 2 hours ago": (False, ""),
            "Created": (False, ""),
            "": (False, ""),
        }.items():
            listed = listed_view({"Id": "c1", "Image": "i", "State": "running", "Status": status})
            self.assertEqual((listed.up_for_an_hour, listed.health), expected, status)

    def test_dockers_nanoseconds_are_cut_to_microseconds(self) -> None:
        times = {
            "2026-01-02T03:04:05.123456789Z": datetime(2026, 1, 2, 3, 4, 5, 123456, UTC),
            "2026-01-02T03:04:05.1Z": datetime(2026, 1, 2, 3, 4, 5, 100000, UTC),
            "2026-01-02T03:04:05Z": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "2026-01-02T05:04:05.123456789+02:00": datetime(2026, 1, 2, 3, 4, 5, 123456, UTC),
        }
        for text, moment in times.items():
            with self.subTest(text):
                found = inspected("exited", StartedAt=text, FinishedAt=text)
                self.assertEqual((found.started_at, found.finished_at), (moment, moment))

    def test_the_year_1_means_never(self) -> None:
        for never in (NEVER, "", None):
            found = inspected("exited", StartedAt=never, FinishedAt=never)
            self.assertEqual((found.started_at, found.finished_at), (None, None))
        self.assertEqual((inspected().started_at, inspected().finished_at), (None, None))

    def test_a_container_that_lives_again_has_not_finished(self) -> None:
        found = inspected("running", StartedAt="2026-01-02T03:04:05Z", FinishedAt="2026-01-01T00:00:00Z")
        self.assertIsNone(found.finished_at)
        self.assertIsNone(found.exit_code)

    def test_restarts_are_counted(self) -> None:
        self.assertEqual([inspected(restart_count=count).restart_count for count in (0, 3, None)], [0, 3, 0])

    def test_health_is_the_result_of_the_images_check_and_nothing_where_there_is_none(self) -> None:
        healths: tuple[object, ...] = (
            {"Status": "unhealthy", "FailingStreak": 3},
            {"Status": "starting"},
            {"Status": "none"},
            {},
            None,
        )
        self.assertEqual([inspected(Health=health).health for health in healths], ["unhealthy", "starting", "", "", ""])
        self.assertEqual(inspected().health, "")

    def test_a_container_that_ended_shows_how(self) -> None:
        found = inspected("exited", ExitCode=137, OOMKilled=True)
        self.assertEqual((found.state, found.exit_code, found.oom_killed), (ContainerState.EXITED, 137, True))


#: Values that replace any member.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    10**40,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "²",
    "a\0b",
    "\ud800",
    "x" * 100_000,
    "running\n",
    [],
    ["x"],
    {},
    {"x": "y"},
    [[[]]],
)


class WhateverItIs(unittest.TestCase):
    """Any value in any place is decoded or unknown, and never raises."""

    WHOLE: Mapping[str, Any] = {
        "Id": "c1",
        "Name": "/galaxy-game-g1",
        "Names": ["/galaxy-game-g1"],
        "Image": "galaxy/game:1.0.0",
        "Status": "Up 2 hours",
        "Config": {"Image": "galaxy/game:1.0.0", "Labels": {"com.galaxy.game_id": "g1"}},
        "Labels": {"com.galaxy.game_id": "g1"},
        "State": {
            "Status": "exited",
            "ExitCode": 3,
            "OOMKilled": False,
            "StartedAt": NEVER,
            "FinishedAt": NEVER,
            "Health": {"Status": "healthy"},
        },
        "NetworkSettings": {"Networks": {"galaxy-net": {"IPAddress": "10.0.0.7", "GlobalIPv6Address": ""}}},
        "HostConfig": {"NetworkMode": "galaxy-net"},
        "RestartCount": 0,
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "c1", "Attributes": {"com.galaxy.game_id": "g1", "signal": "15"}},
        "time": 1,
        "timeNano": 10**9 + 1,
    }

    def test_each_member_may_be_anything_or_missing(self) -> None:
        for path in paths(self.WHOLE):
            for odd in ODD:
                self.read(changed(self.WHOLE, path, odd))
            self.read(changed(self.WHOLE, path, None, missing=True))

    def test_so_may_the_whole(self) -> None:
        for odd in ODD:
            self.read(odd)

    def read(self, found: Any) -> None:
        views = [decode.inspected(found), decode.inspected(found, "0" * 64), decode.listed(found)]
        image, event = decode.image(found), decode.event(found)
        for value in (*views, image, event, decode.image_run_by(found)):
            text = repr(value)
            self.assertLess(len(text), 6000)
            self.assertNotRegex(text, r"\\x00|\\ud800")
        for view in views:
            if view is not None:
                self.assertTrue(view.exit_code is None or abs(view.exit_code) < 2**31)
                self.assertLess(view.restart_count, 2**31)
        self.assertIsInstance(decode.networks_called(found, "galaxy-net"), frozenset)
        self.assertIsInstance(decode.daemon(found), tuple)

    def test_a_state_of_a_later_docker_is_unknown_and_neither_alive_nor_ended(self) -> None:
        for word in ("hibernating", "RUNNING", "running ", "", "unknown", None, 5, "x" * 1000, "a\0"):
            view = inspected(word)  # type: ignore[arg-type]
            self.assertEqual((view.state, view.alive, view.ended), (ContainerState.UNKNOWN, False, False), word)
            self.assertLess(len(view.state_word), 70)

    def test_what_was_cleaned_or_cut_is_no_game_id_no_reference_and_no_address(self) -> None:
        for text in ("g1\0", "g1\n", "g" * 600, "g1\ud800", " g1", "g1\u200b"):
            labels = {"com.galaxy.game_id": text, "com.galaxy.engine_image_ref": text}
            view = listed_view({"Id": "c1", "Labels": labels, "Image": text, "State": "running"})
            self.assertFalse(is_game_id(view.game_id))
            with self.assertRaises(InvalidValue):
                parse_image_ref(view.image_ref)
        networks = {"n": {"IPAddress": "10.0.0.7\r\nHost: x"}}
        self.assertEqual(listed_view({"Id": "c1", "NetworkSettings": {"Networks": networks}}).addresses, {})

    def test_only_the_labels_that_are_read_are_kept(self) -> None:
        labels = {f"label-{number}": "x" for number in range(1000)} | {"com.galaxy.game_id": "g1"}
        self.assertEqual(listed_view({"Id": "c1", "Labels": labels}).labels, {"com.galaxy.game_id": "g1"})
        labels = labels | {"com.galaxy.memory": "64m"}
        self.assertEqual(decode.image({"Id": "i", "Config": {"Labels": labels}}).labels, {"com.galaxy.memory": "64m"})

    def test_the_present_run_has_the_daemons_own_time(self) -> None:
        moments = "2026-12-01T10:00:00.5Z", "2026-12-01T09:00:00Z"
        run = decode.present_run({"SystemTime": moments[1]}, [{"Name": "bridge", "Created": moments[0]}])
        self.assertEqual((run.began_at, run.read_at), tuple(map(datetime.fromisoformat, moments)))
        self.assertIsNone(decode.present_run({"SystemTime": 5}, []).read_at)

    def test_times_that_cannot_be_are_not_known(self) -> None:
        for moment in (
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-14:00",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+99:00",
            "2026-01-01",
            "\uff12026-01-01T00:00:00Z",
            "now",
        ):
            self.assertIsNone(inspected("exited", FinishedAt=moment).finished_at, moment)

    def test_an_answer_without_an_id_has_the_one_that_was_requested(self) -> None:
        requested_id = "0123456789abcdef" * 4
        answers: tuple[Any, ...] = ({}, {"Id": None}, None, [], {"Id": "a b"})
        for found in answers:
            self.assertEqual(decode.inspected(found, requested_id).container_id, requested_id)
            self.assertEqual(decode.inspected(found, "galaxy-game-g1").container_id, "")


def paths(value: Any) -> Iterator[tuple[str, ...]]:
    """The paths of a mapping's members, at any depth."""
    for name, member in value.items():
        yield (name,)
        if isinstance(member, Mapping):
            yield from ((name, *rest) for rest in paths(member))


def changed(value: Any, path: tuple[str, ...], to: Any, *, missing: bool = False) -> dict[str, Any]:
    """A copy of the mapping in which the member at `path` is replaced, or `missing`."""
    name, *rest = path
    others = {key: member for key, member in value.items() if key != name}
    if rest:
        return others | {name: changed(value[name], tuple(rest), to, missing=missing)}
    return others if missing else others | {name: to}


def frame(content: bytes, stream: int = 1) -> bytes:
    """A process's output, as Docker multiplexes it."""
    return struct.pack(">BxxxL", stream, len(content)) + content


class LogTailTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.runtime = DockerRuntime(self.daemon.host, deadlines=Deadlines(log_s=1))
        self.addCleanup(self.runtime.close)
        self.describe(tty=False)

    def describe(self, tty: bool) -> None:
        described = {"Id": "c1", "Config": {"Tty": tty}}
        self.daemon.answers["GET /containers/c1/json"] = partial(Exchange.reply, status=200, body=described)

    def tail(self, content: bytes) -> str:
        self.daemon.answers[LOGS] = partial(Exchange.reply_raw, status=200, content=content)
        return self.runtime.log_tail("c1")

    def test_it_is_the_last_lines_of_both_streams_in_their_order(self) -> None:
        found = self.tail(frame(b"turn 1\n") + frame("no turn € 2\n".encode(), 2) + frame(b"over\n"))
        self.assertEqual(found, "turn 1\nno turn € 2\nover")
        query = self.daemon.queries[self.daemon.requests.index(LOGS)]
        self.assertEqual((query["tail"], query["stdout"], query["stderr"]), (str(LOG_LINES), "1", "1"))

    def test_a_terminals_log_is_read_as_it_is(self) -> None:
        self.describe(tty=True)
        self.assertEqual(self.tail(b"turn 1\r\nover"), "turn 1\r\nover")

    def test_of_long_lines_the_end_is_kept(self) -> None:
        found = self.tail(frame(b"a" * LOG_CHARACTERS) + frame(b"the reason"))
        self.assertEqual(len(found), LOG_CHARACTERS)
        self.assertTrue(found.endswith("athe reason"))

    def test_what_the_store_could_not_take_is_replaced(self) -> None:
        self.assertEqual(self.tail(frame(b"a\0b\xff\xed\xa0\x80c")).translate({0xFFFD: "?"}), "a?b????c")
        self.assertEqual(self.tail(frame("a\u202eb\u2066".encode())).translate({0xFFFD: "?"}), "a?b?")

    def test_no_log_is_empty(self) -> None:
        self.assertEqual(self.tail(b""), "")

    def test_the_reason_of_a_refusal_takes_the_place_of_the_log(self) -> None:
        for status, explanation in (
            (501, "configured logging driver does not support reading"),
            (404, "No such container"),
        ):
            self.daemon.answers[LOGS] = partial(Exchange.refuse, status=status, message=explanation)
            self.assertEqual(self.runtime.log_tail("c1"), f"(the log cannot be read: {explanation})")
        self.assertEqual(self.runtime.log_tail("c2"), "(the log cannot be read: No such container: c2)")

    def test_silence_is_unavailable_and_soon_so(self) -> None:
        self.daemon.answers[LOGS] = Exchange.hang
        began = time.monotonic()
        with self.assertRaises(Unavailable):
            self.runtime.log_tail("c1")
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
