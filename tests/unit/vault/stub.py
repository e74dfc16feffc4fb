"""A Vault of prepared answers over real HTTP, for what a real one cannot be made to say."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.unit.scripted_server import ScriptedServer, response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from tests.unit.scripted_server import Talk

    Rule = Callable[["Asked"], bytes | None]

LOOKUP = "/v1/auth/token/lookup-self"
CAPABILITIES = "/v1/sys/capabilities-self"
DENIED = {"errors": ["permission denied"]}


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def token(self) -> str | None:
        """The Vault token it carried."""
        return self.headers.get("x-vault-token")


def answer(status: int, body: Any = None, *headers: str) -> bytes:  # noqa: ANN401  # anything that is JSON
    """An answer in JSON."""
    return response(status, b"" if body is None else json.dumps(body).encode(), headers)


class VaultStub:
    """Answers by the rule for a path, 404 where there is none; a rule that gives None hangs up without a word."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[Asked] = []
        self.rules: dict[str, Rule] = {CAPABILITIES: self._may_nothing}

    def always(self, path: str, reply: bytes | None) -> None:
        """One answer for all requests to a path."""
        self.rules[path] = lambda _: reply

    def count(self, path: str) -> int:
        """How many requests came for a path."""
        return sum(asked.path == path for asked in self.asked)

    def may(self, *capabilities: str) -> None:
        """What every token that lives may do on whatever path."""
        self.rules[CAPABILITIES] = lambda asked: answer(
            200, {"data": {path: list(capabilities) for path in asked.body["paths"]}}
        )

    def _may_nothing(self, asked: Asked) -> bytes | None:
        """A token that can be looked up lives, and may do nothing."""
        looked_up = self.rules[LOOKUP](asked)
        if looked_up is None or b" 200 " not in looked_up.split(b"\r\n")[0]:
            return looked_up
        return answer(200, {"data": {path: ["deny"] for path in asked.body["paths"]}})

    def talk(self, talk: Talk) -> None:
        """Answers all requests of a connection."""
        while (request := talk.read_request()) is not None:
            head, _, body = request.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            asked = Asked(method, path, headers, json.loads(body) if body else None)
            self.asked.append(asked)
            rule = self.rules.get(path)
            reply = rule(asked) if rule else answer(404, {"errors": []})
            if reply is None:
                return
            talk.send(reply)


@contextmanager
def vault_stub(tls: ssl.SSLContext | None = None) -> Iterator[VaultStub]:
    """A running stub that says of every token that it lives for an hour."""
    stub = VaultStub()
    stub.always(LOOKUP, answer(200, {"data": {"ttl": 3600}}))
    with ScriptedServer(stub.talk, tls) as server:
        stub.address = server.url
        yield stub
