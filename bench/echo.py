"""A process that echoes what it receives: the peer of a loopback round trip.

python -m bench.echo
"""

import socket
import threading

from bench import child


def _serve(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := client.recv(4096):
                client.sendall(data)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        child.ready(str(listening.getsockname()[1]))
