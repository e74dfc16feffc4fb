"""What every reader goes through, whatever it is written in: rotations, a token that dies early, one that expires.

A reader makes one request to the look-alike's API when it is asked to, as an application would. The look-alike refuses
what has expired, and counts.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aca_tokend.demo.stage import DaemonProcess, Stage

ACCOUNT = "bookings"
SECRET_PATH = f"secret/data/aca/{ACCOUNT}"
POLICY = f'path "{SECRET_PATH}" {{ capabilities = ["read"] }}'
VERIFY = 'verify = { path = "/api/control/systems", every = "1s" }'  # no path of any reader
API_PATH = "/api/engine/v2/users/current"
WEBSOCKET_PATH = "/control/websocket"
NO_TOKEN = 0


class Reader(Protocol):
    """One application. `path` is where it makes its requests."""

    path: str

    def ask(self) -> int:
        """Makes one request; its status, NO_TOKEN where it had no token to send."""
        ...

    @property
    def reads(self) -> int | None:
        """How often it read the published document, None where it reads for every request."""
        ...

    @property
    def said(self) -> str:
        """All that it wrote or logged so far."""
        ...


def vault_token_file(stage: Stage) -> Path:
    """A file with a Vault token that may read the account's secret and nothing else."""
    client = stage.bao.client()
    client.sys.create_or_update_policy("reader", POLICY)
    token = client.auth.token.create(policies=["reader"], no_default_policy=True)["auth"]["client_token"]
    return stage.write_secret("reader-vault-token", Secret(token))


def published(stage: Stage) -> dict[str, Any]:
    """The document in the file."""
    document: dict[str, Any] = json.loads(stage.file_of(ACCOUNT).read_bytes())
    return document


def start_daemon(stage: Stage, publish: str = "", *, verify: bool = False) -> DaemonProcess:
    """A daemon that publishes the account's token to OpenBao and to a file, and has done so once.

    `publish` is one more place, as lines of TOML; with `verify` it notices a token that died.
    """
    config = stage.config([ACCOUNT])
    text = config.read_text() + publish
    if verify:
        text = text.replace("[[tokens.publish]]", f"{VERIFY}\n[[tokens.publish]]", 1)
    config.write_text(text)
    daemon = stage.daemon(config)
    daemon.wait_for("token_rotated")
    return daemon


def requests_of(stage: Stage, reader: Reader) -> int:
    """How many requests there were where this reader makes its own."""
    return stage.lookalike.counts().requests.get(reader.path, 0)


def meets_rotations(stage: Stage, readers: Mapping[str, Reader], rotations: int = 3) -> None:
    """No reader is refused while the token is rotated several times; once the last one expired none sends it."""
    daemon = start_daemon(stage)
    answers = {name: Counter[int]() for name in readers}
    tokens = {published(stage)["access_token"]}

    def all_rotated() -> bool:
        for name, reader in readers.items():
            answers[name][reader.ask()] += 1
        tokens.add(published(stage)["access_token"])
        return len(daemon.events("token_rotated")) > rotations

    wait_until(all_rotated, f"{rotations} rotations")

    assert {name: set(seen) for name, seen in answers.items()} == {name: {200} for name in readers}
    assert stage.lookalike.counts().reads_refused == 0
    daemon.terminate()
    expires_at = datetime.fromisoformat(published(stage)["expires_at"])
    wait_until(lambda: datetime.now(UTC) > expires_at, "the end of the last token")
    for name, reader in readers.items():
        before = requests_of(stage, reader)
        assert reader.ask() == NO_TOKEN, f"{name} has a token that has expired"
        assert requests_of(stage, reader) == before, f"{name} sent it"
        assert not [token for token in tokens if token in reader.said], f"{name} shows a token"
    print({name: (seen.total(), readers[name].reads) for name, seen in answers.items()}, len(tokens), "tokens")


def meets_a_dead_token(stage: Stage, readers: Mapping[str, Reader]) -> None:
    """A 401 leads to one more read, and to one more request if that finds another token; else it is the answer."""
    stage.lookalike.levers(lifetime=600.0)
    daemon = start_daemon(stage, verify=True)
    tokens = {published(stage)["access_token"]}
    for name, reader in readers.items():
        assert [reader.ask() for _ in range(5)] == [200] * 5, name
        assert reader.reads in {1, None}, f"{name} does not keep the token until refresh_after"

    log_out(stage)
    daemon.wait_for("token_rotated", 2)
    tokens.add(published(stage)["access_token"])
    for name, reader in readers.items():
        before = requests_of(stage, reader)
        assert reader.ask() == 200, name
        # one that reads for every request has the new token at once
        assert requests_of(stage, reader) - before == (1 if reader.reads is None else 2), name
        assert reader.reads in {2, None}, name

    daemon.terminate()
    log_out(stage)
    for name, reader in readers.items():
        for times in (1, 2):
            before = requests_of(stage, reader)
            assert reader.ask() == 401, name
            assert requests_of(stage, reader) - before == 1, f"{name} repeats what was refused"
            assert reader.reads in {2 + times, None}, name
        assert not [token for token in tokens if token in reader.said], f"{name} shows a token"


def log_out(stage: Stage) -> None:
    """Kills the account's tokens, and waits for the second to pass in which new ones would be dead too."""
    stage.lookalike.log_out(ACCOUNT)
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second, "the next second")


def here(example: str, stage: Stage) -> str:
    """The text of an example with the addresses and paths of a stage in place of those that it names."""
    for shown, real in {
        "/run/aca/bookings.json": str(stage.file_of(ACCOUNT)),
        "/run/vault/token": str(vault_token_file(stage)),
        "https://vault.example.com:8200": stage.bao.address,
        "https://aca.example.com": stage.lookalike.url,
        "wss://aca.example.com": stage.lookalike.url.replace("http", "ws", 1),
    }.items():
        example = example.replace(shown, real)
    return example
