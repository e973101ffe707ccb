"""Images of folders: built once for what is in them, and named after it."""

import os
import secrets
import tempfile
import unittest
from pathlib import Path

from harness import daemon, images
from harness.errors import ImageUnavailable
from harness.fixtures import container
from harness.images import debian
from harness.images.building import build_image
from harness.images.recipe import Recipe, inspect
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


class BuildImageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / f"shop-{secrets.token_hex(4)}"
        (self.folder / "goods").mkdir(parents=True)
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY goods /goods\n")
        (self.folder / "goods" / "list").write_text("apples")

    def build(self) -> str:
        ref = build_image(self.folder, images.redis())
        self.addCleanup(lambda: inspect(daemon.client(), ref) and daemon.client().remove_image(ref))
        return ref

    def test_what_is_in_the_folder_is_in_the_image(self) -> None:
        with container.start(self.build(), entrypoint=["cat"], command=["/goods/list"]) as shown:
            self.assertEqual((shown.wait_for_exit(), shown.logs()), (0, "apples"))

    def test_the_same_content_is_not_built_again_and_another_beside_it(self) -> None:
        first = self.build()
        made = inspect(daemon.client(), first)
        self.assertEqual(self.build(), first)
        self.assertEqual(inspect(daemon.client(), first), made)
        (self.folder / "goods" / "list").write_text("pears")
        self.assertNotEqual(self.build(), first)
        self.assertIsNotNone(inspect(daemon.client(), first))

    def test_a_folder_without_a_dockerfile_is_named(self) -> None:
        (self.folder / "Dockerfile").unlink()
        with self.assertRaisesRegex(ImageUnavailable, f"no Dockerfile in .*{self.folder.name}"):
            self.build()

    def test_a_build_that_fails_shows_why_and_leaves_no_image(self) -> None:
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo sold out; exit 3\n")
        with self.assertRaisesRegex(ImageUnavailable, "(?s)sold out"):
            self.build()

    def test_an_image_does_not_depend_on_the_umask_of_the_checkout(self) -> None:
        """Under umask 077 nobody but the owner may read a file, and in an image every user has to."""
        recipe = (
            "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY goods /goods/\nUSER 65534\nRUN cat /goods/list && /goods/run\n"
        )
        (self.folder / "Dockerfile").write_text(recipe)
        (self.folder / "goods" / "run").write_text("#!/bin/sh\necho runs\n")
        (self.folder / "goods" / "run").chmod(0o755)
        usual = Recipe("shop", self.folder).inputs("")
        for path in (self.folder, *self.folder.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o077)
        self.assertEqual(Recipe("shop", self.folder).inputs(""), usual)
        self.build()

    def test_nor_does_a_base_made_of_packages(self) -> None:
        root = self.folder / "root"
        (root / "usr" / "share" / "base-passwd").mkdir(parents=True)
        (root / "etc").mkdir()
        for name in ("passwd", "group"):
            (root / "usr" / "share" / "base-passwd" / f"{name}.master").write_text("")
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        other = self.folder / "other"
        other.mkdir()
        debian._unpack([], other)
        debian._add_users({"redis": 999}, root)
        self.assertEqual((root / "etc" / "passwd").stat().st_mode & 0o777, 0o644)
        self.assertEqual((root / "etc" / "group").stat().st_mode & 0o777, 0o644)
        for name in ("usr", "usr/bin", "usr/lib64"):
            self.assertEqual((other / name).stat().st_mode & 0o777, 0o755)
