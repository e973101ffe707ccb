"""The benches of work compare equal containers, and reject any result that is not a start."""

import threading
import unittest
from typing import Any
from unittest import mock

from bench.errors import BenchError
from bench.work.bare import check_same
from bench.work.ours import REMOVING, checked, emptied, new_games, now_and_then


def inspected(game_id: str, **changed: Any) -> dict[str, Any]:
    """A container as Docker inspects it."""
    labels = {"com.galaxy.game_id": game_id, "com.galaxy.started_at_ms": f"at the start of {game_id}"}
    return {
        "Id": f"id of {game_id}",
        "Platform": "linux",
        "Driver": "overlay2",
        "Config": {"Hostname": f"galaxy-game-{game_id}", "Labels": labels, "Env": ["A=b"]},
        "HostConfig": {"Memory": 1 << 20, "Mounts": [{"Source": f"/games/{game_id}"}], **changed},
        "NetworkSettings": {"Networks": {"galaxy-net": {"IPAddress": f"of {game_id}"}}},
    }


class SameTest(unittest.TestCase):
    def test_containers_that_differ_in_game_and_time_only_are_the_same(self) -> None:
        check_same(inspected("game-1"), inspected("game-2"))

    def test_another_limit_is_reported(self) -> None:
        with self.assertRaisesRegex(BenchError, r"the containers of the two sides differ: .*Memory.*1024"):
            check_same(inspected("game-1"), inspected("game-2", Memory=1024))

    def test_another_network_is_reported(self) -> None:
        elsewhere = inspected("game-2")
        elsewhere["NetworkSettings"]["Networks"] = {"bridge": {}}

        with self.assertRaisesRegex(BenchError, "galaxy-net.*bridge"):
            check_same(inspected("game-1"), elsewhere)

    def test_what_only_one_side_has_is_reported(self) -> None:
        with self.assertRaisesRegex(BenchError, "Zone"):
            check_same(inspected("game-1"), inspected("game-2", Zone=1))


class ResultTest(unittest.TestCase):
    good = {"outcome": "success", "error_code": "", "container_id": "abc"}

    def test_a_start_is_its_container(self) -> None:
        self.assertEqual(checked(self.good), "abc")

    def test_a_failure_a_replay_and_a_start_of_nothing_are_no_figures(self) -> None:
        for change in ({"outcome": "failure"}, {"error_code": "replay_no_op"}, {"container_id": ""}):
            with self.subTest(change), self.assertRaisesRegex(BenchError, "did not start anything"):
                checked({**self.good, **change})

    def test_no_game_is_named_twice(self) -> None:
        self.assertEqual(len(set(new_games(100))), 100)


class EmptiedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.network = mock.Mock(**{"containers.return_value": [f"container-{number}" for number in range(60)]})
        self.removed: list[str] = []
        self.enterContext(mock.patch("harness.fixtures.container.remove", self.remove))
        self.together, self.came = threading.Barrier(REMOVING), threading.local()

    def remove(self, _: object, container_id: str) -> None:
        """Each thread's first removal blocks until `REMOVING` removals run at once."""
        if not hasattr(self.came, "once"):
            self.came.once = True
            self.together.wait(10)
        self.removed.append(container_id)

    def test_all_containers_are_taken_away_several_at_once(self) -> None:
        with emptied(self.network):
            self.assertEqual(self.removed, [], "they are needed for as long as something is measured")

        self.assertEqual(sorted(self.removed), sorted(self.network.containers()))

    def test_a_round_that_went_wrong_leaves_none_either(self) -> None:
        with self.assertRaisesRegex(BenchError, "8 of 60 results"), emptied(self.network):
            raise BenchError("8 of 60 results")

        self.assertEqual(len(self.removed), 60)


class NowAndThenTest(unittest.TestCase):
    def test_it_is_done_at_first_and_each_time_after_so_many_calls(self) -> None:
        done: list[int] = []
        number = 0

        call = now_and_then(lambda: done.append(number), 3)
        for number in range(8):  # noqa: B007
            call()

        self.assertEqual(done, [0, 3, 6])
