"""The Python snippets: httpx with a file or with OpenBao, in threads and in asyncio, and the realtime API."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aca_realtime
import aca_token
import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.readers.scenario import (
    ACCOUNT,
    API_PATH,
    NO_TOKEN,
    SECRET_PATH,
    WEBSOCKET_PATH,
    here,
    meets_a_dead_token,
    meets_rotations,
    start_daemon,
    vault_token_file,
)
from tests.readers.snippets import READERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aca_tokend.demo.stage import Stage


class PythonReader:
    """A reader in this process. `request` makes a request with the token and returns its status."""

    def __init__(
        self,
        read: Callable[[], dict[str, Any]],
        request: Callable[[aca_token.AcaToken], int],
        log: pytest.LogCaptureFixture,
        path: str = API_PATH,
    ) -> None:
        self.path = path
        self.reads = 0
        self._read = read
        self._request = request
        self._log = log
        self._token = aca_token.AcaToken(self._counted)

    def _counted(self) -> dict[str, Any]:
        self.reads += 1
        return self._read()

    def ask(self) -> int:
        try:
            return self._request(self._token)
        except aca_token.NoTokenError:
            return NO_TOKEN

    @property
    def said(self) -> str:
        return self._log.text + repr(vars(self._token))


@pytest.fixture
def readers(stage: Stage, caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, PythonReader]]:
    """A reader for each way to use the snippets."""
    caplog.set_level(logging.DEBUG)
    url = stage.lookalike.url
    with ExitStack() as stack:
        vault = stack.enter_context(httpx.Client(base_url=stage.bao.address, timeout=5, trust_env=False))
        http = stack.enter_context(httpx.Client(base_url=url, trust_env=False))
        # the look-alike leaves the body of a request unread, which spoils the connection for the next one
        unkept = stack.enter_context(
            httpx.Client(base_url=url, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        )

        def call(token: aca_token.AcaToken) -> int:
            return http.get(API_PATH, auth=token).status_code

        def send_a_stream(token: aca_token.AcaToken) -> int:
            return unkept.request("GET", API_PATH, auth=token, content=iter([b"a", b"b"])).status_code

        def call_in_asyncio(token: aca_token.AcaToken) -> int:
            async def once() -> int:
                async with httpx.AsyncClient(base_url=url, auth=token, trust_env=False) as client:
                    return (await client.get(API_PATH)).status_code

            return asyncio.run(once())

        def speak(token: aca_token.AcaToken) -> int:
            try:
                with aca_realtime.connected(token, url.replace("http", "ws", 1) + WEBSOCKET_PATH) as websocket:
                    websocket.send("ping")
                    return 200 if websocket.recv(timeout=60) == "ping" else 500
            except InvalidStatus as error:
                return error.response.status_code

        file = aca_token.from_file(str(stage.file_of(ACCOUNT)))
        secret = aca_token.from_vault(vault, SECRET_PATH, str(vault_token_file(stage)))
        yield {
            "file": PythonReader(file, call, caplog),
            "OpenBao": PythonReader(secret, call, caplog),
            "stream": PythonReader(file, send_a_stream, caplog),
            "asyncio": PythonReader(file, call_in_asyncio, caplog),
            "websocket": PythonReader(secret, speak, caplog, WEBSOCKET_PATH),
        }


def test_rotations(stage: Stage, readers: dict[str, PythonReader]) -> None:
    """No reader in Python is refused while tokens are rotated, and none sends one that has expired."""
    meets_rotations(stage, readers)


def test_dead_token(stage: Stage, readers: dict[str, PythonReader]) -> None:
    """A reader in Python meets a 401 with one read and, where there is another token, with one request."""
    meets_a_dead_token(stage, readers)


def test_examples(stage: Stage) -> None:
    """The examples in Python run as they are shown."""
    start_daemon(stage)
    for example, answer in {
        "python/example.py": ACCOUNT,
        "python/example_vault.py": ACCOUNT,
        "websocket/example_websocket.py": "ping",
    }.items():
        text = here((READERS / example).read_text(), stage)
        path = os.pathsep.join(str(READERS / folder) for folder in ("python", "websocket"))
        done = subprocess.run(
            [sys.executable, "-"], input=text, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert answer in done.stdout, done.stderr


def document(name: str, *, expires_in: float, refresh_in: float) -> dict[str, str]:
    """What is published, as far as a reader looks at it."""
    now = datetime.now(UTC)
    return {
        "access_token": name,
        "authorization": f"Bearer {name}",
        "expires_at": (now + timedelta(seconds=expires_in)).isoformat(),
        "refresh_after": (now + timedelta(seconds=refresh_in)).isoformat(),
    }


def test_place_that_cannot_be_read() -> None:
    """While the place cannot be read a token is used until it expires; a reader without one says why it has none."""
    published: list[dict[str, str]] = [document("first", expires_in=600, refresh_in=-1)]
    token = aca_token.AcaToken(lambda: published[0])
    assert token.current().access_token == "first"

    published.clear()
    assert token.current().access_token == "first"
    assert token.other_than(token.current()) is None
    with pytest.raises(aca_token.NoTokenError, match="no token can be read: IndexError"):
        aca_token.AcaToken(lambda: published[0]).current()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"expires_at": 5}', "null"])
def test_place_with_something_else(tmp_path: Path, content: str) -> None:
    """What is no document counts as no token, whatever it is."""
    file = tmp_path / "bookings.json"
    file.write_text(content)
    with pytest.raises(aca_token.NoTokenError, match="no token can be read"):
        aca_token.AcaToken(aca_token.from_file(str(file))).current()


def test_wrong_address_of_a_websocket() -> None:
    """An address that is none of a websocket is named without the token."""
    token = aca_token.AcaToken(lambda: document("canary-token-5d1e", expires_in=600, refresh_in=500))
    with (
        pytest.raises(ValueError, match="no address of a websocket: ftp://aca") as raised,
        aca_realtime.connected(token, "ftp://aca.example.com/control/websocket"),
    ):
        pass
    assert "canary" not in "".join(traceback.format_exception(raised.value))
