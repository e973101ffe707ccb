"""A container of a test reaches PostgreSQL and Redis by name."""

from harness import ServicesTestCase, base_image, start_services

WORKER = """
import socket
with socket.create_connection(("redis.test", 6379)) as redis:
    redis.sendall(b"LPUSH greetings hello\\r\\n")
    redis.recv(100)
"""


def setUpModule() -> None:
    start_services()


class Worker(ServicesTestCase):
    def test_a_worker_in_a_container_reaches_redis(self) -> None:
        network = self.create_network()
        self.start_container(base_image(), entrypoint=["python3", "-c", WORKER], network=network.name)
        self.wait_until("a greeting", lambda: self.redis.llen("greetings") == 1)
