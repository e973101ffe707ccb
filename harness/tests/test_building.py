"""Images of folders: built once for their content, and named after it."""

import os
import re
import secrets
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from harness import daemon, images
from harness.errors import ImageUnavailable
from harness.fixtures import container
from harness.images import debian
from harness.images.building import build_image
from harness.images.recipe import Recipe, inspect
from harness.runs import flag

ROOT = Path(__file__).parents[2]


def setUpModule() -> None:
    flag.check()


class BuildImageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / f"shop-{secrets.token_hex(4)}"
        self.base = images.redis()
        (self.folder / "goods").mkdir(parents=True)
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY goods /goods\n")
        (self.folder / "goods" / "list").write_text("apples")

    def build(self) -> str:
        ref = build_image(self.folder, self.base)
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
        """With umask 077 only the owner may read a file, but in an image every user must."""
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

    def test_a_folder_may_have_any_name(self) -> None:
        for name in ("Worker", "My Worker", "wörker", "__x__", "a" * 250, "工", os.fsdecode(b"w\xffrker")):
            with self.subTest(name):
                self.folder = self.folder.rename(self.folder.with_name(name))
                self.assertIsNotNone(inspect(daemon.client(), self.build()))
        here = Path.cwd()
        self.addCleanup(os.chdir, here)
        for inside, name in ((self.folder, "."), (self.folder / "goods", "..")):
            os.chdir(inside)
            self.folder = Path(name)
            self.build()

    def listing(self) -> list[str]:
        """The entries that `COPY . /all` adds to an image: paths, and for a link its target."""
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY . /all\n")
        script = 'cd /all; du -a | cut -f2 | while read -r path; do echo "$path" $(readlink "$path"); done'
        with container.start(self.build(), entrypoint=["sh", "-c", script]) as shown:
            shown.wait_for_exit()
            return sorted(line.removeprefix("./") for line in shown.logs().splitlines())

    def test_the_context_is_that_of_docker(self) -> None:
        (self.folder / "empty").mkdir()
        (self.folder / "to-list").symlink_to("goods/list")
        (self.folder / "to-goods").symlink_to("goods")
        (self.folder / "to-nothing").symlink_to("/nowhere")
        (self.folder / "__pycache__").mkdir()
        (self.folder / "__pycache__" / "x.pyc").write_text("")
        os.mkfifo(self.folder / "pipe")
        links = ["to-goods goods", "to-list goods/list", "to-nothing /nowhere"]
        self.assertEqual(self.listing(), [".", "Dockerfile", "empty", "goods", "goods/list", "pipe", *links])

    def test_what_dockerignore_names_is_neither_in_the_image_nor_a_reason_to_build_again(self) -> None:
        secret = self.folder / "goods" / "secret"
        secret.write_text("1")
        (self.folder / "log").write_text("1")
        (self.folder / ".dockerignore").write_bytes(b"\xef\xbb\xbf# comment\n\n*\n!goods\n**/secret\n")
        self.assertEqual(self.listing(), [".", "goods", "goods/list"])
        first = self.build()
        secret.write_text("2")
        self.assertEqual(self.build(), first)

    def test_a_link_to_another_file_of_the_same_content_is_another_image(self) -> None:
        (self.folder / "goods" / "other").write_text("apples")
        (self.folder / "goods" / "link").symlink_to("list")
        first = self.build()
        (self.folder / "goods" / "link").unlink()
        (self.folder / "goods" / "link").symlink_to("other")
        self.assertNotEqual(self.build(), first)

    def test_a_file_name_may_be_of_any_bytes(self) -> None:
        (self.folder / "goods" / os.fsdecode(b"\xff")).write_text("pears")
        with container.start(self.build(), entrypoint=["sh", "-c", "cat /goods/$(printf '\\377')"]) as shown:
            self.assertEqual((shown.wait_for_exit(), shown.logs()), (0, "pears"))

    def test_the_guides_command_gives_an_image_its_packages(self) -> None:
        guide = (ROOT / "docs" / "harness.md").read_text()
        command, recipe = (
            re.search(each, guide, re.DOTALL) for each in (r"`pip (.*?) PACKAGE…`", r"```dockerfile\n(.*?)```")
        )
        assert command is not None
        assert recipe is not None
        words = [*command[1].replace("worker", str(self.folder)).split(), "redis", "async-timeout"]
        filled = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
        if filled.returncode != 0:
            self.skipTest(f"no index gives the packages: {filled.stderr.strip().splitlines()[-1:]}")
        (self.folder / "Dockerfile").write_text(recipe[1])
        (self.folder / "worker.py").write_text("import redis.asyncio; print('here')")
        self.base = images.base_image()
        with container.start(self.build()) as worker:
            self.assertEqual((worker.wait_for_exit(), worker.logs()), (0, "here\n"))

    def test_whatever_hinders_a_build_is_an_image_unavailable(self) -> None:
        for recipe, cause in (("FRM x\n", "unknown instruction: FRM"), ("", "cannot be empty")):
            with self.subTest(recipe):
                (self.folder / "Dockerfile").write_text(recipe)
                with self.assertRaisesRegex(ImageUnavailable, f"cannot be built.*{cause}"):
                    self.build()
        with self.assertRaisesRegex(ImageUnavailable, "'Not A Name' is not the name of an image"):
            build_image(self.folder, "Not A Name")
        with mock.patch.object(Path, "read_bytes", side_effect=PermissionError("denied")):
            self.assertRaisesRegex(ImageUnavailable, "cannot be read: denied", self.build)

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
