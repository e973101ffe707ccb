"""Explains why OpenSSL rejects a certificate or key file, and how to renew it.

Codes and reasons are those of OpenSSL 3.0 at security level 2, the default of Debian and its derivatives.
"""

from __future__ import annotations

import os
import ssl

from rtmanager.config.parsers import is_pipe_or_device

#: X509_V_ERR_… codes of a certificate that no known CA has signed.
UNSIGNED = frozenset({2, 7, 18, 19, 20, 21})

_LONGER_KEY = "with an RSA key of at least 2048 bits, or an elliptic curve"
_SHA_256 = "signed with SHA-256"
_AUTHORITY = "with basicConstraints CA:TRUE and, if it has keyUsage, keyCertSign"

#: By X509_V_ERR_… code: what is wrong, and which certificate to renew how.
_UNFIT = {
    26: ("is not for a TLS server", "renew it with extendedKeyUsage serverAuth"),
    66: ("has a key that is too short", f"renew it {_LONGER_KEY}"),
    67: ("is signed by a CA whose key is too short", f"renew the CA {_LONGER_KEY}"),
    68: ("has, or its CA has, a signature that is too weak (SHA-1, MD5)", f"renew it {_SHA_256}"),
    79: ("is signed by what is no CA", f"renew the CA {_AUTHORITY}"),
}
#: By OpenSSL's reason for not loading a local certificate: what is wrong, and how to renew it.
_OWN_UNFIT = {
    "EE_KEY_TOO_SMALL": ("has a key that is too short", f"renew it {_LONGER_KEY}"),
    "CA_KEY_TOO_SMALL": ("has a CA in it whose key is too short", f"renew the CA {_LONGER_KEY}"),
    "CA_MD_TOO_WEAK": ("has a signature that is too weak (SHA-1, MD5)", f"renew it {_SHA_256}"),
}


def why_unreadable(path: str) -> str | None:
    """Return why this file cannot be read; None when it can."""
    try:
        if is_pipe_or_device(path):
            return "it is no regular file"
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror
    return None


def why_no_authorities() -> str | None:
    """Return why the file that SSL_CERT_FILE names cannot be read; None when it can, or does not exist."""
    path = os.environ.get("SSL_CERT_FILE")
    if path and os.path.exists(path) and (why := why_unreadable(path)):
        return f"SSL_CERT_FILE={path!r} cannot be read: {why}"
    return None


def why_no_key_log() -> str | None:
    """Return why the file that SSLKEYLOGFILE names cannot be written; None when it can.

    Python creates no default TLS context while that file cannot be written.
    """
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return None
    try:
        # Without O_NONBLOCK, opening a pipe blocks until it has a reader.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600))
    except OSError as error:
        return f"SSLKEYLOGFILE={path!r} cannot be written: {error.strerror}"
    return None


def server_unfit(error: ssl.SSLCertVerificationError) -> tuple[str, str] | None:
    """Return what is wrong with a server's certificate, whoever signed it, and the remedy; None for other errors."""
    return _UNFIT.get(error.verify_code)


def own_unfit(error: OSError) -> tuple[str, str] | None:
    """Return why OpenSSL does not load a local certificate, and the remedy; None for other errors."""
    return _OWN_UNFIT.get(str(getattr(error, "reason", "")))
