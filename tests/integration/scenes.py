"""Configurations put together token by token, and readers that no trouble of another token may ever have refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.demo.stage import CLIENT_ID, HEAD, Settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aca_tokend.demo.reader import Reader
    from aca_tokend.demo.stage import Stage

# Tokens are rotated every 2 seconds; the 18 that are left are for a slow machine, for restarts and for timeouts.
LIFETIME = 20.0
ROTATED_EVERY = 2.0


def quick(lifetime: float = LIFETIME) -> str:
    """The `[rotation]` of tokens that live so many seconds."""
    backoff = 'backoff = { initial = "200ms", cap = "1s" }'
    return f'fraction = {ROTATED_EVERY / lifetime:g}\nmin_interval = "1s"\nassumed_lifetime = "1h"\n{backoff}\n'


def to_file(path: Path) -> str:
    """A file as a place to publish to."""
    return f'[[tokens.publish]]\nto = "file"\npath = "{path}"\n'


def to_vault(name: str) -> str:
    """The secret of that name as a place to publish to, which `Stage.vault_reader` reads."""
    return f'[[tokens.publish]]\nto = "vault"\nmount = "secret"\npath = "aca/{name}"\n'


def endpoint(name: str, url: str, **keys: str) -> str:
    """A further `[acaengine.NAME]`. Further keys are given as they stand in TOML."""
    return f'[acaengine.{name}]\nurl = "{url}"\n' + "".join(f"{key} = {value}\n" for key, value in keys.items())


def token(stage: Stage, name: str, *places: str, **keys: str) -> str:
    """A token whose user has its name; the server knows that user. Other keys are given as they stand in TOML."""
    stage.add_accounts([name])
    defaults = {
        "name": f'"{name}"',
        "authority": '"authority-1"',
        "username": f'"{name}"',
        "password": f'{{ file = "{stage.directory}/{name}.password" }}',
        "client_id": f'"{CLIENT_ID}"',
        "client_secret": f'{{ file = "{stage.directory}/client-secret" }}',
        "scope": '"public"',
    }
    lines = "".join(f"{key} = {value}\n" for key, value in (defaults | keys).items())
    return f"[[tokens]]\n{lines}{''.join(places)}"


def configure(stage: Stage, *parts: str, settings: Settings | None = None) -> Path:
    """Writes a configuration of these endpoints and tokens, in this order. The endpoint `main` is the look-alike."""
    settings = settings or Settings(rotation=quick())
    head = HEAD.format(
        url=stage.lookalike.url,
        address=stage.bao.address,
        endpoint=settings.endpoint,
        vault=settings.vault,
        auth=f'method = "token", token = {{ file = "{stage.directory}/vault-token" }}',
        rotation=settings.rotation,
    )
    path = stage.directory / f"config{settings.suffix}.toml"
    path.write_text(head + "\n".join(parts))
    return path


def assert_served(readers: Sequence[Reader], *, tokens: int) -> None:
    """Waits until each reader has met so many further tokens, and asserts that the API has refused none of them."""
    begun = {reader.name: reader.tokens for reader in readers}

    def over() -> bool:
        late = [reader for reader in readers if reader.tokens < begun[reader.name] + tokens]
        return not late or any(reader.refused or not reader.running for reader in readers)

    wait_until(over, f"{tokens} further tokens for each of {', '.join(begun)}")
    assert_never_refused(readers)


def assert_never_refused(readers: Sequence[Reader]) -> None:
    """No reader ever met a 401, and every one of them still reads."""
    refusals = {
        reader.name: f"{reader.refused} of {reader.refused + reader.accepted} calls refused: {reader.last_refusal}"
        for reader in readers
        if reader.refused
    }
    assert not refusals, refusals
    ended = [reader.name for reader in readers if not reader.running]
    assert not ended, ended
