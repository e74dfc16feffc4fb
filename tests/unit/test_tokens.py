"""All tokens of a process: who is put on schedule, where, and who is told what, on a schedule in memory."""

from __future__ import annotations

import math
import random
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.errors import GrantError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import LOCAL
from aca_tokend.rotation.admission import FIRST_SECONDS, NEXT_TO_TRY, Credential
from aca_tokend.rotation.changes import Change, Changes
from aca_tokend.rotation.facts import Place
from aca_tokend.rotation.managed import ManagedToken, Reconfigured, VaultBack, Woken
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.rotation.shared import Shared
from aca_tokend.rotation.tokens import BACK_SPREAD_SECONDS, Tokens
from tests.fakes import FakeClock, FakeSecrets, MemorySink, ScriptedEndpoint, drive, token_config, wired

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.steps import Call, Work
    from aca_tokend.rotation.managed import Wiring


@dataclass
class Schedule:
    """What is on schedule, and when."""

    work: dict[str, Work] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)

    def keep(self, work: Work, at: float) -> None:
        self.work[work.name], self.due[work.name] = work, at

    def hasten(self, name: str, at: float) -> None:
        self.due[name] = min(self.due.get(name, math.inf), at)

    def drop(self, name: str) -> None:
        del self.work[name], self.due[name]


class Rig:
    """Two tokens of one user, each with a place of its own."""

    def __init__(self) -> None:
        self.clock, self.schedule = FakeClock(), Schedule()
        self.endpoint = ScriptedEndpoint(self.clock)
        self.shared = Shared(self.clock.now)
        rng = random.Random(7)  # noqa: S311 -- a test
        self.tokens = Tokens(self.clock, rng, self.schedule, self.wire)
        secrets = FakeSecrets({"PASSWORD": "p", "CLIENT_SECRET": "s"})
        self.tokens.rotator = Rotator(self.clock, secrets, rng, lambda _event: None, self.tokens.wake, self.tokens.late)
        for name in ("one", "two"):
            self.tokens.add(token_config().model_copy(update={"name": name}), self.clock.now)

    def wire(self, config: TokenConfig) -> Wiring:
        return wired(config, self.endpoint, [MemorySink(f"vault:secret/{config.name}")], self.shared)

    def attempt(self, name: str, hangs: Callable[[Call[Any]], bool] = lambda _call: False) -> float:
        """An attempt; in how many seconds the next is due."""
        return drive(self.schedule.work[name].attempt(), hangs) - self.clock.now


def test_only_attempt_waits_for_another() -> None:
    """The single attempt of a token is not over while another tries what they share, or while a place hangs."""
    rig, other = Rig(), token_config().model_copy(update={"name": "other", "username": "svc-other"})
    rig.tokens.once = True
    rig.tokens.add(other, rig.clock.now)
    rig.clock.advance(FIRST_SECONDS)  # else the first of the configuration goes first
    one, two = (rig.tokens.by_name[name] for name in ("one", "two"))
    waited: list[tuple[float, str]] = []

    def meanwhile() -> None:
        rig.endpoint.before_answer = None
        waited.append((rig.attempt("two"), two.facts.waits_for))

    for name in ("other", "one"):
        rig.endpoint.before_answer = meanwhile
        assert rig.attempt(name) == math.inf
    assert [why for _, why in waited] == ["client_unproven", "user_unproven"]
    assert all(wait < math.inf for wait, _ in waited)
    assert rig.attempt("two") == math.inf
    assert two.facts.everywhere

    assert one.facts.everywhere
    one.facts = one.facts._replace(places=(Place(),))
    assert rig.attempt("one", lambda call: call.pool == "vault.main") < math.inf


def test_attempts_begin_in_no_pool_of_a_place() -> None:
    """A first place whose pool is full of calls that hang keeps no attempt from the token's other places."""
    rig = Rig()
    for work in rig.schedule.work.values():
        token = rig.tokens.by_name[work.name]
        assert work.pool not in {sink.pool for sink in token.wiring.sinks}
        assert work.pool.startswith(LOCAL), "a call that hangs there leaves its place to another"


