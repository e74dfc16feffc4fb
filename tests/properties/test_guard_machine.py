"""The lockout guard as a state machine: tokens of one user and of one client, in two replicas, over crashes and faults.

The real guard is driven call by call. What is checked stands in docs/guard.md: no process is refused more often than
`max_rejections` with one credential, whatever happens; nor are all processes together, for one token, as long as its
records could be written and were not lost. Whenever tokens wait, one sends or was woken.
"""

from __future__ import annotations

import random
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aca_tokend.core.errors import GrantRejected, GrantUnavailable, LookError, PublishError
from aca_tokend.core.grant import Credentials, Grant
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.steps import make
from aca_tokend.rotation.facts import Held, Moment
from aca_tokend.rotation.managed import ManagedToken
from aca_tokend.rotation.reconfigure import begin
from aca_tokend.rotation.rotator import Rotator
from aca_tokend.rotation.shared import Shared
from tests.fakes import FakeClock, FakeSecrets, MemorySink, ScriptedEndpoint, never_late, token_config, wired

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from aca_tokend.core.breaker import Wake
    from aca_tokend.core.guard import SeenRecord
    from aca_tokend.core.token import Document

MOST = 2
LIFETIME = 7200.0
# Two tokens of one user that ask for another scope each, one of them with two places, and one of another user.
TOKENS = {"t0": ("svc-0", "public"), "t1": ("svc-0", "admin"), "t2": ("svc-2", "public")}
PLACES = {"t0": 2, "t1": 1, "t2": 1}
NAMES = st.sampled_from(sorted(TOKENS))
REPLICAS = st.sampled_from([0, 1])


@dataclass
class Place(MemorySink):
    """A place whose record can be away, and remembers what it was."""

    away: bool = False
    history: list[Any] = field(default_factory=list)

    def read_record(self, name: str) -> SeenRecord:
        if self.away:
            raise LookError(Reason.UNAVAILABLE, "it is away")
        return super().read_record(name)

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        if self.away:
            raise PublishError(Reason.UNAVAILABLE, "it is away")
        self.history.append(deepcopy(self.records.get(name, (0, None))[1]))
        return super().write_record(name, fields, stamp)

    def set(self, fields: Mapping[str, object] | None) -> None:
        """Somebody else writes the record, or removes it."""
        self.records["attempts"] = (self.records.get("attempts", (0, None))[0] + 1, fields)


class Server(ScriptedEndpoint):
    """The endpoint as one process has it: it answers by the state of the machine."""

    machine: GuardMachine
    process: Process

    def grant(self, credentials: Credentials) -> Grant:
        name = next(
            it for it, (user, scope) in TOKENS.items() if credentials.username == user and credentials.scope == scope
        )
        machine = self.machine
        if machine.down:
            raise GrantUnavailable(Reason.UNAVAILABLE, "503")
        for reason in machine.refuses:
            if reason is not Reason.INVALID_SCOPE or credentials.scope == "admin":
                self.process.refused[reason, credentials.username] += 1
                machine.refused[reason, name] += 1
                raise GrantRejected(reason, "refused")
        return Grant(Secret(f"t-{random.random()}"), int(LIFETIME), LIFETIME, credentials.scope, 200, None, 0.0)  # noqa: S311


class Process:
    """One daemon: what it knows, and the attempts under way in it."""

    def __init__(self, machine: GuardMachine, number: int) -> None:
        self.number, self.machine = number, machine
        self.clock = Skewed(machine.clock, machine.skew[number])
        self.shared = Shared(self.clock.monotonic())
        self.endpoint = Server(machine.clock)
        self.endpoint.machine, self.endpoint.process = machine, self
        secrets = FakeSecrets({"PASSWORD": "p", "CLIENT_SECRET": "s"})
        self.rotator = Rotator(self.clock, secrets, random.Random(1), lambda _: None, self.wake, never_late)  # noqa: S311
        self.refused: Counter[tuple[Reason, str]] = Counter()
        self.under_way: dict[str, tuple[Coroutine[Any, Any, None], Any]] = {}
        self.woken: set[str] = set()
        self.tokens: dict[str, ManagedToken] = {}
        config = token_config(max_rejections=MOST, retry_rejected="0s")
        for name, (user, scope) in TOKENS.items():
            publish = tuple(
                config.publish[0].model_copy(update={"path": f"{name}/{place}"}) for place in range(PLACES[name])
            )
            named = config.model_copy(update={"name": name, "username": user, "scope": scope, "publish": publish})
            wiring = wired(named, self.endpoint, machine.places[name], self.shared)
            self.tokens[name] = ManagedToken(wiring, begin(wiring, 0.0))

    def end(self) -> None:
        for coroutine, _ in self.under_way.values():
            coroutine.close()

    def wake(self, wake: Wake) -> None:
        self.woken.add(wake.token)

    async def attempt(self, name: str) -> None:
        """What an attempt does that needs a grant."""
        token, granter, now = self.tokens[name], self.rotator.granter, self.clock.monotonic()
        token.facts = self.looked(name)
        moment = Moment(now, self.clock.wall(), now)
        if token.facts.suspension is not None:
            token.facts = await granter.poll(token, moment, records=True)
        else:
            token.facts = await granter.grant(token, moment)
        if token.facts.held is not None and token.facts.held.asked_at is not None:
            known = self.machine.published.get(name)
            if known is None or token.facts.held.document.issued_after(known):
                self.machine.published[name] = token.facts.held.document
        granter.lockout.ended(token.wiring, token.facts)

    def looked(self, name: str) -> Any:  # noqa: ANN401 -- facts
        """What is known after a look: a later token is adopted."""
        facts = replace(self.tokens[name].facts, waiting=None, turn_at=float("inf"))
        document = self.machine.published.get(name)
        if document is None or (facts.held and not document.issued_after(facts.held.document)):
            return facts
        now = self.clock.monotonic()
        issued = now - (self.clock.wall() - document.issued_at.timestamp())
        return replace(facts, held=Held(document, issued, LIFETIME, None, ""), adopted_at=now, noted="")

    def step(self, name: str) -> None:
        """Makes the calls that an attempt is about to make, up to its next ones."""
        coroutine, results = self.under_way.pop(name)
        try:
            calls = coroutine.send(results)
        except StopIteration:
            return
        self.under_way[name] = (coroutine, [make(call) for call in calls.calls])


