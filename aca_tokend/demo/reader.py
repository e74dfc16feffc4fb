"""A reader uses a token as an application would: it takes what is published, calls the API, and counts refusals."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import hvac

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aca_tokend.core.secret import Secret

API_PATH = "/api/engine/v2/users/current"
TIMEOUT_SECONDS = 10.0


class NothingPublishedError(Exception):
    """There is no document to read."""


@dataclass
class Reader:
    """Reads and calls in a thread of its own, from `start` until `stop`.

    Attributes:
        accepted: how many calls the API accepted.
        refused: how many it refused: each is an application that met a 401.
        unread: how many times nothing could be read, for instance while Vault is down.
        tokens: how many different tokens were read.
        last_refusal: what was known of the last one that was refused, without the token.
    """

    name: str
    read: Callable[[], Mapping[str, object]]
    api_port: int
    pause_seconds: float = 0.05
    accepted: int = 0
    refused: int = 0
    unread: int = 0
    tokens: int = 0
    last_refusal: str = ""
    document: Mapping[str, object] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to read."""
        self._thread = threading.Thread(target=self._work, name=f"reader-{self.name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it reads; one that ends before `stop` met a bug."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends after the call that is under way."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_SECONDS)

    def _work(self) -> None:
        while not self._ended.wait(self.pause_seconds):
            try:
                document = self.read()
            except NothingPublishedError:
                self.unread += 1
                continue
            if document.get("access_token") != self.document.get("access_token"):
                self.tokens += 1
            self.document = document
            status = self._call(str(document["authorization"]))
            if status == HTTPStatus.OK:
                self.accepted += 1
            elif status == HTTPStatus.UNAUTHORIZED:
                self.refused += 1
                self.last_refusal = (
                    f"issued {document['issued_at']}, expires {document['expires_at']}, {time.time():.3f}"
                )

    def _call(self, authorization: str) -> int:
        """The status of an API call; 0 where the API does not answer, which says nothing about the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=TIMEOUT_SECONDS)
        with closing(connection):
            try:
                connection.request("GET", API_PATH, headers={"Authorization": authorization})
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return 0


def read_file(path: Path) -> Callable[[], Mapping[str, object]]:
    """Reads the JSON file at `path`. One that is torn is a bug, and raises."""

    def read() -> Mapping[str, object]:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise NothingPublishedError from None
        document: Mapping[str, object] = json.loads(content)
        return document

    return read


def read_vault(address: str, token: Secret, mount: str, path: str) -> Callable[[], Mapping[str, object]]:
    """Reads the latest version of a KV version 2 secret."""
    client = hvac.Client(url=address, token=token.reveal(), timeout=TIMEOUT_SECONDS)
    client.adapter.session.trust_env = False

    def read() -> Mapping[str, object]:
        import requests

        try:
            answer = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
        except (hvac.exceptions.VaultError, requests.RequestException):
            raise NothingPublishedError from None
        document: Mapping[str, object] = answer["data"]["data"]
        return document

    return read
