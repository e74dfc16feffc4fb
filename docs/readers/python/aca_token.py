"""Tokens of aca-tokend for httpx: `httpx.Client(auth=AcaToken(from_file("/run/aca/bookings.json")))`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

PATIENCE = timedelta(seconds=10)  # how often to read again while the next token is not there yet


class NoTokenError(httpx.RequestError):
    """Nothing is published, or what is published has expired. Wait, and try again."""


@dataclass(frozen=True)
class Token:
    """A published token. What it shows of itself is not secret."""

    access_token: str = field(repr=False)
    authorization: str = field(repr=False)
    expires_at: datetime
    refresh_after: datetime


class AcaToken(httpx.Auth):
    """Sends the published token. One object serves all threads and clients that use the same token."""

    requires_request_body = True  # kept, so that it can be sent a second time

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._read = read
        self._token: Token | None = None
        self._read_again = datetime.now(UTC)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sends the request, and once again if it is refused and there is another token by then."""
        token = self.current()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and (other := self.other_than(token)):
            request.headers["Authorization"] = other.authorization
            yield request

    def current(self) -> Token:
        """The token to send now. Raises NoTokenError."""
        now, token = datetime.now(UTC), self._token
        if token is not None and now < min(token.expires_at, self._read_again):
            return token
        try:
            return self._fetch()
        except NoTokenError:
            if token is not None and now < token.expires_at:
                return token  # the place cannot be read just now, and this one still works
            raise

    def other_than(self, refused: Token) -> Token | None:
        """After a 401: another token than the refused one, None if there is none."""
        try:
            other = self._fetch()
        except NoTokenError:
            return None
        return other if other.access_token != refused.access_token else None

    def _fetch(self) -> Token:
        now = datetime.now(UTC)
        if self._token is not None:  # other threads go on with this one meanwhile
            self._read_again = now + min(PATIENCE, (self._token.expires_at - now) / 4)
        try:
            document = self._read()
            token = Token(
                document["access_token"],
                document["authorization"],
                datetime.fromisoformat(document["expires_at"]),
                datetime.fromisoformat(document["refresh_after"]),
            )
        except (OSError, ValueError, LookupError, TypeError, httpx.HTTPError) as error:
            message = f"no token can be read: {type(error).__name__}"
            raise NoTokenError(message) from error
        if token.expires_at <= now:
            message = f"the published token expired at {token.expires_at}"
            raise NoTokenError(message)
        self._token = token
        self._read_again = max(token.refresh_after, now + min(PATIENCE, (token.expires_at - now) / 4))
        return token


def from_file(path: str) -> Callable[[], dict[str, Any]]:
    """Reads the JSON file that the daemon writes."""
    return lambda: json.loads(Path(path).read_bytes())


def from_vault(vault: httpx.Client, secret: str, token_file: str) -> Callable[[], dict[str, Any]]:
    """Reads a secret of a KV version 2 mount, such as `secret/data/aca/bookings`, with the Vault token in a file."""

    def read() -> dict[str, Any]:
        answer = vault.get(f"/v1/{secret}", headers={"X-Vault-Token": Path(token_file).read_text().strip()})
        document: dict[str, Any] = answer.raise_for_status().json()["data"]["data"]
        return document

    return read
