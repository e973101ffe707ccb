"""The settings of `start_container`: all that Docker has, each setting once."""

import tempfile
import unittest
import unittest.mock
from pathlib import Path
from typing import Any

from harness import daemon, images
from harness.errors import HarnessError
from harness.fixtures import container, network
from harness.fixtures.container import Mount
from harness.fixtures.container_settings import Settings, _create_names, _host_names
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


class SettingsTest(unittest.TestCase):
    def start(self, script: str = "sleep 60", **settings: Any) -> container.Container:
        started = container.start(images.redis(), entrypoint=["sh", "-c", script], **settings)
        self.addCleanup(started.remove)
        return started

    def refused(self, **settings: Any) -> str:
        with self.assertRaises(HarnessError) as refused:
            self.start(**settings)
        return str(refused.exception)

    def test_every_setting_of_the_sdk_is_one_and_has_a_type(self) -> None:
        self.assertEqual((_host_names() | _create_names()) - Settings.__annotations__.keys(), set())

    def test_settings_of_the_container_and_of_its_host_may_be_given_directly(self) -> None:
        started = self.start(
            working_dir="/tmp", stop_signal="SIGINT", mem_limit="64m", cap_drop=["ALL"], environment=["A=1"], init=True
        )
        found = started.inspect()
        self.assertEqual(found["Config"]["WorkingDir"], "/tmp")
        self.assertEqual(found["Config"]["StopSignal"], "SIGINT")
        self.assertIn("A=1", found["Config"]["Env"])
        self.assertEqual(found["HostConfig"]["Memory"], 64 << 20)
        self.assertEqual((found["HostConfig"]["CapDrop"], found["HostConfig"]["Init"]), (["ALL"], True))

    def test_host_settings_may_be_given_in_host_config_beside_ours(self) -> None:
        made = network.create()
        self.addCleanup(made.remove)
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="a:b c")))
        (folder / "file").write_text("from the host")
        (folder / "file").chmod(0o644)
        folder.chmod(0o755)
        started = self.start(
            "cat /mounted/file && test -d /scratch && test -d /elsewhere",
            mounts=[Mount(folder, "/mounted", read_only=True)],
            tmpfs={"/scratch": ""},
            ports=[6379],
            aliases=["shop"],
            host_config={"network_mode": made.name, "binds": ["/tmp:/elsewhere"], "port_bindings": {7000: None}},
        )
        self.assertEqual((started.wait_for_exit(), started.logs()), (0, "from the host"))
        found = started.inspect()
        self.assertEqual(found["HostConfig"]["NetworkMode"], made.name)
        self.assertEqual(found["HostConfig"]["PortBindings"].keys(), {"6379/tcp", "7000/tcp"})
        self.assertEqual({each["Destination"] for each in found["Mounts"]}, {"/mounted", "/elsewhere"})

    def test_a_path_may_be_a_text(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        (folder / "file").write_text("A=of the host")
        (folder / "file").chmod(0o644)
        started = self.start(
            "cat /mounted/file; echo; env", mounts=[Mount(str(folder), "/mounted")], env_files=[f"{folder}/file"]
        )
        started.wait_for_exit()
        lines = started.logs().splitlines()
        self.assertEqual((lines[0], lines.count("A=of the host")), ("A=of the host", 2))
        copied = started.copy_out("/etc/hostname", f"{folder}/copied")
        self.assertEqual(copied, folder / "copied")
        self.assertTrue(copied.read_text())

    def test_a_network_may_be_named_in_either_way(self) -> None:
        for how in ({"network": "none"}, {"network_mode": "none"}, {"host_config": {"network_mode": "none"}}):
            with self.subTest(how):
                self.assertEqual(self.start(**how).inspect()["HostConfig"]["NetworkMode"], "none")

    def test_a_setting_that_is_given_twice_is_named(self) -> None:
        for how, part in (
            ({"network": "none", "host_config": {"network_mode": "host"}}, "network or network_mode is given twice"),
            ({"network": "none", "network_mode": "host"}, "network or network_mode is given twice: 'none' and 'host'"),
            ({"env": {"A": "1"}, "environment": {"A": "1"}}, "env or environment is given twice"),
            ({"tmpfs": {"/a": ""}, "host_config": {"tmpfs": {"/a": ""}}}, "tmpfs is given twice"),
            ({"mem_limit": "1g", "host_config": {"mem_limit": "2g"}}, "mem_limit is given twice"),
            ({"ports": [80], "host_config": {"port_bindings": {80: 8080}}}, "port 80 is given twice"),
            ({"ports": [80], "port_bindings": {"80/tcp": 8080}}, "port 80 is given twice"),
        ):
            with self.subTest(part):
                self.assertIn(part, self.refused(**how))

    def test_what_is_none_is_not_given(self) -> None:
        self.assertIsNone(self.start(network=None, host_config=None, network_mode="none", tmpfs=None).why_ended())

    def test_a_setting_that_there_is_not_is_named_with_the_nearest(self) -> None:
        self.assertIn("no container has a setting 'mem_limt': did you mean mem_limit?", self.refused(mem_limt="1g"))
        self.assertIn("'network_mod' in host_config", self.refused(host_config={"network_mod": "none"}))
        self.assertIn("give it directly", self.refused(host_config={"working_dir": "/tmp"}))

    def test_a_proxy_of_dockers_configuration_is_not_the_containers(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://127.0.0.1:9"}}}')
        with unittest.mock.patch.dict("os.environ", {"DOCKER_CONFIG": str(folder)}):
            client = daemon.connect()
            self.addCleanup(client.close)
        with unittest.mock.patch("harness.daemon.client", return_value=client):
            without, with_it = self.start(), self.start(use_config_proxy=True)
        self.assertNotIn("HTTP_PROXY", "".join(without.inspect()["Config"]["Env"]))
        self.assertIn("HTTP_PROXY=http://127.0.0.1:9", with_it.inspect()["Config"]["Env"])
