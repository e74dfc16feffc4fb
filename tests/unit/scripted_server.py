"""A server on 127.0.0.1 that says byte for byte what a script tells it to, and remembers what it was asked.

Also the certificates for it, and an HTTP proxy made of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Script = Callable[["Talk"], None]

# How often something that waits for two things at once looks again, and how fast a drip drips.
PACE_SECONDS = 0.02


class Talk:
    """One connection, from the server's side."""

    def __init__(self, connection: socket.socket, server: ScriptedServer) -> None:
        self.connection = connection
        self.server = server

    def read_request(self) -> bytes | None:
        """The next whole request, which is also put on record; None where the client has closed."""
        received = b""
        while b"\r\n\r\n" not in received:
            if not (chunk := self.connection.recv(65536)):
                return None
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                while len(body) < int(value):
                    body += self.connection.recv(65536)
        request = head + b"\r\n\r\n" + body
        self.server.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        """Sends it all at once."""
        self.connection.sendall(data)

    def drip(self, piece: bytes) -> None:
        """Sends a piece again and again, too often for a timeout of single reads, until the client has had enough."""
        while not self.server.stopping.wait(PACE_SECONDS):
            self.connection.sendall(piece)

    def hang(self) -> None:
        """Says nothing until the server is stopped."""
        self.server.stopping.wait()


class ScriptedServer:
    """Runs the script on each connection, in a thread; the connection closes when the script returns."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.stopping = threading.Event()
        self.changed = threading.Condition()
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.address[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def wait_until_closed(self, connections: int) -> None:
        """Waits until this many connections have been closed from this side."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.closed >= connections, timeout=30)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            # a client that never comes back must not keep the test from ending
            connection.settimeout(30)
            if self._tls is None:
                self._script(Talk(connection, self))
            else:
                with self._tls.wrap_socket(connection, server_side=True) as encrypted:
                    self._script(Talk(encrypted, self))
        with self.changed:
            self.closed += 1
            self.changed.notify_all()


def answers(*responses: bytes, keep_open: bool = True) -> Script:
    """Answers one request after another with these, whichever connection they come on; then closes."""
    left = deque(responses)

    def script(talk: Talk) -> None:
        while left and talk.read_request() is not None:
            talk.send(left.popleft())
            if not keep_open:
                return

    return script


def response(
    status: int = 200, body: bytes = b"", headers: tuple[str, ...] = (), content_type: str = "application/json"
) -> bytes:
    """A whole response."""
    lines = (
        f"HTTP/1.1 {status} Whatever",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def tunnels_to(address: tuple[str, int]) -> Script:
    """A proxy: takes CONNECT, wherever to, and connects to this address."""

    def script(talk: Talk) -> None:
        talk.read_request()
        with socket.create_connection(address) as upstream:
            talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {talk.connection: upstream, upstream: talk.connection}
            while not talk.server.stopping.is_set():
                for end in select.select(list(ends), [], [], PACE_SECONDS)[0]:
                    if not (data := end.recv(65536)):
                        return
                    ends[end].sendall(data)

    return script


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                True,
            ),
        )
        self.certificate = self._sign(self._name, self._key.public_key(), timedelta(days=1), extensions)
        self.ca_file = directory / f"{name.replace(' ', '-')}.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *names: str, valid_for: timedelta = timedelta(days=1)) -> ssl.SSLContext:
        """What a server of these names (or addresses) needs. A negative `valid_for`: the certificate has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
            (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        )
        certificate = self._sign(subject, key.public_key(), valid_for, extensions)
        path = self._directory / f"server-{certificate.serial_number}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def client(self, key: ec.EllipticCurvePublicKey, name: str) -> x509.Certificate:
        """A client certificate of this name."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, key, timedelta(days=1), ((usage, False),))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        valid_for: timedelta,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...],
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + valid_for)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
