"""The places of the contract suite: each sink with the hand of somebody else who reads, writes and deletes there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from aca_tokend.core.config import EnvReference, FilePublish, TokenAuth, VaultConfig, VaultPublish
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document, NotADocumentError, parse_document
from aca_tokend.sinks import build
from aca_tokend.vault import VaultSession
from tests.contract.conftest import CANARY_ROOT
from tests.fakes import MemorySink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aca_tokend.core.ports import Sink
    from tests.contract.conftest import OpenBao

    Fields = dict[str, Any]


class Place(Protocol):
    """Where one token is published, seen from outside."""

    def sink(self) -> Sink:
        """A sink as another process would have it: nothing is shared but the place."""

    def put(self, fields: Fields) -> None:
        """Somebody else writes."""

    def fields(self) -> Fields | None:
        """What a reader finds."""

    def deletions(self) -> Sequence[Callable[[], None]]:
        """The ways in which somebody else can delete what is there."""

    def refusing(self) -> AbstractContextManager[Sink]:
        """A sink that can read the place and not write it."""

    def close(self) -> None:
        """Ends what was opened."""


class VaultPlace:
    """A KV secret on a real server."""

    def __init__(self, server: OpenBao) -> None:
        self._server = server
        self._path = server.unique("contract/bookings")
        self._sessions: list[VaultSession] = []

    def sink(self, token: str = CANARY_ROOT) -> Sink:
        session = session_with(self._server.address, token)
        self._sessions.append(session)
        return build(VaultPublish(mount="secret", path=self._path), {"main": session})

    def put(self, fields: Fields) -> None:
        self._server.send("POST", f"secret/data/{self._path}", {"data": fields})

    def fields(self) -> Fields | None:
        return self._server.fields(self._path)

    def deletions(self) -> Sequence[Callable[[], None]]:
        return (self._delete, self._destroy, self._forget)

    @contextmanager
    def refusing(self) -> Iterator[Sink]:
        yield self.sink(self._server.token(f'path "secret/data/{self._path}" {{ capabilities = ["read"] }}'))

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _delete(self) -> None:
        self._server.send("DELETE", f"secret/data/{self._path}")

    def _destroy(self) -> None:
        versions = self._server.send("GET", f"secret/metadata/{self._path}")["data"]["versions"]
        self._server.send("PUT", f"secret/destroy/{self._path}", {"versions": [int(version) for version in versions]})

    def _forget(self) -> None:
        self._server.send("DELETE", f"secret/metadata/{self._path}")


class FilePlace:
    """A file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "bookings.json"

    def sink(self) -> Sink:
        return build(FilePublish(path=str(self._path)), {})

    def put(self, fields: Fields) -> None:
        self._path.write_text(json.dumps(fields), encoding="utf-8")

    def fields(self) -> Fields | None:
        if not self._path.exists():
            return None
        fields: Fields = json.loads(self._path.read_bytes())
        return fields

    def deletions(self) -> Sequence[Callable[[], None]]:
        return (self._path.unlink, self._empty)

    @contextmanager
    def refusing(self) -> Iterator[Sink]:
        lock = os.open(self._path.with_name(".bookings.json.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield self.sink()
        finally:
            os.close(lock)

    def close(self) -> None:
        """Nothing is open."""

    def _empty(self) -> None:
        self._path.write_bytes(b"")


class MemoryPlace:
    """What stands in for a sink in unit tests: it has to keep the same contract."""

    def __init__(self) -> None:
        self._place: list[Any] = [0, None]
        self._records: dict[str, tuple[int, Any]] = {}

    def sink(self) -> MemorySink:
        return MemorySink(place=self._place, records=self._records)

    def put(self, fields: Fields) -> None:
        try:
            self.sink().put(parse_document(fields))
        except NotADocumentError:
            self.sink().put(fields)

    def fields(self) -> Fields | None:
        content = self._place[1]
        return dict(content.fields()) if isinstance(content, Document) else content

    def deletions(self) -> Sequence[Callable[[], None]]:
        return (lambda: self.sink().put(None),)

    @contextmanager
    def refusing(self) -> Iterator[Sink]:
        sink = self.sink()
        sink.publish_errors.append(Reason.PERMISSION_DENIED)
        yield sink

    def close(self) -> None:
        """Nothing is open."""


def session_with(address: str, token: str, name: str = "main") -> VaultSession:
    """A session that logs in by this token."""
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    return VaultSession(
        name,
        VaultConfig(address=address, timeout=60.0, auth=auth),
        lambda _: Secret(token),
        wall=time.time,
        on_login=lambda *_: None,
    )
