"""The second phase: requests through the transport over real sockets, and servers that answer in bytes of their own."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import socketserver
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aca_tokend import log
from aca_tokend.acaengine.endpoint import HttpTokenEndpoint
from aca_tokend.core.config import EndpointConfig, VaultConfig
from aca_tokend.core.errors import GrantError, LookError, PublishError, ReachError, VaultLoginError, VerifyError
from aca_tokend.core.grant import Credentials
from aca_tokend.core.secret import Secret
from aca_tokend.event_log import EventLog
from aca_tokend.vault.health import read_health
from aca_tokend.vault.session import VaultSession
from tests.fuzz.mutation import CANARY, odd_bytes, odd_data
from tests.fuzz.target import Outcome, Target, outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

TIMEOUT_SECONDS = 0.25
GRACE_SECONDS = 0.5
# The first byte of an input: what the server does after its answer, and whether it answers every request like that or
# only the one that is meant.
KEEP, CLOSE, HANG, DRIP, EVERY = 0, 1, 2, 3, 4

GRANT, USER, AUTHORITY = "/auth/oauth/token", "/user", "/auth/authority"
LOGIN, SELF = "/v1/auth/approle/login", "/v1/auth/token/lookup-self"
RENEW, REVOKE = "/v1/auth/token/renew-self", "/v1/auth/token/revoke-self"
KV2, KV1, METADATA = "/v1/secret/data/aca/b", "/v1/secret/aca/b", "/v1/secret/metadata/aca/b"
MAY, MOUNT, HEALTH = "/v1/sys/capabilities-self", "/v1/sys/internal/ui/mounts/secret", "/v1/sys/health"
FIELDS = {"access_token": CANARY}
GOOD: dict[str, Any] = {
    GRANT: {"access_token": CANARY, "token_type": "Bearer", "expires_in": 7200, "scope": "public"},
    USER: {"id": CANARY},
    AUTHORITY: {"id": CANARY},
    LOGIN: {"auth": {"client_token": CANARY, "lease_duration": 3600, "renewable": True, "token_type": "service"}},
    SELF: {"data": {"ttl": 3600, "policies": ["p"], "renewable": True, "type": "service", "expire_time": CANARY}},
    RENEW: {"auth": {"client_token": CANARY, "lease_duration": 3600, "renewable": True}},
    REVOKE: {},
    KV2: {"data": {"data": FIELDS, "metadata": {"version": 3}, "version": 4}},
    KV1: {"data": FIELDS},
    METADATA: {},
    MAY: {"data": {path.removeprefix("/v1/"): ["read", "update"] for path in (KV2, KV1, MAY, MOUNT)}},
    MOUNT: {"data": {"type": "kv", "path": "secret/", "options": {"version": "2"}}},
    HEALTH: {"initialized": True, "sealed": False, "standby": False},
}  # fmt: skip

# What answers are made of. The path of the request and the port of the server are filled in where braces name them.
STATUSES = (200, 200, 200, 200, 100, 101, 199, 204, 206, 301, 304, 307, 308, 400, 401, 403, 404, 407, 412, 422, 429,
            473, 500, 503, 600, 999)  # fmt: skip
LINES = ("HTTP/1.1 200", "HTTP/1.1 99 x", "HTTP/1.1 1000 x", "HTTP/1.0 200 OK", "HTTP/2 200 OK", "ICY 200", "", "\3",
         "HTTP/1.1 -20 x", "HTTP/1.1  200 OK", "HTTP/1.1 403 CANARY\0", "HTTP/1.1 200 CANARY")  # fmt: skip
HEADERS = """\
Location: mailto:x
Location: https://xn--/
Location: /{long}
Location: :http://h:CANARY
Location: http://[::1
Location: http://h:99999/
Location:
Location: http://CANARY.example{path}
Location: http://127.0.0.1:1{path}
Location: http://127.0.0.1:{port}{path}
Location: http://u:p@127.0.0.1:{port}{path}
Location: http://127.0.0.1:{port}{path}#
Location: http://\x7f\x01.x.localhost{path}
Location: http://\xe9.x.localhost{path}
Location: http://{long}.x.localhost{path}
Location: http://..x.localhost:{port}{path}
X-Vault-Index: CANARY
X-Vault-Index: a b
X-Vault-Index:
X-Vault-Index: \xe9\x7f
X-Vault-Index: {long}
Date: Tue, 24 Nov 2026 06:00:00 GMT
Date: Mon, 01 Jan 0001 00:00:00 +1400
Date: CANARY\xb2
Retry-After: 5
Retry-After: -99999999999999999999
Retry-After: Fri, 31 Dec 9999 23:59:59
Retry-After: \xb2
Set-Cookie: a=CANARY
x-request-id: CANARY\x01
Connection: close
Connection: keep-alive, upgrade
Upgrade: h2c
Content-Encoding: gzip
Transfer-Encoding: gzip, chunked
Transfer-Encoding: identity
Transfer-Encoding: chunked, chunked
 CANARY
