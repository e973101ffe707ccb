"""A TLS proxy in front of a daemon's unix socket, like `dockerd --tlsverify`, and certificates made by openssl."""

from __future__ import annotations

import selectors
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: Bytes of one read.
_PIECE = 1 << 16

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
#: A key that OpenSSL accepts only at security level 1 and below.
SHORT_KEY = ("-newkey", "rsa:1024", "-nodes")


class Authority:
    """A certificate authority, which keeps its files and those that it signs in a directory."""

    def __init__(self, directory: Path, name: str = "ca", extension: str = "basicConstraints=critical,CA:TRUE") -> None:
        self._directory = directory
        self._name = name
        self.certificate = str(directory / f"{name}.pem")
        self._key = str(directory / f"{name}.key")
        request, lines = str(directory / f"{name}.csr"), directory / f"{name}.ext"
        lines.write_text(f"{extension}\n")
        openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", self._key, "-out", request)
        by_itself = ["-signkey", self._key, "-extfile", str(lines)]
        openssl("x509", "-req", "-in", request, *by_itself, "-days", "30", "-out", self.certificate)

    def sign(
        self,
        name: str,
        *,
        days: int = 30,
        subject: str = "IP:127.0.0.1,DNS:localhost",
        extensions: str = "",
        new_key: Sequence[str] = _NEW_KEY,
        digest: str = "-sha256",
    ) -> tuple[str, str]:
        """Sign a new certificate; return its path and its key's. Negative `days`: it has expired."""
        base = self._directory / f"{self._name}-{name}"
        key, request, certificate, lines = (str(base.with_suffix(end)) for end in (".key", ".csr", ".pem", ".ext"))
        Path(lines).write_text(f"subjectAltName={subject}\n{extensions}\n")
        openssl("req", *new_key, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        by = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"]
        openssl("x509", "-req", "-in", request, *by, digest, "-days", str(days), "-extfile", lines, "-out", certificate)
        return certificate, key


class TlsFront:
    """Listens on 127.0.0.1 and forwards to a unix socket; with `client_ca` a client needs a certificate."""

    def __init__(self, path: str, pair: tuple[str, str], client_ca: str | None = None) -> None:
        self._path = path
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_ciphers("DEFAULT:@SECLEVEL=0")  # to present a weak certificate, too
        self._context.load_cert_chain(*pair)
        if client_ca is not None:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and end every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(client, server_side=True) as secured,
                socket.socket(socket.AF_UNIX) as behind,
            ):
                behind.connect(self._path)
                self._sockets.update((secured, behind))
                _pass_on(secured, behind)
        except OSError:
            client.close()


def _pass_on(secured: ssl.SSLSocket, behind: socket.socket) -> None:
    """Forward in both directions until one end closes."""
    with selectors.DefaultSelector() as ready:
        ready.register(secured, selectors.EVENT_READ, behind)
        ready.register(behind, selectors.EVENT_READ, secured)
        while True:
            for key, _ in ready.select():
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                piece = source.recv(_PIECE)
                if not piece:
                    return
                target.sendall(piece)
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    target.sendall(source.recv(source.pending()))


def openssl(*arguments: str) -> None:
    """Run openssl. Raises `CalledProcessError`."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
