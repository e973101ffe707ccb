"""Images with labels of any content: made without a build, and removed."""

import unittest
from dataclasses import replace
from typing import Any

from harness import HOSTILE_LABELS, HarnessError, base_image, check_flag, daemon, images, label_image, labels_of_size
from harness.runs import identity, sweep


class LabelledImageTest(unittest.TestCase):
    def setUp(self) -> None:
        check_flag()
        self.client = daemon.client()
        self.base = base_image()

    def config(self, reference: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.inspect_image(reference)  # type: ignore[no-untyped-call]
        return dict(found["Config"])

    def test_it_has_every_label_as_it_was_given(self) -> None:
        wanted = HOSTILE_LABELS | labels_of_size(1 << 20)
        with label_image(self.base, wanted) as odd:
            above = self.config(odd.reference)
            self.assertEqual(above["Labels"] | wanted, above["Labels"])
        self.assertEqual(self.client.images(odd.reference), [])
        odd.close()

    def test_it_runs_what_the_image_below_runs_or_nothing(self) -> None:
        with label_image(images.redis(), {"a": "b"}) as with_command:
            for below in (self.base, images.redis(), with_command.reference):
                with self.subTest(below=below), label_image(below, {}) as odd:
                    programs = [
                        [self.config(image)[part] or [] for part in ("Entrypoint", "Cmd")]
                        for image in (below, odd.reference)
                    ]
                    self.assertEqual(*programs)

    def test_an_image_that_is_absent_is_named(self) -> None:
        with self.assertRaisesRegex(HarnessError, "registry.invalid/none:1 is not there"):
            label_image("registry.invalid/none:1", {})

    def test_one_in_use_is_named(self) -> None:
        with label_image(self.base, {}) as odd:
            container = self.client.create_container(odd.reference, ["true"], labels=identity.current().labels())
            try:
                with self.assertRaisesRegex(HarnessError, "in use"):
                    odd.close()
            finally:
                self.client.remove_container(container["Id"])

    def test_that_of_a_killed_run_is_swept_and_that_of_a_live_one_is_not(self) -> None:
        with label_image(self.base, {}) as mine, label_image(self.base, {}) as theirs:
            dead = replace(identity.current(), run="dead", pid=2**22 + 1)
            found = {each["RepoTags"][0]: each for each in self.client.images("rtm-harness/labelled")}
            found[theirs.reference]["Labels"] |= dead.labels()
            left = sweep._left(list(found.values()), lambda by: by == dead)
            self.assertEqual([each["RepoTags"] for each in left], [[theirs.reference]])
            self.assertIn(mine.reference, found)
