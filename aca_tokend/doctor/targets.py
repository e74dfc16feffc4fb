"""Checks of what each place holds: what a start of the daemon will do there. Nothing of a token is shown."""

from __future__ import annotations

import posixpath
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import DirectoryPublish, VaultPublish, VaultReference
from aca_tokend.core.errors import LookError, SecretError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.core.vault_policy import kv_path
from aca_tokend.doctor.examination import Check, advice
from aca_tokend.doctor.findings import Area
from aca_tokend.rotation.credentials import Resolver
from aca_tokend.rotation.reconfigure import begin
from aca_tokend.rotation.standing import Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import AnyPublish, TokenConfig
    from aca_tokend.core.token import Seen
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts
    from aca_tokend.rotation.facts import Facts
    from aca_tokend.rotation.managed import Wiring

TARGET, OLD = "target", "old record"
# Earlier versions kept the attempts with a client beside the first place of its first token.
OLD_RECORD = "client-attempts"
RENAMED = "if this token was renamed, give it its old name back; else "


def checks(parts: Parts) -> Iterator[Check]:
    """One for each place of each token."""
    resolver, clients = Resolver(parts.secrets), set[object]()
    for token in parts.config.tokens:
        wiring, client = parts.wire(token), (token.acaengine, token.client_id)
        for number, publish in enumerate(token.publish):
            in_vault = isinstance(publish, VaultPublish)
            old = number == 0 and client not in clients
            subject = beside(publish) if in_vault else publish.path
            after = _vaults(token, publish) if in_vault else (publish.path, *_vaults(token, publish))
            examine = partial(_examine, wiring=wiring, number=number, resolver=resolver, old=old)
            yield Check(
                Area.VAULT if in_vault else Area.FILE,
                subject,
                (TARGET,),
                examine,
                after,
                lane=wiring.sinks[number].pool,
            )
        clients.add(client)


def beside(publish: AnyPublish, record: str = "") -> str:
    """Where a token is published to, or what is kept beside it under this name."""
    if isinstance(publish, VaultPublish):
        return kv_path(publish.mount, f"{publish.path}.{record}" if record else publish.path, publish.kv_version)
    if isinstance(publish, DirectoryPublish):
        return f"{publish.path}/.{record}"
    directory, name = posixpath.split(publish.path)
    return f"{directory}/.{name}.{record}"


def _vaults(token: TokenConfig, publish: AnyPublish) -> tuple[str, ...]:
    """The Vaults that it takes to read a place and to know whose token belongs there."""
    names = {it.vault_name for it in (token.username, token.client_id) if isinstance(it, VaultReference)}
    names |= {publish.vault_name} if isinstance(publish, VaultPublish) else set()
    return tuple(f"vault.{name}" for name in sorted(names))


async def _examine(notes: Notes, wiring: Wiring, number: int, resolver: Resolver, *, old: bool) -> None:
    facts, sink, publish = begin(wiring, 0.0), wiring.sinks[number], wiring.config.publish[number]
    try:
        seen = await Call(sink.pool, sink.look)
    except LookError as error:
        if error.reason is Reason.OWNER_NOT_SET:
            notes.skipped(TARGET, "because owner failed")
        elif error.reason is Reason.PERMISSION_DENIED and isinstance(publish, VaultPublish):
            notes.skipped(TARGET, "our policy does not let us read it")
        else:
            notes.error(TARGET, error, error.message.removeprefix(f"{publish.path}: "))
        return
    try:
        identity = await resolver.identify(wiring.config, wiring.endpoint, 0.0, 0.0)
        facts = facts._replace(identity=identity)
    except SecretError:
        pass  # a check of its own; whose place it is goes by the name alone
    _tell(notes, facts.with_place(number, seen=seen), number, seen)
    if old:
        await _old_record(notes, wiring, publish)


def _tell(notes: Notes, facts: Facts, number: int, seen: Seen) -> None:
    """What a start will do with what is there."""
    match standing(facts, number):
        case Standing.STRANGER if seen.document is not None:
            detail = "it holds a token that was written under another name, or for another account"
            notes.failed(TARGET, detail, RENAMED + advice(Reason.FOREIGN_DOCUMENT))
        case Standing.STRANGER:
            detail = f"this token did not write what is there: {seen.foreign}"
            notes.failed(TARGET, detail, advice(Reason.FOREIGN_DOCUMENT))
        case Standing.FORMER if seen.document is not None and facts.identity is None:
            notes.ok(TARGET, "holds a token under this name")
        case Standing.FORMER if seen.document is not None:
            detail = "holds the token of another account, which a start replaces"
            notes.warn(TARGET, detail, "nothing, if its user name, client, authority or host was to change")
        case Standing.FORMER:
            notes.warn(
                TARGET, f"a start replaces what is there: {seen.foreign}", "nothing, if it is this token's place"
            )
        case Standing.EMPTY:
            notes.ok(TARGET, "nothing is there yet")
        case _:
            notes.ok(TARGET, "holds a token")


async def _old_record(notes: Notes, wiring: Wiring, publish: AnyPublish) -> None:
    """A record that nothing reads any more; where our policy does not let us see it, nobody misses that."""
    sink = wiring.sinks[0]
    try:
        found = await Call(sink.pool, lambda: sink.read_record(OLD_RECORD))
    except LookError:
        return
    if found.fields is not None:
        notes.also(beside(publish, OLD_RECORD)).ok(OLD, "of an earlier version, read by nothing: it can be removed")
