"""What a start will do with what is at each place, file or secret, judged as the daemon does. Nothing is written."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import VaultPublish
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

    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts
    from aca_tokend.rotation.managed import Wiring

TARGET = "target"
# What the checks of owner, policy and KV version say better.
_TOLD = {"file": {Reason.OWNER_NOT_SET}, "vault": {Reason.PERMISSION_DENIED, Reason.MOUNT_MISSING}}


def checks(parts: Parts) -> Iterator[Check]:
    """One for each place. For a file, `directory` and `owner` of it come first."""
    resolver = Resolver(parts.secrets)
    for token in parts.config.tokens:
        wiring = parts.wire(token)
        for number, (place, sink) in enumerate(zip(token.publish, wiring.sinks, strict=True)):
            in_vault = isinstance(place, VaultPublish)
            area, subject = (Area.VAULT, sink.name) if in_vault else (Area.FILE, place.path)
            after = log_ins(place, token.username, token.client_id) + (() if in_vault else (subject,))
            examine = partial(_examine, wiring=wiring, number=number, resolver=resolver)
            yield Check(area, subject, (TARGET,), examine, after)


async def _examine(notes: Notes, wiring: Wiring, number: int, resolver: Resolver) -> None:
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
