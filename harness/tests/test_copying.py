"""Copies of files into containers and out of them."""

import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

import docker.types

from harness import DockerTestCase, HarnessError, Mount, base_image
from harness.fixtures import copying
from harness.fixtures.container import Container
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


class CopyingTest(DockerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def start(self, script: str = "exec sleep 600", **settings: Any) -> Container:
        return self.start_container(base_image(), entrypoint=["sh", "-c", script], **settings)

    def test_files_are_there_when_the_container_starts(self) -> None:
        (self.folder / "program").write_text("#!/bin/sh\necho runs")
        (self.folder / "program").chmod(0o700)
        made = self.start(
            "cat /etc/shop/shop.conf; /opt/program",
            user="65534",
            files={"/etc/shop/shop.conf": "open = yes\n", "/opt/program": self.folder / "program"},
        )
        self.assertEqual(made.wait_for_exit(), 126)
        self.assertIn("open = yes\n", made.logs())  # and the program keeps its mode, so no user may execute it

    def test_content_and_files_go_in_with_mode_and_owner_and_come_out_as_they_were(self) -> None:
        made, odd = self.start(), bytes(range(256)) * 5000
        made.copy_in(odd, "/new/place/odd bytes", mode=0o640, owner=999)
        self.assertEqual(made.exec(["stat", "-c", "%a %u %g", "/new/place/odd bytes"]), (0, "640 999 999\n"))
        self.assertEqual(made.read_file("/new/place/odd bytes"), odd)
        target = made.copy_out("/new/place/odd bytes", self.folder / "below" / "out")
        self.assertEqual((target, target.read_bytes()), (self.folder / "below" / "out", odd))

    def test_a_directory_goes_in_and_out_with_links_and_empty_folders(self) -> None:
        tree = self.folder / "tree"
        (tree / "deep" / "empty").mkdir(parents=True)
        (tree / "deep" / "file").write_text("text")
        os.link(tree / "deep" / "file", tree / "second name")
        (tree / "link").symlink_to("deep/file")
        (tree / "nowhere").symlink_to("/nowhere")
        made = self.start()
        made.copy_in(tree, "/srv/tree")
        self.assertEqual(made.exec(["cat", "/srv/tree/link", "/srv/tree/second name"]), (0, "texttext"))
        made.exec(["sh", "-c", "cd /srv/tree && rm nowhere && ln 'second name' third && chmod 000 deep/file"])
        back = made.copy_out("/srv/tree", self.folder / "back")
        found = sorted(str(path.relative_to(back)) for path in back.rglob("*"))
        self.assertEqual(found, ["deep", "deep/empty", "deep/file", "link", "second name", "third"])
        self.assertEqual((back / "link").read_text() + (back / "third").read_text(), "texttext")
        self.assertTrue((back / "link").is_symlink())

    def test_a_container_that_has_ended_still_gives_its_files(self) -> None:
        made = self.start("echo done > /tmp/result; ln -s result /tmp/link")
        made.wait_for_exit()
        self.assertEqual((made.read_file("/tmp/result"), made.read_file("/tmp/link")), (b"done\n", b"done\n"))

    def test_what_cannot_be_copied_is_named(self) -> None:
        made = self.start()
        (self.folder / "there").write_text("x")
        for pattern, action in (
            ("/nothing", lambda: made.read_file("/nothing")),
            ("/etc is no file", lambda: made.read_file("/etc")),
            ("relative", lambda: made.copy_in("x", "relative")),
            ("'/'", lambda: made.copy_in("x", "/")),
            ("no-such-file does not exist", lambda: made.copy_in(self.folder / "no-such-file", "/x")),
            ("there exists", lambda: made.copy_out("/etc/hostname", self.folder / "there")),
            ("/etc/passwd/x", lambda: made.copy_in("x", "/etc/passwd/x")),
        ):
            with self.subTest(pattern), self.assertRaisesRegex(HarnessError, pattern):
                action()

    def test_an_archive_cannot_write_outside_of_the_target(self) -> None:
        made = self.start()
        outside = self.folder / f"outside-{secrets.token_hex(4)}"
        made.exec(["sh", "-c", f"mkdir /d && ln -s {outside} /d/link && mkfifo /d/pipe"])
        target = made.copy_out("/d", self.folder / "target")
        self.assertEqual((os.readlink(target / "link"), [*target.iterdir()]), (str(outside), [target / "link"]))
        outside.mkdir()
        with self.assertRaisesRegex(HarnessError, "target/link/file would be written outside"):
            copying._refuse_outside(target, ["link", "file"])


class PlacesTest(DockerTestCase):
    def test_nothing_takes_the_place_of_a_directory_or_of_a_link_to_one(self) -> None:
        made = self.start_container(base_image(), entrypoint=["sleep", "600"])
        made.exec(["sh", "-c", "mkdir /real && ln -s real /link && echo > /real/old"])
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "new").write_text("x")
        for source, target in ((folder, "/link"), ("x", "/real"), ("x", "/etc")):
            with self.subTest(target), self.assertRaisesRegex(HarnessError, f"nothing can be copied to {target}"):
                made.copy_in(source, target)
        made.copy_in("x", "/link/file")
        made.copy_in(folder, "/real")
        self.assertEqual(made.exec(["ls", "/link"]), (0, "file\nnew\nold\n"))
        self.assertEqual(made.exec(["test", "-e", "/etc/hosts"]), (0, ""))


