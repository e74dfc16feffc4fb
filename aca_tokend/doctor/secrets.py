"""Checks whether each reference to a secret resolves. Nothing of a value is told, not even its length."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.config.references import open_to_others, path_of
from aca_tokend.core.config import EnvReference, FileReference, VaultReference, references
from aca_tokend.core.errors import SecretError
from aca_tokend.core.steps import Call
from aca_tokend.doctor.examination import Check
from aca_tokend.doctor.findings import Area
from aca_tokend.sinks.mounts import FILE_POOL, FILE_POOL_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.config.references import SecretResolver
    from aca_tokend.core.config import Config, Reference
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts

RESOLVES = "resolves"


def checks(parts: Parts) -> Iterator[Check]:
    """One for each reference, however many tokens name it."""
    for reference in dict.fromkeys(_references(parts.config)):
        after: tuple[str, ...] = ()
        subject = str(reference)
        if isinstance(reference, VaultReference):
            after = (f"vault.{reference.vault_name}",)
            subject = subject if reference.vault_name == "main" else f"{subject} in vault.{reference.vault_name}"
        examine = partial(_examine, reference=reference, resolver=parts.secrets)
        yield Check(Area.SECRET, subject, (RESOLVES,), examine, after)


def pools(parts: Parts) -> dict[str, int]:
    """The pools that these need: the daemon resolves what it logs in to a Vault with in that Vault's own."""
    found = (parts.secrets.pool(reference) for reference in _references(parts.config))
    return {pool: FILE_POOL_SIZE for pool in found if pool}


def _references(config: Config) -> Iterator[Reference]:
    for vault in config.vault.values():
        for _, value in vault.auth:
            if isinstance(value, EnvReference | FileReference):
                yield value
    for token in config.tokens:
        yield from references(token)


async def _examine(notes: Notes, reference: Reference, resolver: SecretResolver) -> None:
    pool = resolver.pool(reference) or FILE_POOL
    try:
        await Call(pool, lambda: resolver.resolve(reference))
    except SecretError as error:
        # grouped with others that fail alike, so without its name
        notes.error(RESOLVES, error, error.message.removeprefix(f"{reference}: "))
        return
    if isinstance(reference, FileReference) and await Call(pool, lambda: _open_to_others(path_of(reference))):
        fix = "take away what others may do with it: chmod o= FILE"
        notes.warn(RESOLVES, "it resolves, but others than its owner and group can reach the file", fix)
    else:
        notes.ok(RESOLVES, "it resolves")


def _open_to_others(path: str) -> bool:
    try:
        return open_to_others(Path(path).stat())
    except OSError:
        return False  # it was there a moment ago, and was read
