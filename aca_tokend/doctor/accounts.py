"""With `--grant`: one real attempt for each account, within the lockout guard, whose records count it.

The way is the daemon's own (granting.py), so that however many doctors and daemons run, no account is locked. What was
granted is tried where the configuration says so, and then forgotten: it is neither published nor shown.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import VaultPublish, VaultReference
from aca_tokend.core.durations import format_duration
from aca_tokend.core.errors import VerifyError
from aca_tokend.core.guard import Rules
from aca_tokend.core.outcome import Failure, Reason
from aca_tokend.core.steps import Call
from aca_tokend.credentials import Resolver, endpoint_pool, references
from aca_tokend.doctor.examination import Check, advice
from aca_tokend.doctor.findings import Area
from aca_tokend.granting import Granter
from aca_tokend.guarding import Guard, Wait
from aca_tokend.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import Config, TokenConfig
    from aca_tokend.core.ports import Clock
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts
    from aca_tokend.state import TokenState

GRANT, VERIFY = "grant", "verify"
# What reading and writing the attempt record may take beside the request itself.
RECORD_SECONDS = 3.0
# So many at a time wait, for so long, until another account has shown whether their client is known.
PAUSE_POOL, PAUSING, PAUSE_SECONDS = "pause", 32, 0.05
_WAITS = {
    "claimed_elsewhere": "another process is trying it at this moment",
    "endpoint_held": "the endpoint failed for the accounts before it",
}


@dataclass(slots=True)
class Tries:
    """How attempts are made. One that is begun must be made, so none is once too little is left until `end`.

    `refused` has the clients that were refused and `trying` those that are being tried, each with the token it is for.
    """

    granter: Granter
    clock: Clock
    end: float
    refused: dict[int, str] = field(default_factory=dict)
    trying: dict[int, str] = field(default_factory=dict)

    async def grant(self, state: TokenState, seconds: float) -> Failure | Wait | None:
        """One attempt. A client that is not proven is tried for one account at a time; the others wait here."""
        client = id(state.client)
        while True:
            if client in self.refused:
                return Wait(f"its client was refused for {self.refused[client]}", 0.0)
            if self.clock.monotonic() + seconds + RECORD_SECONDS > self.end:
                return Wait("too little time is left for a whole attempt; call the doctor again", 0.0)
            # the guard does the same, but lets the next one go before it is known here how this one ended
            if state.client.ledger.proven or self.trying.setdefault(client, state.name) == state.name:
                outcome = await self.granter.grant(state)
                if isinstance(outcome, Failure) and outcome.reason is Reason.INVALID_CLIENT:
                    self.refused.setdefault(client, state.name)
                if self.trying.get(client) == state.name:
                    del self.trying[client]
                if not (isinstance(outcome, Wait) and outcome.why == "client_unproven"):
                    return outcome
            # in a pool of its own: who waits for another account holds no thread of the endpoint
            await Call(PAUSE_POOL, lambda: time.sleep(PAUSE_SECONDS))


def checks(parts: Parts, config: Config, clock: Clock, end: float) -> Iterator[Check]:
    """One for each account, however many tokens it has. `config` is that of the daemons, with their timeouts."""
    guard = Guard(clock, Records(clock), _nobody)
    granter = Granter(clock, Resolver(parts.secrets), random.SystemRandom(), _nobody, _nobody, guard)
    tries = Tries(granter, clock, end)
    # every token has its state, since the first of a client says where its record lies
    states = {token.name: parts.state(token) for token in parts.config.tokens}
    for token in config.tokens:
        # how long a daemon's request may be under way: its claim is not to be taken for one that was left behind
        states[token.name].rules = Rules.of(token.rotation, config.acaengine[token.acaengine].timeout)
    accounts = _accounts(parts.config)
    # where there is no time for all of them, another call begins with others
    start = tries.granter.rng.randrange(len(accounts) or 1)
    for token in accounts[start:] + accounts[:start]:
        state, pool = states[token.name], endpoint_pool(states[token.name].endpoint)
        examine = partial(_examine, state=state, tries=tries, seconds=parts.config.acaengine[token.acaengine].timeout)
        steps = (GRANT, VERIFY) if token.verify else (GRANT,)
        yield Check(Area.ACCOUNT, token.name, steps, examine, after=(pool, *_vaults(token)), lane=pool)


def _accounts(config: Config) -> list[TokenConfig]:
    """The first token of each account."""
    accounts: dict[tuple[object, ...], TokenConfig] = {}
    for token in config.tokens:
        values = (token.authority, token.username, token.password, token.client_id, token.client_secret)
        accounts.setdefault((token.acaengine, *values), token)
    return list(accounts.values())


def _vaults(token: TokenConfig) -> list[str]:
    """The Vaults that an attempt needs: where its record lies, and where references lead."""
    names = {it.vault_name for it in references(token) if isinstance(it, VaultReference)}
    names |= {it.vault_name for it in token.publish[:1] if isinstance(it, VaultPublish)}
    return [f"vault.{name}" for name in sorted(names)]


async def _examine(notes: Notes, state: TokenState, tries: Tries, seconds: float) -> None:
    verify = state.config.verify
    # it is tried below, where what went wrong can be told
    state.config = state.config.model_copy(update={"verify": None})
    outcome = await tries.grant(state, seconds)
    if isinstance(outcome, Wait):
        notes.skipped(GRANT, f"not tried: {_WAITS.get(outcome.why, outcome.why)}")
    elif isinstance(outcome, Failure):
        _tell_failure(notes, state, outcome)
    document, state.document, state.granted = state.document, None, None
    if document is None:
        return
    lifetime = (document.expires_at - document.issued_at).total_seconds()
    granted, longest = f"granted for {format_duration(round(lifetime))}", state.config.rotation.max_lifetime
    if lifetime > longest:
        detail = (
            f"{granted}, longer than max_lifetime, {format_duration(longest)}: each start and each replica asks anew"
        )
        notes.warn(GRANT, detail, "raise max_lifetime of [rotation], or have the server grant for a shorter time")
    else:
        notes.ok(GRANT, granted)
    if verify is not None:
        try:
            await Call(endpoint_pool(state.endpoint), lambda: state.endpoint.verify(verify.path, document.access_token))
            notes.ok(VERIFY, "the token works")
        except VerifyError as error:
            notes.error(VERIFY, error)


def _tell_failure(notes: Notes, state: TokenState, failure: Failure) -> None:
    fix = advice(failure.reason)
    if not failure.rejected:
        notes.failed(GRANT, failure.message, fix)
        return
    ledger = state.client.ledger if failure.reason is Reason.INVALID_CLIENT else state.ledger
    spent = max((entry.spent for entry in ledger.record.entries[:1]), default=0)
    if state.requested:
        detail = f"{failure.message}; {spent} of {state.rules.max_rejections} attempts are spent"
    else:
        detail = f"not tried, because no attempt is left: it was refused before ({failure.reason})"
    if failure.suspends and "resume" not in fix:
        fix += f"; if it was the server's side that was mended, call `aca-tokend resume {state.name}`"
    notes.failed(GRANT, detail, fix)


def _nobody(_told: object) -> None:
    """Nobody waits for what an attempt tells beside its outcome."""
