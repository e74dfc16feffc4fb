"""`aca-tokend resume NAME`: clears the attempt records of a token, for the operator who mended the server's side.

A running daemon notices by itself: within seconds where the token's first sink is a file, within a minute where it is
in Vault. Nothing is asked of the endpoint here.
"""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING

from aca_tokend import sinks
from aca_tokend.core.errors import TokendError
from aca_tokend.core.guard import CLIENT_RECORD, TOKEN_RECORD
from aca_tokend.core.shards import shard_of, share
from aca_tokend.secrets import SecretResolver
from aca_tokend.vault import VaultSession

if TYPE_CHECKING:
    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.core.ports import Sink


class UnknownTokenError(TokendError):
    """The configuration has no token of that name."""


def resume(config: Config, name: str) -> tuple[str, ...]:
    """Clears the records of a token and of its client. Returns, for people, what was cleared.

    Raises:
        UnknownTokenError: there is no such token.
        LookError, PublishError: a record cannot be read or written.
    """
    token = _find(config, name)
    vaults: dict[str, VaultSession] = {}
    secrets = SecretResolver(vaults)
    for vault_name, vault in config.vault.items():
        vaults[vault_name] = VaultSession(
            vault_name, vault, secrets.resolve, wall=time.time, on_login=lambda *_told: None
        )
    # The record of a client lives beside the first token of it, in each shard: shared.py says so.
    ours = share(config, shard_of(name, config.shard.count) if config.shard else 0)
    first = next(it for it in ours.tokens if (it.acaengine, it.client_id) == (token.acaengine, token.client_id))
    try:
        places = ((token, TOKEN_RECORD), (first, CLIENT_RECORD))
        return tuple(_clear(sinks.build(it.publish[0], vaults), record) for it, record in places)
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


def _clear(sink: Sink, record: str) -> str:
    seen = sink.read_record(record)
    if not seen.fields:
        return f"{sink.name}: {record} was clear already"
    sink.write_record(record, {}, seen.stamp)
    return f"{sink.name}: {record} cleared"