CANARY
CANARY : x
X: CANARY\rY: x
X: CANARY\0
:""".replace("{long}", "a" * 60_000).split("\n")
LENGTHS = ("9" * 400, "9" * 5000, "-1", "+5", "0x5", "5, 5", "5, 6", "", "0", "1", "99", "1.0", "\xb2", CANARY)
SIZES = (b"5;" + b"e" * 70_000, b"5;a=b", b"F" * 20, b"F" * 400, b"-1", b"-5", b"+5", b"0x5", b" 5", b"5 ", b"", b"0")
WORDS = (b"\r\n", b"\r\n\r\n", b"\n", b"\0", b":", b" ", b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n",
         b"Content-Length: 5\r\n", b"0\r\n\r\n", b"\xff")  # fmt: skip


def well(body: object) -> bytes:
    """An answer as it should be."""
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


def draw_answer(path: str, port: int, rng: Random) -> bytes:
    """An input: what the server does, and an answer that is odd in a few ways."""
    bodies: tuple[Any, ...] = (GOOD[path], GOOD[path], {"errors": [CANARY]}, {"errors": []}, {"error": "invalid_grant"})
    body = json.dumps(rng.choice(bodies)).encode()
    if rng.random() < 0.4:
        body = odd_data(body, rng)
    lines = [rng.choice(LINES) if rng.random() < 0.1 else f"HTTP/1.1 {rng.choice(STATUSES)} {CANARY}"]
    lines += rng.sample(HEADERS, rng.choice((0, 0, 1, 1, 3)))
    if rng.random() < 0.02:
        lines += [f"{CANARY}{number}: x" for number in range(rng.choice((100, 10_000)))]
    framing = rng.random()
    if framing < 0.5 or framing > 0.97:
        lines.append(f"Content-Length: {len(body)}")
    elif framing < 0.65:
        lines.append(f"Content-Length: {rng.choice(LENGTHS)}")
    if framing > 0.75:
        lines.append("Transfer-Encoding: chunked")
        body = _chunked(body, rng)
    head = "\r\n".join(lines).replace("{port}", str(port)).replace("{path}", path).encode("latin-1")
    answer = head + b"\r\n\r\n" + body
    if rng.random() < 0.05:
        interim = rng.choice((100, 103, 101, 199))
        answer = f"HTTP/1.1 {interim} {CANARY}\r\nX: {CANARY}\r\n\r\n".encode() * rng.choice((1, 3, 5000)) + answer
    if rng.random() < 0.1:
        answer += rng.choice((b"\r\n", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", answer))
    if rng.random() < 0.15:
        answer = answer[: rng.randrange(len(answer) + 1)]
    if rng.random() < 0.2:
        answer = odd_bytes(answer, WORDS, rng)
    ending = rng.choices((KEEP, CLOSE, HANG, DRIP), (70, 28, 1, 1))[0]
    return bytes([ending + rng.choice((0, 0, EVERY))]) + answer


def _chunked(body: bytes, rng: Random) -> bytes:
    size = rng.choice((1, 7, 32_768))
    body = body[: 10_000 * size]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    if rng.random() < 0.5:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(SIZES) + b"\r\nhello\r\n")
    return b"".join(chunks) + rng.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"", b"0\r\nX: " + CANARY.encode() + b"\r\n\r\n"))


class Server(socketserver.ThreadingTCPServer):
    """Answers as it should, but for the requests that an input is for."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port: int = self.server_address[1]
        self.odd: tuple[str, bytes] = ("", b"")
        self.asked = 0

    def reply(self, path: str) -> tuple[bytes, int]:
        """The bytes for a request, and what to do after them."""
        self.asked += 1
        meant, case = self.odd
        if case and (case[0] & EVERY or path == meant):
            return case[1:], case[0] & 3
        return well(GOOD.get(path, {})), KEEP


