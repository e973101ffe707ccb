"""An image with labels of any content and size."""

import unittest

from harness import HOSTILE_LABELS, base_image, check_flag, label_image, labels_of_size, start_container


class Labels(unittest.TestCase):
    def test_any_label_reaches_a_container(self) -> None:
        check_flag()
        labels = HOSTILE_LABELS | labels_of_size(1 << 20)
        with label_image(base_image(), labels) as odd, start_container(odd.reference, command=["true"]) as container:
            found = container.inspect()["Config"]["Labels"]
            self.assertEqual((found["nul"], found["exitCode"]), ("a\0b", "²"))
