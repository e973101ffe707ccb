"""A record changes status only by the transitions of the contract's table (contract, "Records")."""

from __future__ import annotations

import unittest
from datetime import timedelta
from itertools import product

from rtmanager.domain.record import Status, check_transition
from rtmanager.tests.making import NOW, record

LATER = NOW + timedelta(hours=1)

#: The transitions of the contract, and two changes that keep the status: another container, or none.
ALLOWED = {
    (None, Status.RUNNING),
    (Status.RUNNING, Status.STOPPED),
    (Status.RUNNING, Status.REMOVED),
    (Status.STOPPED, Status.RUNNING),
    (Status.STOPPED, Status.REMOVED),
    (Status.REMOVED, Status.RUNNING),
    (Status.RUNNING, Status.RUNNING),
    (Status.STOPPED, Status.STOPPED),
}


class RecordTest(unittest.TestCase):
    def test_every_other_transition_is_a_defect(self) -> None:
        for old, new in product((None, *Status), Status):
            with self.subTest(old=old, new=new):
                seen = record(status=old) if old else None
                if (old, new) in ALLOWED:
                    check_transition(seen, record(status=new))
                else:
                    with self.assertRaises(AssertionError) as caught:
                        check_transition(seen, record(status=new))
                    self.assertIn("g1", str(caught.exception))

    def test_a_stopped_game_keeps_its_container_and_the_time_of_its_end(self) -> None:
        stopped = record().stopped(LATER)
        self.assertEqual((stopped.status, stopped.current_container_id), (Status.STOPPED, "c-g1"))
        self.assertEqual((stopped.stopped_at, stopped.last_op_at, stopped.started_at), (LATER, LATER, NOW))

    def test_a_game_between_two_containers_is_stopped_and_has_none(self) -> None:
        between = record().stopped_without_container(LATER)
        self.assertEqual((between.status, between.current_container_id), (Status.STOPPED, None))
        self.assertEqual((between.stopped_at, between.current_image_ref), (LATER, record().current_image_ref))

    def test_a_removed_game_keeps_its_image_and_its_place(self) -> None:
        old = record(status=Status.STOPPED)
        removed = old.removed(LATER)
        self.assertEqual((removed.status, removed.current_container_id), (Status.REMOVED, None))
        self.assertEqual((removed.removed_at, removed.last_op_at, removed.stopped_at), (LATER, LATER, NOW))
        self.assertEqual((removed.current_image_ref, removed.state_path), (old.current_image_ref, old.state_path))
        self.assertEqual(removed.created_at, old.created_at)
