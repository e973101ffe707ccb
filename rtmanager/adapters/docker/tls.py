"""TLS to the Docker daemon: loads the files and explains errors.

Changed files are loaded again, so a renewed certificate needs no restart.
"""

from __future__ import annotations

import errno
import os
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import BadStatusLine

from rtmanager.adapters.certificates import UNSIGNED, own_unfit, server_unfit, why_no_authorities, why_unreadable

#: Names of the settings, for messages.
CA, CERTIFICATE, KEY = "RTMANAGER_DOCKER_TLS_CA", "RTMANAGER_DOCKER_TLS_CERT", "RTMANAGER_DOCKER_TLS_KEY"
_ALL = f"{CA}, {CERTIFICATE} and {KEY}"

#: OpenSSL's codes for an untrusted certificate, and their meaning here.
_UNTRUSTED = {
    9: "the daemon's certificate, or its CA's, is not valid yet; check the clocks",
    10: "the daemon's certificate, or its CA's, has expired; renew it on the Docker host",
    62: "the daemon's certificate is not for the host of RTMANAGER_DOCKER_HOST; use a name that it has, or renew it",
    64: "the daemon's certificate is not for the address of RTMANAGER_DOCKER_HOST; use a name that it has, or renew it",
}
#: OpenSSL's phrases (lower case) about the peer, and their meaning.
_REPLIES = (
    (
        ("wrong_version_number", "wrong version number", "http_request", "unknown_protocol", "packet_length_too_long"),
        f"the daemon does not speak TLS there; use its TLS port (2376), or unset {_ALL}",
    ),
    (
        ("certificate_required", "certificate required"),
        f"the daemon asks for a client certificate; set {CERTIFICATE} and {KEY}",
    ),
    (
        ("alert_certificate_expired", "alert certificate expired"),
        f"the daemon says that our certificate has expired; renew {CERTIFICATE}",
    ),
    (
        ("alert_unknown_ca", "alert unknown ca", "alert_bad_certificate", "alert bad certificate"),
        f"the daemon does not trust our certificate, or saw none; set {CERTIFICATE} and {KEY} to one that the CA "
        "of its --tlscacert has signed, and its key",
    ),
    (
        ("alert_certificate_unknown", "alert_decrypt_error", "alert_unsupported_certificate", "alert_handshake"),
        f"the daemon refuses our certificate or our version of TLS; check {CERTIFICATE} and {KEY}",
    ),
)
#: How a Go server answers plain HTTP on a TLS port; other servers send a TLS alert.
_HTTP_TO_TLS = "http request to an https server"
_ALERT = "\x15\x03"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the CA of the daemon's certificate, the client certificate and its key; or empty.

    Without `ca` the system's CAs are used; without `certificate` none is sent.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def __bool__(self) -> bool:
        return bool(self.ca or self.certificate or self.key)


class TlsFailed(OSError):
    """TLS cannot be used; the message has the remedy."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPROTO, f"TLS: {why}")


class ClientTls:
    """The TLS context of the current files. Thread-safe."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._made_of: object = None
        self._context: ssl.SSLContext | None = None

    def context(self, socket_class: type[ssl.SSLSocket]) -> ssl.SSLContext:
        """Return the context, made anew when a file has changed. Raises `TlsFailed` when a file cannot be used."""
        with self._lock:
            now = [_state(path) for path in (self._files.ca, self._files.certificate, self._files.key)]
            if self._context is None or now != self._made_of:
                self._context, self._made_of = _made(self._files, socket_class), now
            return self._context


def _state(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _made(files: TlsFiles, socket_class: type[ssl.SSLSocket]) -> ssl.SSLContext:
    for name, path in ((CA, files.ca), (CERTIFICATE, files.certificate), (KEY, files.key)):
        if path and (why := why_unreadable(path)):
            raise TlsFailed(f"{name}={path!r} cannot be read: {why}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = socket_class
    problem = None
    if files.ca:
        try:
            context.load_verify_locations(cafile=files.ca)
        except ssl.SSLError:
            problem = f"{CA}={files.ca!r} holds no certificate in PEM form"
    elif (problem := why_no_authorities()) is None:
        context.load_default_certs()
    if problem is None and files.certificate:
        problem = _load_pair(context, files)
    if problem is not None:
        raise TlsFailed(problem)
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> str | None:
    """Load the client certificate and its key; returns what is wrong with them, or None."""
    try:
        # Without a password OpenSSL would prompt on the terminal for that of an encrypted key.
        context.load_cert_chain(files.certificate, files.key, password="")
    except ssl.SSLError as error:
        if "MISMATCH" in str(error.reason):
            return f"{KEY}={files.key!r} is not the key of {CERTIFICATE}={files.certificate!r}"
        if unfit := own_unfit(error):
            what, remedy = unfit
            return f"{CERTIFICATE}={files.certificate!r} {what}; {remedy}"
        return (
            f"{CERTIFICATE}={files.certificate!r} and {KEY}={files.key!r} are no certificate and key in PEM form, "
            f"or the key has a password ({error.reason or error.args[-1]})"
        )
    return None


def never_answered() -> TlsFailed:
    """Return the error for a connection that the daemon ended right after the handshake."""
    return TlsFailed(
        "the daemon ended the connection right after the handshake; if it runs, it does not accept our certificate: "
        f"check {CERTIFICATE} and {KEY}"
    )


def explained(error: ssl.SSLError, *, handshake: bool = True) -> TlsFailed:
    """Turn a failed handshake, or an alert in place of an answer, into an error with a remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailed(_not_trusted(error))
    words = f"{error.reason or ''} {error}".lower()
    for marks, meaning in _REPLIES:
        if any(mark in words for mark in marks):
            return TlsFailed(meaning)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) and not handshake:
        return never_answered()
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return TlsFailed(f"the connection was closed in the handshake; if the daemon speaks no TLS there, unset {_ALL}")
    return TlsFailed(error.reason or str(error))


def _not_trusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNTRUSTED:
        return _UNTRUSTED[error.verify_code]
    if unfit := server_unfit(error):
        what, remedy = unfit
        return f"the daemon's certificate {what}; {remedy}"
    if error.verify_code in UNSIGNED:
        return (
            f"the daemon's certificate is not signed by the CA of {CA} ({error.verify_message}); "
            "name the file of the CA that signed it"
        )
    return f"the daemon's certificate is not accepted: {error.verify_message}; renew it on the Docker host"


def expects_tls(errors: Iterable[BaseException]) -> str | None:
    """Return the remedy when plain HTTP was probably sent to a TLS port, else None."""
    for error in errors:
        words = str(error).lower()
        if _HTTP_TO_TLS in words or (isinstance(error, BadStatusLine) and _ALERT in str(error)):
            return f"it expects TLS there; set {_ALL}"
        if isinstance(error, (ConnectionResetError, BrokenPipeError, BadStatusLine)):
            return f"it ended the connection; if it expects TLS there, set {_ALL}"
    return None