class _Connection(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                path, length = line.split(b" ")[1].decode().partition("?")[0], 0
                while (header := self.rfile.readline()).strip():
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                answer, then = self.server.reply(path)
                self.wfile.write(answer)
                if then == CLOSE:
                    return
                # who waits for more is soon told that there is none; who does not has no more to ask
                self.connection.settimeout(0.02 if self.server.odd[1] else None)
                while then == DRIP:
                    time.sleep(0.01)  # as slowly as a server that drips
                    self.wfile.write(b" ")
                if then == HANG:
                    self.connection.settimeout(None)
                    self.rfile.read()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()


def _numeric(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]


class Sockets:
    """One server, and an endpoint and a Vault session that take it for theirs, for as long as all inputs last."""

    def __init__(self) -> None:
        self.log = io.StringIO()
        log.configure("debug", "json", self.log)
        self.server = Server()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.server.port}"
        self.endpoint = HttpTokenEndpoint("main", EndpointConfig.model_validate({"url": url, "timeout": "250ms"}))
        auth = {"method": "approle", "role_id": CANARY, "secret_id": {"file": "/s"}}
        table = {"address": url, "timeout": "250ms", "auth": auth, "redirect_hosts": ["*.x.localhost"]}
        self.vault = VaultConfig.model_validate(table)
        self.hours = 0
        self.session = self._session()
        # names are looked at as ever, and no name server is asked
        self.session._nodes._opener._names._look_up = _numeric

    def close(self) -> None:
        """Ends all of it."""
        self.server.odd = ("", b"")
        self.session.close()
        self.endpoint.close()
        self.server.shutdown()
        self.server.server_close()

    def targets(self) -> list[Target]:
        """Everything that asks a server."""
        secret = Secret(CANARY)
        grant = partial(self.endpoint.grant, Credentials("u", secret, "a", "c", secret, ""))
        calls: list[tuple[str, Callable[[], object], str, type[Exception]]] = [
            ("grant", grant, GRANT, GrantError),
            ("verify", partial(self.endpoint.verify, USER, secret), USER, VerifyError),
            ("authority", self.endpoint.authority, AUTHORITY, ReachError),
            ("read_kv", partial(self.session.read_kv, "secret", "aca/b"), KV2, LookError),
            ("write_kv", partial(self.session.write_kv, "secret", "aca/b", FIELDS, 3), KV2, PublishError),
            ("read_kv1", partial(self.session.read_kv1, "secret", "aca/b"), KV1, LookError),
            ("describe_kv", partial(self.session.describe_kv, "secret", "aca/b", {"a": CANARY}), METADATA, LookError),
            ("capabilities", partial(self.session.capabilities, ["secret/data/aca/b"]), MAY, LookError),
            ("mount_version", self._mount_version, MOUNT, LookError),
            ("log_in", self._log_in, LOGIN, LookError),
            ("keep", self.session.keep, RENEW, VaultLoginError),
            ("own_token", self.session.own_token, SELF, VaultLoginError),
            ("health", partial(read_health, self.vault), HEALTH, ReachError),
        ]
        return [
            Target(name, partial(self._run, call, path), (error,), partial(draw_answer, path, self.server.port))
            for name, call, path, error in calls
        ]

    def _session(self) -> VaultSession:
        return VaultSession(
            "main", self.vault, lambda _: Secret(CANARY), wall=time.time, on_login=EventLog().observe_login,
            monotonic=lambda: time.monotonic() + 3600.0 * self.hours,
        )  # fmt: skip

    def _log_in(self) -> None:
        session = self._session()
        try:
            session.read_kv("secret", "aca/b")
        finally:
            self.server.odd = ("", b"")
            session.close()

    def _mount_version(self) -> None:
        self.session._versioned_until.clear()  # it would not ask again
        self.session.mount_version("secret")

    def _run(self, call: Callable[[], object], path: str, case: bytes) -> Outcome:
        """One call that meets these bytes; then the same server answers as it should, and must be understood."""
        self.server.odd, self.server.asked = (path, case), 0
        found = outcome(call, time.monotonic, partial(self._limit, path))
        self.server.odd = ("", b"")
        return replace(found, error=self._aftermath() or found.error)

    def _limit(self, path: str) -> float:
        # a request to a Vault may take twice the timeout, and a call may need several
        most = 2 * max(1, self.server.asked) if path.startswith("/v1/") else 1
        return most * TIMEOUT_SECONDS + GRACE_SECONDS

    def _aftermath(self) -> Exception | None:
        """What is wrong after a call, if anything."""
        shown = self.log.getvalue()
        self.log.seek(0)
        self.log.truncate()
        if CANARY in shown:
            return AssertionError("the log shows it")
        # a machine with much else to do may need longer than the timeout
        for _ in range(4):
            self.hours += 2  # no log-in is held off any more
            error = outcome(self._works, time.monotonic, float).error
            if error is None:
                break
        return error

    def _works(self) -> None:
        assert self.session.read_kv("secret", "aca/b").version == 3
        assert self.endpoint.authority().status == 200
