"""A Docker daemon that the test may kill and restart."""

import unittest

from harness import base_image, check_docker_daemon, check_flag, start_docker_daemon


class Upgrade(unittest.TestCase):
    def test_with_live_restore_containers_outlive_the_daemon(self) -> None:
        check_flag()
        check_docker_daemon()
        with start_docker_daemon(live_restore=True) as own:
            own.copy_image(base_image())
            client = own.client()
            sleeper = client.create_container(base_image(), entrypoint=["sleep", "600"])
            client.start(sleeper)
            own.kill()
            own.start_again()
            self.assertTrue(client.inspect_container(sleeper)["State"]["Running"])
