"""Images with labels of any content: made without a build, taken away again."""

import unittest
from dataclasses import replace
from typing import Any

from harness import HOSTILE_LABELS, HarnessError, check_flag, daemon, engine_image, label_image, labels_of_size
from harness.runs import runner, sweep


class LabelledImageTest(unittest.TestCase):
    def setUp(self) -> None:
        check_flag()
        self.client = daemon.client()
        self.base = engine_image().ref

    def config(self, reference: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.inspect_image(reference)  # type: ignore[no-untyped-call]
        return dict(found["Config"])

    def test_it_has_every_label_as_it_was_given_and_its_programme(self) -> None:
        wanted = HOSTILE_LABELS | labels_of_size(1 << 20)
        with label_image(self.base, wanted) as odd:
            below, above = self.config(self.base), self.config(odd.reference)
            self.assertEqual(above["Labels"] | wanted, above["Labels"])
            self.assertEqual((above["Cmd"], above["Entrypoint"]), (below["Cmd"], below["Entrypoint"]))
        self.assertEqual(self.client.images(odd.reference), [])
        odd.close()

    def test_an_image_that_is_absent_is_named(self) -> None:
        with self.assertRaisesRegex(HarnessError, "registry.invalid/none:1 is not there"):
            label_image("registry.invalid/none:1", {})

    def test_one_in_use_is_named(self) -> None:
        with label_image(self.base, {}) as odd:
            container = self.client.create_container(odd.reference, labels=runner.current().labels())
            try:
                with self.assertRaisesRegex(HarnessError, "in use"):
                    odd.close()
            finally:
                self.client.remove_container(container["Id"])

    def test_that_of_a_killed_run_is_swept_and_that_of_a_live_one_is_not(self) -> None:
        with label_image(self.base, {}) as mine, label_image(self.base, {}) as theirs:
            dead = replace(runner.current(), run="dead", pid=2**22 + 1)
            found = {each["RepoTags"][0]: each for each in self.client.images("rtm-harness/labelled")}
            found[theirs.reference]["Labels"] |= dead.labels()
            left = sweep._left(list(found.values()), lambda by: by == dead)
            self.assertEqual([each["RepoTags"] for each in left], [[theirs.reference]])
            self.assertIn(mine.reference, found)
