"""What Docker's answers about a container are read as, and the end of its log."""

from __future__ import annotations

import struct
import time
import unittest
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rtmanager.adapters.docker import Deadlines, DockerRuntime, views
from rtmanager.adapters.docker.runtime import LOG_CHARACTERS, LOG_LINES
from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.errors import Unavailable
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
    return views.inspected(
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


class ViewsTest(unittest.TestCase):
    def test_a_containers_addresses_are_those_that_it_has_ipv4_first(self) -> None:
        expected = {"galaxy-net": "10.0.0.7", "six": "fd00::8"}
        found = inspected()
        self.assertEqual((dict(found.addresses), found.networks), (expected, frozenset(NETWORKS)))
        self.assertEqual(found.made_for, "galaxy-net")
        listed = views.listed(
            {"Id": "c1", "Image": "i", "State": "running", "NetworkSettings": {"Networks": NETWORKS}, "Labels": None}
        )
        self.assertEqual(dict(listed.addresses), expected)

    def test_a_container_without_networks_has_no_address(self) -> None:
        for settings in ({}, {"NetworkSettings": None}, {"NetworkSettings": {"Networks": None}}):
            listed = views.listed({"Id": "c1", "Image": "i", "State": "exited", **settings})
            self.assertEqual((dict(listed.addresses), listed.networks), ({}, frozenset()))

    def test_a_list_knows_no_times_no_restarts_and_how_it_ended(self) -> None:
        listed = views.listed({"Id": "c1", "Image": "i", "State": "running"})
        found = (listed.started_at, listed.finished_at, listed.restart_count, listed.exit_code)
        self.assertEqual(found, (None, None, 0, None))

    def test_a_list_tells_in_words_what_has_run_for_an_hour_and_what_is_unhealthy(self) -> None:
        for words, expected in {
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
            listed = views.listed({"Id": "c1", "Image": "i", "State": "running", "Status": words})
            self.assertEqual((listed.up_for_an_hour, listed.health), expected, words)

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

    def test_health_is_what_the_images_check_says_and_nothing_where_there_is_none(self) -> None:
        healths: tuple[object, ...] = (
            {"Status": "unhealthy", "FailingStreak": 3},
            {"Status": "starting"},
            {"Status": "none"},
            {},
            None,
        )
        self.assertEqual([inspected(Health=health).health for health in healths], ["unhealthy", "starting", "", "", ""])
        self.assertEqual(inspected().health, "")

    def test_a_container_that_ended_says_how(self) -> None:
        found = inspected("exited", ExitCode=137, OOMKilled=True)
        self.assertEqual((found.state, found.exit_code, found.oom_killed), (ContainerState.EXITED, 137, True))


def frame(content: bytes, stream: int = 1) -> bytes:
    """What a process wrote, as Docker multiplexes it."""
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
        asked = self.daemon.queries[self.daemon.requests.index(LOGS)]
        self.assertEqual((asked["tail"], asked["stdout"], asked["stderr"]), (str(LOG_LINES), "1", "1"))

    def test_a_terminals_log_is_read_as_it_is(self) -> None:
        self.describe(tty=True)
        self.assertEqual(self.tail(b"turn 1\r\nover"), "turn 1\r\nover")

    def test_of_long_lines_the_end_is_kept(self) -> None:
        found = self.tail(frame(b"a" * LOG_CHARACTERS) + frame(b"the reason"))
        self.assertEqual(len(found), LOG_CHARACTERS)
        self.assertTrue(found.endswith("athe reason"))

    def test_what_the_store_could_not_take_is_replaced(self) -> None:
        self.assertEqual(self.tail(frame(b"a\0b\xff\xed\xa0\x80c")).translate({0xFFFD: "?"}), "a?b????c")

    def test_no_log_is_empty(self) -> None:
        self.assertEqual(self.tail(b""), "")

    def test_a_refusal_says_why_in_the_place_of_the_log(self) -> None:
        for status, said in ((501, "configured logging driver does not support reading"), (404, "No such container")):
            self.daemon.answers[LOGS] = partial(Exchange.refuse, status=status, message=said)
            self.assertEqual(self.runtime.log_tail("c1"), f"(the log cannot be read: {said})")
        self.assertEqual(self.runtime.log_tail("c2"), "(the log cannot be read: No such container: c2)")

    def test_silence_is_unavailable_and_soon_so(self) -> None:
        self.daemon.answers[LOGS] = Exchange.hang
        began = time.monotonic()
        with self.assertRaises(Unavailable):
            self.runtime.log_tail("c1")
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
