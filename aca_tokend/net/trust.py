"""Whom a connection trusts and what it shows: certificates from files, read again when one of them changes.

The environment has no say, neither in the authorities (SSL_CERT_FILE) nor in a log of keys (SSLKEYLOGFILE).
"""

from __future__ import annotations

import ssl
import stat
import threading
from pathlib import Path

from aca_tokend.core.errors import TransportError, is_exhausted
from aca_tokend.core.outcome import Reason

# All public authorities take a quarter of one MiB.
_LARGEST_BYTES = 4 << 20


class Trust:
    """The authorities of `ca_file` alone, or the public ones; and the certificate to show, if any."""

    def __init__(self, ca_file: str, tls_cert: str = "", tls_key: str = "") -> None:
        self._files = {"ca_file": ca_file, "tls_cert": tls_cert, "tls_key": tls_key}
        self._lock = threading.Lock()
        self._read: tuple[list[object], ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """What to verify a server by, now. Raises TransportError."""
        with self._lock:
            stamps = [_stamp(key, file) for key, file in self._files.items() if file]
            if self._read is None or self._read[0] != stamps:
                self._read = (stamps, self._load(*self._files.values()))
            return self._read[1]

    def _load(self, ca_file: str, tls_cert: str, tls_key: str) -> ssl.SSLContext:
        # not ssl.create_default_context, which would write keys to where the environment says
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        problem = f"ca_file {ca_file}: holds no certificate that can be read"
        try:
            if ca_file:
                context.load_verify_locations(ca_file)
            else:
                _load_public(context)
            problem = "tls_cert and tls_key cannot be read, or do not belong together"
            if tls_cert:
                context.load_cert_chain(tls_cert, tls_key, password="")  # nobody is there to type one
        except OSError as exc:
            if is_exhausted(exc):
                raise
            raise _unusable(problem) from exc
        return context


def _load_public(context: ssl.SSLContext) -> None:
    """The authorities of the system and those that browsers know."""
    import certifi  # which most configurations need nothing of

    paths = ssl.get_default_verify_paths()
    context.load_verify_locations(certifi.where())
    # `cafile` and `capath` are what the environment says
    if Path(paths.openssl_cafile).is_file():
        context.load_verify_locations(paths.openssl_cafile)
    if Path(paths.openssl_capath).is_dir():
        context.load_verify_locations(capath=paths.openssl_capath)


def _stamp(key: str, file: str) -> object:
    """Changes when the file does."""
    try:
        status = Path(file).stat()
    except OSError as exc:
        if is_exhausted(exc):
            raise
        problem = f"{key} {file}: {exc.strerror}"
        raise _unusable(problem) from exc
    if not stat.S_ISREG(status.st_mode):
        problem = f"{key} {file}: is not a file"
        raise _unusable(problem)
    if status.st_size > _LARGEST_BYTES:
        problem = f"{key} {file}: larger than {_LARGEST_BYTES >> 20} MiB, so it is not a file of certificates"
        raise _unusable(problem)
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _unusable(problem: str) -> TransportError:
    return TransportError(Reason.TLS_FAILED, f"TLS failed: {problem}")
