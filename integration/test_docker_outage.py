"""Docker ends, is killed, or loses its host: games that ran are started again, games that were stopped are not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from harness import start_services
from harness.fixtures import dockerd
from harness.fixtures.container import Container
from integration.support import images
from integration.support.watched import WatchedTestCase

#: The number of games that run when Docker ends; `make recovery` uses fifty.
GAMES = int(os.environ.get("RTM_OUTAGE_GAMES") or 4)
#: Seconds in which they are started.
STARTED_WITHIN_S = 30.0 + 2 * GAMES
#: Seconds after Docker's return in which all of them run again, on two cores.
BACK_WITHIN_S = 60.0


def setUpModule() -> None:
    start_services()
    dockerd.check()


class OwnDaemonTestCase(WatchedTestCase):
    """A manager on a test's own Docker daemon."""

    live_restore: ClassVar[bool] = False
    own: ClassVar[dockerd.OwnDaemon]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.own = dockerd.start(live_restore=cls.live_restore)
        cls.addClassCleanup(cls.own.close)
        cls.own.copy_image(cls.engine.ref)

    def setUp(self) -> None:
        super().setUp()
        self.docker = self.own.client()
        self.network = self.own.create_network()
        self.addCleanup(self._remove_games)
        self.games = [f"{self.game_id[:40]}-{number}" for number in range(GAMES)]

    def _remove_games(self) -> None:
        client = self.own.client()
        for each in client.containers(all=True):
            client.remove_container(each["Id"], force=True)
        client.remove_network(self.network.name)

    def environment(self, **changes: str) -> dict[str, str]:
        return super().environment(**{"DOCKER_HOST": self.own.url, "RECONCILE_INTERVAL": "2s", **changes})

    def start_games(self) -> dict[str, str]:
        """Start all games; return their containers."""
        for game_id in self.games:
            self.add_start_job(game_id=game_id)
        self.results(GAMES, STARTED_WITHIN_S)
        return self.running()

    def running(self) -> dict[str, str]:
        """The containers of the games that run according to both the records and Docker."""
        alive = {each["Id"] for each in self.own.client().containers()}
        rows = self.rows("SELECT game_id, current_container_id AS id FROM runtime_records WHERE status = 'running'")
        return {row["game_id"]: row["id"] for row in rows if row["id"] in alive}

    def wait_until_back(self, games: list[str], before: dict[str, str]) -> None:
        """Wait until exactly these games run, each in another container than before."""

        def back() -> bool:
            now = self.running()
            return sorted(now) == sorted(games) and all(now[each] != before[each] for each in games)

        self.wait_until("the games to be back", back, BACK_WITHIN_S, describe=lambda _: repr(self.running()))

    def last_exits(self) -> dict[str, str]:
        """`requested_by` of the last exit of each game."""
        rows = self.rows("SELECT game_id, requested_by FROM last_exits")
        return {row["game_id"]: row["requested_by"] for row in rows}

    def starts_after_outage(self) -> list[str]:
        """The games that were started after an outage, in that order."""
        rows = self.rows(
            "SELECT game_id FROM operation_log WHERE op_kind = 'start' AND op_source = 'auto_reconcile'"
            " AND starts_with(source_ref, 'outage:') AND outcome = 'success' ORDER BY id"
        )
        return [row["game_id"] for row in rows]