class ReadOnlyTest(DockerTestCase):
    def test_a_read_only_container_takes_files_in_its_volumes_only_and_says_so(self) -> None:
        mounts = [Mount(self.create_volume(), "/data"), Mount(self.create_volume(), "/data/kept", read_only=True)]
        made = self.start_container(
            base_image(), entrypoint=["sleep", "600"], read_only=True, mounts=mounts, files={"/data/new/a": "before"}
        )
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "c").write_text("c")
        made.copy_in("x", "/data/new/b")
        made.copy_in(folder, "/data")
        self.assertEqual(made.exec(["sh", "-c", "cd /data && cat new/a new/b c"]), (0, "beforexc"))
        for target, pattern in (("/etc/a", "read_only, and only its volumes"), ("/data/kept/a", "read-only")):
            with self.subTest(target), self.assertRaisesRegex(HarnessError, f"copied to {target}: .*{pattern}"):
                made.copy_in("x", target)
        with self.assertRaisesRegex(HarnessError, "copied to /data: it is a mount"):
            made.copy_in("x", "/data")


class TmpfsTest(DockerTestCase):
    def test_what_dockers_copy_does_not_reach_is_refused_by_every_call(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "scratch" / "deep").mkdir(parents=True)
        (folder / "scratch" / "deep" / "file").write_text("x")
        made = self.start_container(
            base_image(),
            entrypoint=["sh", "-c", "ln -s /srv/scratch /link; exec sleep 600"],
            tmpfs={"/srv/scratch/": ""},
            mounts=[docker.types.Mount("/other", None, type="tmpfs"), Mount(self.create_volume(), "/srv/scratch/kept")],
        )
        made.wait_until("the link", lambda: made.exec(["test", "-L", "/link"])[0] == 0)
        reached = "the tmpfs /srv/scratch, which .*: use exec, or a volume"
        for action, pattern in (
            (lambda: made.copy_in("x", "/srv/scratch/a"), reached),
            (lambda: made.copy_in("x", "/link/a"), reached),
            (lambda: made.copy_in(folder, "/srv"), "/srv/scratch/deep/file of .*" + reached),
            (lambda: made.read_file("/srv/../srv/scratch/a"), reached),
            (lambda: made.copy_out("/link/a", folder / "out"), reached),
            (lambda: made.copy_out("/srv", folder / "out"), "/srv of .* has the tmpfs /srv/scratch in it"),
            (lambda: made.copy_in("x", "/other/a"), "the tmpfs /other"),
            (lambda: made.copy_in("x", "/dev/shm/a"), "/dev, which .*: use exec"),
            (lambda: made.read_file("/proc/1/cmdline"), "/proc, which .*: use exec"),
        ):
            with self.assertRaisesRegex(HarnessError, pattern):
                action()
        with self.assertRaisesRegex(HarnessError, reached):
            self.start_container(
                base_image(), entrypoint=["true"], tmpfs={"/srv/scratch": ""}, files={"/srv/scratch/a": "x"}
            )
        made.copy_in("x", "/srv/scratch/kept/a")
        self.assertEqual(made.read_file("/link/kept/a"), b"x")


class LinkTest(DockerTestCase):
    def test_a_link_is_followed_from_where_it_is_and_a_loop_is_named(self) -> None:
        script = "mkdir -p /p/q; echo v > /p/f; ln -s ../f /p/q/l; ln -s /p/q /qq; ln -s loop /loop; ln -s no /nowhere"
        made = self.start_container(base_image(), entrypoint=["sh", "-c", script])
        made.wait_for_exit()
        for path in ("/qq/l", "/qq/../f", "/p/q/l", "qq/l"):
            with self.subTest(path):
                self.assertEqual(made.read_file(path), b"v\n")
        for path, pattern in (("/loop", "loop of links"), ("/loop/x", "loop of links"), ("/nowhere", "/no cannot be")):
            with self.subTest(path), self.assertRaisesRegex(HarnessError, pattern):
                made.read_file(path)
