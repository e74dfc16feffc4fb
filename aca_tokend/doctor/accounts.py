"""With `--grant`: one real attempt for each account, within the lockout guard, whose records count it.

The way is the daemon's own (rotation/grant.py), so that however many doctors and daemons run, no account is locked.
What was granted is tried where the configuration says so, and then forgotten: it is neither published nor shown.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import references
from aca_tokend.core.durations import format_duration
from aca_tokend.core.errors import VerifyError
from aca_tokend.core.guard import Rules
from aca_tokend.core.outcome import Granted, Reason
from aca_tokend.core.steps import Call
from aca_tokend.doctor.examination import Check, advice
from aca_tokend.doctor.findings import Area
from aca_tokend.doctor.vaults import log_ins
from aca_tokend.rotation.attempts import AttemptRecords
from aca_tokend.rotation.credentials import Resolver, endpoint_pool
from aca_tokend.rotation.facts import Moment, Waiting
from aca_tokend.rotation.grant import Granter
from aca_tokend.rotation.lockout import TURNS, Lockout
from aca_tokend.rotation.managed import ManagedToken
from aca_tokend.rotation.reconfigure import begin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import Config, TokenConfig, VerifyConfig
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.ports import Clock
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts

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

    `refused` has the clients that were refused and `trying` those that are being tried, each with the token it is for;
    `known` those that the server knows, and `asked` the tokens for which it was asked.
    """

    granter: Granter
    clock: Clock
    end: float
    refused: dict[int, str] = field(default_factory=dict)
    trying: dict[int, str] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    async def grant(self, token: ManagedToken, seconds: float) -> None:
        """One attempt. A client that is not known is tried for one account at a time; the others wait here."""
        client = id(token.wiring.client)
        while True:
            if client in self.refused:
                self._wait(token, f"its client was refused for {self.refused[client]}")
                return
            if self.clock.monotonic() + seconds + RECORD_SECONDS > self.end:
                self._wait(token, "too little time is left for a whole attempt; call the doctor again")
                return
            # the guard does the same, but lets the next one go before it is known here how this one ended
            if client in self.known or self.trying.setdefault(client, token.name) == token.name:
                await self._try(token)
                failure = token.facts.trouble.failure if token.facts.trouble else None
                if failure is not None and failure.reason is Reason.INVALID_CLIENT:
                    self.refused.setdefault(client, token.name)
                elif token.facts.held is not None:
                    self.known.add(client)
                if self.trying.get(client) == token.name:
                    del self.trying[client]
                waiting = token.facts.waiting
                if waiting is None or waiting.why not in TURNS:
                    return
            # in a pool of its own: who waits for another account holds no thread of the endpoint
            await Call(PAUSE_POOL, lambda: time.sleep(PAUSE_SECONDS))

    async def _try(self, token: ManagedToken) -> None:
        now = self.clock.monotonic()
        moment = Moment(now, self.clock.wall(), now)
        token.facts = token.facts._replace(waiting=None, trouble=None)
        if token.facts.identity is None:
            token.facts = await self.granter.identify(token, moment)
        if token.facts.identity is not None:
            token.facts = await self.granter.grant(token, moment)
            token.wiring.gate.claims.passed(token.name, self.clock.monotonic())  # also where no request was made

    def _wait(self, token: ManagedToken, why: str) -> None:
        token.facts = token.facts._replace(waiting=Waiting(why, 0.0))