@dataclass
class Skewed:
    """The clock of one process: its wall time is off."""

    clock: FakeClock
    by: float

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def wall(self) -> float:
        return self.clock.wall() + self.by


class GuardMachine(RuleBasedStateMachine):
    """Everything that can happen between a claim and its answer, in any order."""

    clock: FakeClock
    processes: list[Process]

    @initialize(ahead=st.booleans(), bad=st.booleans())
    def start(self, *, ahead: bool, bad: bool) -> None:
        self.clock = FakeClock()
        self.places = {name: [Place(name=f"vault:{name}/{it}") for it in range(n)] for name, n in PLACES.items()}
        self.published: dict[str, Document] = {}
        self.down, self.refuses = False, [Reason.INVALID_GRANT] if bad else list[Reason]()
        self.refused: Counter[tuple[Reason, str]] = Counter()
        self.resumed, self.excused = 0, set[str]()
        self.skew = [0.0, 86_400.0 if ahead else 0.0]
        if ahead:
            self.excused = set(TOKENS)
        self.processes = [Process(self, 0), Process(self, 1)]

    def teardown(self) -> None:
        for process in getattr(self, "processes", ()):
            process.end()

    # ── what processes do ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(replica=REPLICAS, name=NAMES, steps=st.integers(0, 8))
    def attempts(self, replica: int, name: str, steps: int) -> None:
        process = self.processes[replica]
        if name not in process.under_way:
            process.woken.discard(name)
            process.under_way[name] = (process.attempt(name), None)
        for _ in range(steps):
            if name in process.under_way:
                process.step(name)

    @rule(replica=REPLICAS, data=st.data())
    def goes_on(self, replica: int, data: st.DataObject) -> None:
        process = self.processes[replica]
        if process.under_way:
            process.step(data.draw(st.sampled_from(sorted(process.under_way))))

    @rule(replica=REPLICAS)
    def crashes(self, replica: int) -> None:
        self.processes[replica].end()
        self.processes[replica] = Process(self, replica)

    # ── what happens to them ──────────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0, 300.0, 5400.0, 6500.0]))
    def time_passes(self, seconds: float) -> None:
        for process in self.processes:  # no request takes longer than its lease, and no attempt hangs between calls
            for name in list(process.under_way):
                while seconds > 1.0 and name in process.under_way:
                    process.step(name)
        self.clock.advance(seconds)

    @precondition(lambda self: not self.refuses)
    @rule(
        reason=st.sampled_from(
            [Reason.INVALID_GRANT, Reason.INVALID_GRANT, Reason.INVALID_SCOPE, Reason.INVALID_CLIENT]
        )
    )
    def credential_stops_working(self, reason: Reason) -> None:
        self.refuses.append(reason)

    @rule()
    def endpoint_goes_down_or_comes_back(self) -> None:
        self.down = not self.down

    @rule(name=NAMES, place=st.integers(0, 1))
    def place_goes_away_or_comes_back(self, name: str, place: int) -> None:
        sink = self.places[name][place % PLACES[name]]
        sink.away = not sink.away
        self.excused.add(name)

    @rule(name=NAMES)
    def record_is_lost(self, name: str) -> None:
        for sink in self.places[name]:
            sink.set(None)
        self.excused.add(name)

    @rule(name=NAMES, back=st.integers(1, 3))
    def record_is_restored(self, name: str, back: int) -> None:
        for sink in self.places[name]:
            if len(sink.history) >= back and sink.history[-back]:
                sink.set(sink.history[-back])
        self.excused.add(name)

    @rule()
    def operator_resumes(self) -> None:
        for name, (user, _) in TOKENS.items():
            if user == "svc-0":
                for sink in self.places[name]:
                    sink.set({})
        self.resumed += 1

    # ── what holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def no_process_is_refused_more_often(self) -> None:
        """By process and credential, whatever becomes of records, places and clocks."""
        for process in getattr(self, "processes", ()):
            for (reason, user), count in process.refused.items():
                if reason is not Reason.INVALID_CLIENT:
                    assert count <= MOST * (1 + self.resumed), (process.number, reason, user)

    @invariant()
    def no_token_is_refused_more_often(self) -> None:
        """By token, over all processes, where its records were kept."""
        for (reason, name), count in getattr(self, "refused", Counter()).items():
            if reason is Reason.INVALID_GRANT and name not in self.excused:
                assert count <= MOST * (1 + self.resumed), name

    @invariant()
    def no_turn_is_lost(self) -> None:
        """Whenever tokens wait, one of them sends, or was woken and has not ended its attempt."""
        for process in getattr(self, "processes", ()):
            waiting = {
                name
                for name, it in process.tokens.items()
                if it.facts.waiting and it.facts.waiting.why == "user_unproven"
            }
            if waiting:
                assert process.under_way or process.woken, (process.number, waiting)


TestGuard = GuardMachine.TestCase
TestGuard.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
