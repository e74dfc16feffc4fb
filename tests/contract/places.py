"""The places of the contract suite: each sink with the hand of somebody else who reads, writes and deletes there."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from aca_tokend.core.config import (
    DirectoryPublish,
    EnvReference,
    FilePublish,
    FormatConfig,
    TokenAuth,
    VaultConfig,
    VaultPublish,
)
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import FIELDS, Document, NotADocumentError, parse_document
from aca_tokend.sinks import build
from aca_tokend.vault.session import VaultSession
from tests.contract.conftest import CANARY_ROOT
from tests.fakes import MemorySink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aca_tokend.core.formats import Format
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


class Vault1Place:
    """A KV version 1 secret on a real server: nothing there tells what came since a look."""

    def __init__(self, server: OpenBao) -> None:
        self._server = server
        self._path = server.unique("contract/bookings")
        self._mount = server.kv1()
        self._sessions: list[VaultSession] = []

    def sink(self, token: str = CANARY_ROOT) -> Sink:
        session = session_with(self._server.address, token)
        self._sessions.append(session)
        return build(VaultPublish(mount=self._mount, path=self._path, kv_version=1), {"main": session})

    def put(self, fields: Fields) -> None:
        # the engine takes no empty secret
        self._server.send("PUT", f"{self._mount}/{self._path}", fields or {"mine": "nothing"})

    def fields(self) -> Fields | None:
        answer = self._server.send("GET", f"{self._mount}/{self._path}")
        return answer["data"] if answer else None

    def deletions(self) -> Sequence[Callable[[], None]]:
        return (self._delete,)

    @contextmanager
    def refusing(self) -> Iterator[Sink]:
        yield self.sink(self._server.token(f'path "{self._mount}/{self._path}" {{ capabilities = ["read"] }}'))

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _delete(self) -> None:
        self._server.send("DELETE", f"{self._mount}/{self._path}")


# All fields, in a form that no sink can read back: it has to remember what it wrote.
TEMPLATE = (
    "<" + "".join(f"{{% if {field} is not none %}}{field}={{{{ {field} }}}};{{% endif %}}" for field in FIELDS) + ">"
)


class FilePlace:
    """A file, in a format that says all of the document."""

    def __init__(self, directory: Path, form: Format = "json") -> None:
        self._path = directory / "bookings.json"
        self._format = form

    def sink(self) -> Sink:
        template = TEMPLATE if self._format == "template" else ""
        return build(FilePublish(path=str(self._path), format=self._format, template=template), {})

    def put(self, fields: Fields) -> None:
        self._path.write_text(json.dumps(fields), encoding="utf-8")

    def fields(self) -> Fields | None:
        if not self._path.exists():
            return None
        text = self._path.read_text("utf-8")
        match "json" if text.startswith("{") else self._format:
            case "env":
                pairs = [shlex.split(line)[0].removeprefix("ACA_").split("=", 1) for line in text.splitlines()]
            case "template":
                pairs = [pair.split("=", 1) for pair in text.strip("<;>").split(";")]
            case _:
                fields: Fields = json.loads(text)
                return fields
        values = {name.lower(): value for name, value in pairs}
        return values | {"expires_in": int(values["expires_in"])}

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


class DirectoryPlace:
    """A directory with several files, read as one."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "bookings"
        self._path.mkdir()

    def sink(self) -> Sink:
        files = {"all.json": FormatConfig(), "token": FormatConfig(format="token"), "h": FormatConfig(format="header")}
        return build(DirectoryPublish(path=str(self._path), files=files), {})

    def put(self, fields: Fields) -> None:
        folder = f"..7-{secrets.token_hex(8)}"
        (self._path / folder).mkdir()
        (self._path / folder / ".document.json").write_text(json.dumps(fields), "utf-8")
        (self._path / folder / "all.json").write_text(json.dumps(fields), "utf-8")
        (self._path / "link").symlink_to(folder)
        (self._path / "link").rename(self._path / "..data")

    def fields(self) -> Fields | None:
        data = self._path / "..data"
        if not data.is_symlink():
            return None
        target = data.readlink()
        try:
            with self._opened(data) as folder:
                read = {name: self._read(name, folder) for name in os.listdir(folder)}  # noqa: PTH208
        except FileNotFoundError:
            read = {}
        if not data.is_symlink() or data.readlink() != target:
            return self.fields()  # two swaps since the folder was opened, as no daemon makes them: parts of it are gone
        if not read:
            return None
        fields: Fields = json.loads(read["all.json"])
        if "token" in read:
            assert read["token"] == fields["access_token"]
            assert read["h"] == f"Authorization: {fields['authorization']}\n"
        return fields

    def deletions(self) -> Sequence[Callable[[], None]]:
        return (self._path.joinpath("..data").unlink, self._empty)

    @contextmanager
    def refusing(self) -> Iterator[Sink]:
        with (self._path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.sink()

    def close(self) -> None:
        """Nothing is open."""

    def _empty(self) -> None:
        for file in (self._path / "..data").iterdir():
            file.unlink()

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        folder = os.open(path, os.O_DIRECTORY)
        try:
            yield folder
        finally:
            os.close(folder)

    def _read(self, name: str, folder: int) -> str:
        file = os.open(name, os.O_RDONLY, dir_fd=folder)
        with os.fdopen(file, encoding="utf-8") as stream:
            return stream.read()


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


# Those of a test, which are closed at its end.
SESSIONS: list[VaultSession] = []


def session_with(address: str, token: str, name: str = "main") -> VaultSession:
    """A session that logs in by this token."""
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    session = VaultSession(
        name,
        VaultConfig(address=address, timeout=60.0, auth=auth),
        lambda _: Secret(token),
        wall=time.time,
        on_login=lambda *_: None,
    )
    SESSIONS.append(session)
    return session
