"""`aca-tokend resume NAME`: clears the attempt records of an account, for the operator who fixed the server's side.

A running daemon notices by itself: within seconds where a token is published to files alone, else within a minute.
Nothing is asked of the endpoint here.
"""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING

from aca_tokend import sinks
from aca_tokend.core.errors import LookError, PublishError, TokendError
from aca_tokend.core.guard import RECORD
from aca_tokend.secrets import SecretResolver
from aca_tokend.vault import VaultSession

if TYPE_CHECKING:
    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.core.ports import Sink


class UnknownTokenError(TokendError):
    """The configuration has no token of that name."""


def resume(config: Config, name: str) -> tuple[str, ...]:
    """Clears the records of a token, and of the others of its account. Returns, for people, what was cleared.

    Raises:
        UnknownTokenError: there is no such token.
        LookError, PublishError: no record can be read and written.
    """
    token = _find(config, name)
    vaults: dict[str, VaultSession] = {}
    secrets = SecretResolver(vaults)
    for vault_name, vault in config.vault.items():
        vaults[vault_name] = VaultSession(
            vault_name, vault, secrets.resolve, wall=time.time, on_login=lambda *_told: None
        )
    said, errors = [], []
    try:
        for publish in (publish for it in config.tokens if _account(it) == _account(token) for publish in it.publish):
            sink = sinks.build(publish, vaults)
            try:
                said.append(_clear(sink))
            except (LookError, PublishError) as error:
                errors.append(error)
                said.append(f"{sink.name}: {RECORD} not cleared: {error.message}")
        if len(errors) == len(said):
            raise errors[0]
        return tuple(said)
    finally:
        for session in vaults.values():
            session.close()


def _find(config: Config, name: str) -> TokenConfig:
    for token in config.tokens:
        if token.name == name:
            return token
    near = difflib.get_close_matches(name, [token.name for token in config.tokens], 1)
    hint = f"did you mean {near[0]}?" if near else "`aca-tokend check` tells how many tokens there are"
    message = f"there is no token {name!r} in this configuration; {hint}"
    raise UnknownTokenError(message)


def _account(token: TokenConfig) -> tuple[object, ...]:
    return (token.acaengine, token.authority, token.username, token.client_id)


def _clear(sink: Sink) -> str:
    """Leaves an empty record: one that is not there tells nothing, and would be no permission."""
    seen = sink.read_record(RECORD)
    if seen.fields is None or seen.fields:
        sink.write_record(RECORD, {}, seen.stamp)
    return f"{sink.name}: {RECORD} cleared" if seen.fields else f"{sink.name}: {RECORD} was clear already"
