"""The simulated daemon answers and passes events on as Docker does, and its games agree with their records."""

import json
import socket
import unittest
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from unittest import mock

from docker import APIClient

from bench import child
from bench.synthetic import games, published
from bench.synthetic.published import Published
from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.runtime import DockerRuntime
from rtmanager.domain.container import ContainerState
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind


class GamesTest(unittest.TestCase):
    def test_an_inspect_and_the_list_report_the_same_of_a_container(self) -> None:
        for number, (record, listed) in enumerate(zip(games.records(3), games.listed(3), strict=True)):
            inspected = decode.inspected(json.loads(games.inspected(number, record.game_id)))
            listed_view = decode.listed(listed)
            assert listed_view is not None
            self.assertTrue(inspected.runs(record.game_id, games.IMAGE, games.HOUSE.network))
            self.assertEqual(inspected.container_id, record.current_container_id)
            self.assertEqual(
                (listed_view.container_id, listed_view.addresses), (inspected.container_id, inspected.addresses)
            )
            self.assertTrue(listed_view.up_for_an_hour)

    def test_one_that_has_crashed_says_when(self) -> None:
        ended_at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
        found = decode.inspected(json.loads(games.inspected(0, "game-00000", ended_at)))
        self.assertEqual((found.state, found.exit_code, found.finished_at), (ContainerState.EXITED, 1, ended_at))

    def test_its_death_is_an_event_that_is_listened_to(self) -> None:
        event = decode.event(games.death("game-00007", 1_800_000_000_123_456_789))
        assert isinstance(event, ContainerEvent)
        self.assertEqual((event.what, event.game_id), (ContainerEventKind.DIE, "game-00007"))
        self.assertEqual(event.time_ns, 1_800_000_000_123_456_789)


class DaemonTest(unittest.TestCase):
    def test_it_answers_what_a_manager_requests_and_lets_games_crash(self) -> None:
        with (
            child.running("bench.synthetic.daemon", "5") as host,
            closing(DockerRuntime(host)) as runtime,
            closing(APIClient(base_url=host, version="auto")) as client,
        ):
            self.assertTrue(runtime.network_exists(games.HOUSE.network))
            self.assertEqual(len(runtime.list_games()), 5)
            client.post(f"{client.base_url}/deaths?count=2").raise_for_status()

            states = [runtime.inspect(games.container_id(game_id)).state for game_id in games.ids(5)]
            self.assertEqual([state.value for state in states], ["exited"] * 2 + ["running"] * 3)
            self.assertEqual(runtime.log_tail(games.container_id("game-00000")), "out of luck")


class PublishedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.published = Published()
        here, there = socket.socketpair()
        self.here, self.there = self.enterContext(here), self.enterContext(there)

    def test_who_subscribes_receives_the_past_that_is_requested_and_what_follows(self) -> None:
        for at_ns in (1, 2, 3):
            self.published.add(games.death("game-00000", at_ns))
        events = self.published.events(2, self.here)
        times = [json.loads(line)["timeNano"] for line in islice(events, 2)]
        self.published.add(games.death("game-00000", 4))
        times.append(json.loads(next(events))["timeNano"])
        self.assertEqual(times, [2, 3, 4])

    def test_who_does_not_take_them_loses_events(self) -> None:
        self.published.add(games.death("game-00000", 1))
        events = self.published.events(0, self.here)
        next(events)
        with mock.patch.object(published, "PATIENCE_S", 0.001):
            for at_ns in range(published.QUEUE + 3):
                self.published.add(games.death("game-00000", at_ns))
        self.assertEqual((self.published.lost, self.published.listeners), (3, 1))

    def test_one_that_has_left_is_forgotten(self) -> None:
        events = self.published.events(None, self.here)
        self.there.close()
        with mock.patch.object(published, "POLL_S", 0.001):
            self.assertEqual(list(events), [])
        self.assertEqual(self.published.listeners, 0)