class Outages(OwnDaemonTestCase):
    def test_after_a_restart_of_docker_the_games_are_back_but_for_those_that_were_stopped(self) -> None:
        self.start_runtime()
        before = self.start_games()
        by_manager, by_person, just_before, *rest = self.games
        self.add_stop_job(game_id=by_manager)
        Container(before[by_person], self.docker).stop()
        self.wait_until("the record of a stop by hand", lambda: self.record(by_person)["status"] == "stopped")
        self.docker.stop(before[just_before])

        self.own.restart()

        self.wait_until_back(rest, before)
        time.sleep(3)
        self.assertEqual(sorted(self.running()), sorted(rest))
        by = self.last_exits()
        self.assertEqual([by[by_person], by[just_before]], ["signal", "signal"])
        self.assertEqual({by[each] for each in rest}, {"docker"})
        self.assertCountEqual(self.starts_after_outage(), rest)

    def test_after_a_kill_of_docker_the_games_are_back(self) -> None:
        self.start_runtime()
        before = self.start_games()
        self.own.kill()
        self.own.start_again()
        self.wait_until_back(self.games, before)
        self.assertEqual(set(self.last_exits().values()), {"docker"})

    def test_a_stop_by_hand_under_way_when_docker_is_killed_still_holds(self) -> None:
        image = images.tiny("ignores-signals")
        self.own.copy_image(image)
        self.start_runtime()
        stopped, *rest = self.games
        self.add_start_job(image, game_id=stopped)
        for game_id in rest:
            self.add_start_job(game_id=game_id)
        self.results(GAMES, STARTED_WITHIN_S)
        before = self.running()
        with ThreadPoolExecutor(1) as threads:
            stop = threads.submit(self.own.client().stop, before[stopped], timeout=40)
            self.wait_until("the signal", lambda: "event=kill" in self.log.read_text())
            time.sleep(1)  # a daemon that goes within the same instant may have sent the signal itself
            self.own.kill()
            self.assertIsNotNone(stop.exception())
        self.own.start_again()
        self.wait_until_back(rest, before)
        self.assertEqual(self.last_exits()[stopped], "signal")

    def test_a_stop_by_hand_just_before_the_manager_and_docker_end_still_holds(self) -> None:
        process = self.start_process()
        before = self.start_games()
        stopped, *rest = self.games
        self.docker.stop(before[stopped])
        self.assertEqual(process.terminate(), 0)
        self.own.restart()
        self.start_process()
        self.wait_until_back(rest, before)
        self.assertEqual(self.last_exits()[stopped], "signal")

    def test_after_a_loss_of_power_that_ended_the_manager_too_the_games_are_back(self) -> None:
        process = self.start_process()
        before = self.start_games()
        process.kill()
        self.own.cut_power()
        self.own.start_again()
        self.start_process()
        self.wait_until_back(self.games, before)
        self.assertEqual(set(self.last_exits().values()), {"host"})
        self.assertCountEqual(self.starts_after_outage(), self.games)

    def test_when_it_is_switched_off_no_start_is_planned(self) -> None:
        self.start_runtime(OUTAGE_RESTART="off")
        self.start_games()
        self.own.restart()
        self.wait_until("the ends", lambda: len(self.last_exits()) == GAMES, BACK_WITHIN_S)
        self.assertEqual(self.rows("SELECT FROM crash_restarts"), [])


class LiveRestore(OwnDaemonTestCase):
    live_restore = True

    def test_nothing_ends_and_nothing_is_started(self) -> None:
        self.start_runtime()
        before = self.start_games()
        for again in (self.own.restart, self.kill_and_start):
            again()
            self.wait_until_ready()
            time.sleep(3)
            self.assertEqual(self.running(), before)
        self.assertEqual((self.starts_after_outage(), self.last_exits()), ([], {}))

    def kill_and_start(self) -> None:
        self.own.kill()
        self.own.start_again()


class Truth(WatchedTestCase):
    """`requested_by` of an exit, on the machine's own daemon."""

    def test_a_stop_and_a_kill_by_hand_are_requests_and_no_crashes(self) -> None:
        # An engine that serves ends with 0, which a pass alone reports; one that just begins ends with 143.
        self.start_runtime(CRASH_RESTART="on", CRASH_RESTART_FIRST_PAUSE="200ms", RECONCILE_INTERVAL="1s")
        ends: tuple[Callable[[Container], Any], ...] = (Container.stop, Container.kill)
        for end in ends:
            game = self.start_game()
            self.engine_call("GET", "/healthz")
            end(game)
            self.wait_for_status("stopped")
            self.assertEqual(self.health()["last_exit"]["requested_by"], "signal")
            self.assertIsNone(self.health()["restart_due_at"])

    def test_a_signal_that_requests_no_end_does_not_excuse_a_crash(self) -> None:
        self.start_runtime()
        self.start_game().kill("SIGURG")
        self.crash_engine()
        self.wait_for_status("stopped")
        self.assertEqual(self.health()["last_exit"]["requested_by"], "unknown")