def checks(parts: Parts, config: Config, clock: Clock, end: float) -> Iterator[Check]:
    """One for each account, however many tokens it has. `config` is that of the daemons, with their timeouts."""
    lockout = Lockout(clock, AttemptRecords(clock, RECORD_SECONDS), _nobody)
    asked: set[str] = set()

    def observe(event: Event) -> None:
        if isinstance(event, Granted):
            asked.add(event.token)

    granter = Granter(clock, Resolver(parts.secrets), random.SystemRandom(), observe, _nobody, lockout)
    tries = Tries(granter, clock, end, asked=asked)
    accounts = _accounts(parts.config)
    # where there is no time for all of them, another call begins with others
    start = granter.rng.randrange(len(accounts) or 1)
    for entry in accounts[start:] + accounts[:start]:
        # how long a daemon's request may be under way: its claim is not to be taken for one that was left behind
        rules = Rules.of(entry.rotation, config.acaengine[entry.acaengine].timeout)
        # what is granted is tried here, where what went wrong can be told
        wiring = replace(parts.wire(entry), config=entry.model_copy(update={"verify": None}), rules=rules)
        wiring.client.passed(wiring.client.first, clock.monotonic())
        token, pool = ManagedToken(wiring, begin(wiring, 0.0)), endpoint_pool(wiring.endpoint)
        seconds = parts.config.acaengine[entry.acaengine].timeout
        examine = partial(_examine, token=token, verify=entry.verify, tries=tries, seconds=seconds)
        steps = (GRANT, VERIFY) if entry.verify else (GRANT,)
        # where its record lies, and where references lead
        after = (pool, *log_ins(*references(entry), *entry.publish[:1]))
        yield Check(Area.ACCOUNT, entry.name, steps, examine, after, lane=pool)


def _accounts(config: Config) -> list[TokenConfig]:
    """The first token of each account."""
    accounts: dict[tuple[object, ...], TokenConfig] = {}
    for token in config.tokens:
        values = (token.authority, token.username, token.password, token.client_id, token.client_secret)
        accounts.setdefault((token.acaengine, *values), token)
    return list(accounts.values())


async def _examine(
    notes: Notes, token: ManagedToken, verify: VerifyConfig | None, tries: Tries, seconds: float
) -> None:
    await tries.grant(token, seconds)
    facts, endpoint = token.facts, token.wiring.endpoint
    held, trouble = facts.held, facts.trouble
    if facts.waiting is not None:
        notes.skipped(GRANT, f"not tried: {_WAITS.get(facts.waiting.why, facts.waiting.why)}")
    elif trouble is not None:
        await _tell_failure(notes, token, tries)
    if held is None:
        return
    lifetime, longest = held.lifetime, facts.config.rotation.max_lifetime
    granted = f"granted for {format_duration(round(lifetime))}"
    if lifetime > longest:
        longer = (
            f"{granted}, longer than max_lifetime, {format_duration(longest)}: each start and each replica asks anew"
        )
        notes.warn(GRANT, longer, "raise max_lifetime of [rotation], or have the server grant for a shorter time")
    else:
        notes.ok(GRANT, granted)
    if verify is not None:
        try:
            await Call(endpoint_pool(endpoint), lambda: endpoint.verify(verify.path, held.document.access_token))
            notes.ok(VERIFY, "the token works")
        except VerifyError as error:
            notes.error(VERIFY, error)


async def _tell_failure(notes: Notes, token: ManagedToken, tries: Tries) -> None:
    facts, rules = token.facts, token.wiring.rules
    failure = facts.trouble.failure if facts.trouble else None
    assert failure is not None  # noqa: S101 -- the caller has looked
    fix = advice(failure.reason)
    if not failure.rejected:
        notes.failed(GRANT, failure.message, fix)
        return
    book = await tries.granter.lockout.records.read(token.wiring.sinks)
    spent = max((entry.spent for page in book.pages if page.record for entry in page.record.entries[:1]), default=0)
    if facts.name in tries.asked:
        detail = f"{failure.message}; {spent} of {rules.max_rejections} attempts are spent"
    else:
        detail = f"not tried, because no attempt is left: it was refused before ({failure.reason})"
    if failure.suspends and "resume" not in fix:
        fix += f"; if it was the server's side that was fixed, call `aca-tokend resume {facts.name}`"
    notes.failed(GRANT, detail, fix)


def _nobody(_told: object) -> None:
    """Nobody waits for what an attempt tells beside its outcome."""
