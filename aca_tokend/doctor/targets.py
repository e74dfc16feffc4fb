"""What a start will do with what is at each place, file or secret, judged as the daemon does. Nothing is written."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import DirectoryPublish, FilePublish, VaultPublish
from aca_tokend.core.errors import LookError, SecretError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.doctor.examination import Check, advice
from aca_tokend.doctor.findings import Area
from aca_tokend.doctor.vaults import log_ins
from aca_tokend.rotation.credentials import Resolver
from aca_tokend.rotation.reconfigure import begin
from aca_tokend.rotation.standing import Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import AnyPublish
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts
    from aca_tokend.rotation.managed import Wiring

TARGET, RECORD = "target", "attempt record"
# Earlier versions kept one for each client, beside the first place of its first token.
CLIENT_RECORD = "client-attempts"
# What the checks of owner, policy and KV version say better.
_TOLD = {"file": {Reason.OWNER_NOT_SET}, "vault": {Reason.PERMISSION_DENIED, Reason.MOUNT_MISSING}}


def checks(parts: Parts) -> Iterator[Check]:
    """One for each place. For a file, `directory` and `owner` of it come first."""
    resolver, clients = Resolver(parts.secrets), set()
    for token in parts.config.tokens:
        wiring, client = parts.wire(token), (token.acaengine, token.client_id)
        for number, (place, sink) in enumerate(zip(token.publish, wiring.sinks, strict=True)):
            in_vault = isinstance(place, VaultPublish)
            area, subject = (Area.VAULT, sink.name) if in_vault else (Area.FILE, place.path)
            after = log_ins(place, token.username, token.client_id) + (() if in_vault else (subject,))
            first = not number and client not in clients
            examine = partial(_examine, wiring=wiring, number=number, resolver=resolver, first=first)
            yield Check(area, subject, (TARGET,), examine, after)
        clients.add(client)


async def _examine(notes: Notes, wiring: Wiring, number: int, resolver: Resolver, *, first: bool) -> None:
    sink, place = wiring.sinks[number], wiring.config.publish[number]
    await _target(notes, wiring, number, resolver)
    if first:
        with suppress(LookError):  # a policy for this version does not name it
            record = await Call(sink.pool, lambda: sink.read_record(CLIENT_RECORD))
            if record.fields is not None:
                detail = "of an earlier version: nothing reads it any more, and it can be removed"
                notes.also(_record_of(place)).ok(RECORD, detail)


async def _target(notes: Notes, wiring: Wiring, number: int, resolver: Resolver) -> None:
    sink = wiring.sinks[number]
    try:
        seen = await Call(sink.pool, sink.look)
        identity = await resolver.identify(wiring.config, wiring.endpoint, 0.0, 0.0)
    except SecretError:
        notes.skipped(TARGET, "whose token it should be cannot be resolved")
        return
    except LookError as error:
        if error.reason in _TOLD[sink.kind]:
            notes.skipped(TARGET, f"it cannot be read ({error.reason}), which another check tells of")
        else:
            notes.error(TARGET, error, error.message.removeprefix(f"{sink.name.partition(':')[2]}: "))
        return
    facts = begin(wiring, 0.0)._replace(identity=identity).with_place(number, seen=seen)
    match standing(facts, number):
        case Standing.EMPTY:
            notes.ok(TARGET, "nothing is there yet")
        case Standing.FORMER:
            notes.ok(TARGET, f"will be replaced: {seen.foreign or 'it holds the token of another account'}")
        case Standing.STRANGER:
            document = seen.document
            of_another = f"the token of another {'name' if document and document.token else 'account'}"
            why = f"this token did not write what is there: {seen.foreign or of_another}"
            notes.warn(TARGET, f"will not be replaced: {why}", advice(Reason.FOREIGN_DOCUMENT))
        case _:
            notes.ok(TARGET, "holds a token")


def _record_of(place: AnyPublish) -> str:
    """Where the record of a client was kept beside this place, as people name it."""
    match place:
        case FilePublish():
            directory, _, name = place.path.rpartition("/")
            return f"{directory}/.{name}.{CLIENT_RECORD}"
        case DirectoryPublish():
            return f"{place.path}/.{CLIENT_RECORD}"
        case _:
            return f"{place.mount}/{place.path}.{CLIENT_RECORD}"