def test_changed_token_is_due_at_once() -> None:
    """A reload tells a changed token, whose next attempt begins at once, and takes one that left off the schedule."""
    rig = Rig()
    rig.attempt("one")
    rig.schedule.due["one"] = rig.clock.now + 3600.0
    config = rig.tokens.by_name["one"].facts.config

    gone = rig.tokens.follow(Changes((), (Change(config, (None,), (False,), tried_anew=False),), ("two",), 0))

    assert [token.name for token in gone] == ["two"]
    assert rig.schedule.due == {"one": rig.clock.now}
    assert [type(message) for message in rig.tokens.by_name["one"].inbox] == [Reconfigured]


def test_token_that_left_passes_the_turn_of_its_client() -> None:
    """Where the token that goes first after a start is removed, the others of its client wait no longer."""
    rig = Rig()
    gone = rig.tokens.remove("one")
    assert gone.wiring.client.before("two", rig.clock.now) == FIRST_SECONDS

    rig.tokens.pass_turns(gone)

    assert list(rig.tokens.by_name["two"].inbox) == [Woken(rig.clock.now)]


def test_token_that_left_passes_the_turn_of_its_user() -> None:
    """Where a token is removed that was woken for its user's next request, another that waits comes in its place."""
    rig = Rig()
    one, two, shared = rig.tokens.by_name["one"], rig.tokens.by_name["two"], rig.shared
    resolved = drive(rig.tokens.rotator.granter.resolver.resolve(one.facts.config, rig.endpoint, 0.0))
    known, permit, now = shared.known(resolved), object(), rig.clock.now
    others = [
        one.facts._replace(config=token_config().model_copy(update={"name": f"t{number}"}))
        for number in range(NEXT_TO_TRY)
    ]
    assert known.user.enter(others[0], one.wiring.rules, now, permit)
    for facts in (one.facts, *others[1:], two.facts):
        assert known.user.enter(facts, one.wiring.rules, now) is False
        shared.queue(facts.name, known, now)
    woken = {wake.token for wake in known.user.answered(permit, one.wiring.rules, now, None)}
    assert "one" in woken
    assert "two" not in woken

    rig.tokens.pass_turns(rig.tokens.remove("one"))

    assert list(two.inbox) == [Woken(now)]


def test_vault_that_is_back_is_told_to_whom_it_concerns() -> None:
    """Only tokens that fail and have something in that Vault are told, within a second rather than all at once."""
    rig = Rig()
    rig.attempt("one")
    rig.clock.advance(6000.0)
    rig.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine main: 503")
    rig.attempt("two")
    rig.schedule.due = dict.fromkeys(rig.schedule.due, math.inf)

    rig.tokens.vault_back("other")
    assert not any(token.inbox for token in rig.tokens.by_name.values())
    rig.tokens.vault_back("main")
    assert not rig.tokens.by_name["one"].inbox
    assert list(rig.tokens.by_name["two"].inbox) == [VaultBack()]
    assert rig.clock.now <= rig.schedule.due["two"] <= rig.clock.now + BACK_SPREAD_SECONDS


def test_token_at_rest_keeps_no_room_for_what_seldom_comes() -> None:
    """There are thousands: an empty inbox, or a credential that no other token uses, takes little memory."""
    rig, permit, count = Rig(), object(), 500
    facts, wiring = rig.tokens.by_name["one"].facts, rig.tokens.by_name["one"].wiring
    tracemalloc.start()
    try:
        tokens = [ManagedToken(wiring, facts) for _ in range(count)]
        of_tokens, _ = tracemalloc.get_traced_memory()
        credentials = [Credential() for _ in range(count)]
        for credential in credentials:
            credential.enter(facts, wiring.rules, rig.clock.now, permit)
            credential.answered(permit, wiring.rules, rig.clock.now, True)
        of_credentials, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert of_tokens / len(tokens) < 250
    assert (of_credentials - of_tokens) / len(credentials) < 350
