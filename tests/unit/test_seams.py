"""Where two features meet: combinations that each part alone gets right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend.core.config import VerifyConfig
from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.outcome import Reason, Suspended
from aca_tokend.rotation.changes import Changes, compare
from aca_tokend.rotation.decide import Action, Rest, decide
from aca_tokend.rotation.managed import Late, Reconfigured, VaultBack
from tests.fakes import Bench, MemorySink, at, example, token_config, wired
from tests.unit.test_tokens import Rig

if TYPE_CHECKING:
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.rotation.facts import Facts, Moment


def verified(**rotation: object) -> TokenConfig:
    """A token that is tried."""
    return token_config(**rotation).model_copy(update={"verify": VerifyConfig(path="/api/me")})


def test_a_slow_place_gets_its_first_token() -> None:
    """A place that always takes longer than an attempt waits is served, or the wait for it grows: it is no loop."""
    bench = Bench()
    sink = bench.sinks[0]
    for _ in range(30):
        bench.hanging = sink.pool
        bench.attempt()
        bench.clock.advance(3.0)
        bench.hung = [call for call in bench.hung if call.late is not None]  # records are not waited for
        bench.answer_late()
    assert sink.looks < 15 or bench.endpoint.asked, (sink.looks, len(bench.endpoint.asked))


def test_a_pending_token_is_dated_anew() -> None:
    """A token that waits to be tried while the wall clock is set is published with the times that are right then."""
    bench = Bench(config=verified())
    bench.attempt()
    bench.clock.now = bench.next_at
    bench.endpoint.verify_error = VerifyError(Reason.UNAVAILABLE, "503")
    bench.clock.step(3 * 3600.0)
    asked_before = len(bench.endpoint.asked)
    bench.token.inbox.clear()
    bench.attempt()
    assert bench.facts.pending is not None
    granted_at = bench.clock.now
    assert len(bench.endpoint.asked) == asked_before + 1
    bench.step_clock(-3 * 3600.0)
    bench.endpoint.verify_error = None
    bench.run_for(120.0)
    document = bench.sinks[0].content
    assert document.access_token.reveal() == "token-2"
    assert document.expires_at <= at(granted_at + bench.clock.offset + 7200.0)


def test_a_pending_token_serves_after_its_rotation_point() -> None:
    """A token that could not be tried reaches readers before theirs expires, though its own rotation point is over."""
    bench = Bench(config=verified(fraction=0.3))
    bench.attempt()
    first = bench.sinks[0].content
    bench.endpoint.verify_error = VerifyError(Reason.UNAVAILABLE, "503")
    bench.run_for(0.35 * 7200.0)
    assert bench.facts.pending is not None
    bench.run_for(0.2 * 7200.0)
    bench.endpoint.broken = GrantError(Reason.CONNECT_FAILED, "down")
    bench.run_for(0.44 * 7200.0)
    assert bench.sinks[0].content != first


def test_a_bug_in_a_trial_costs_no_token() -> None:
    """A trial that ends by a bug is one that could not be made: the granted token is kept, not asked for again."""
    bench = Bench(config=verified())
    bench.attempt()
    bench.clock.now = bench.next_at
    bench.endpoint.verify_error = RuntimeError("a bug")
    bench.attempt()
    bench.run_for(600.0)
    assert len(bench.endpoint.asked) == 2, len(bench.endpoint.asked)


def test_a_late_look_is_no_look_before_the_request() -> None:
    """What a place that hung tells at last may have come since our request: the later token there is not replaced."""
    bench, other = Bench(), Bench(suffix="-b")
    bench.attempt()
    bench.clock.now = bench.next_at
    bench.hanging = bench.sinks[0].pool
    bench.attempt()
    assert len(bench.endpoint.asked) == 2
    bench.clock.advance(600.0)
    other.clock.now = bench.clock.now
    other.attempt()
    later = other.sinks[0].content
    bench.sinks[0].put(later)
    bench.clock.advance(60.0)
    bench.answer_late()
    bench.attempt()
    assert bench.sinks[0].content.access_token == later.access_token
    assert bench.document == later


def test_a_token_that_came_back_keeps_its_turn() -> None:
    """A token that a reload removed and the next put back waits for what it waits for, whatever becomes of the old."""
    rig = Rig()
    rig.clock.advance(10.0)
    config = rig.tokens.by_name["two"].facts.config
    (gone,) = rig.tokens.follow(Changes((), (), ("two",), 0))
    rig.tokens.follow(Changes((config,), (), (), 0))
    waits: list[str] = []

    def meanwhile() -> None:
        rig.endpoint.before_answer = None
        rig.attempt("two")
        waits.append(rig.tokens.by_name["two"].facts.waits_for)
        rig.schedule.due["two"] = math.inf
        rig.tokens.pass_turns(gone)  # the attempts from before the reload are over

    rig.endpoint.before_answer = meanwhile
    rig.attempt("one")
    assert waits == ["client_unproven"]
    assert rig.schedule.due["two"] <= rig.clock.now


def test_a_corrected_scope_is_tried_at_once() -> None:
    """A token that is suspended for its scope looks at once whether another scope that a reload brings may be asked."""
    bench = Bench()
    bench.endpoint.answers.extend([GrantError(Reason.INVALID_SCOPE, "no")] * 2)
    bench.run_for(300.0)
    assert bench.facts.suspension is not None
    old = example().model_copy(update={"tokens": (bench.token.wiring.config,)})
    corrected = bench.token.wiring.config.model_copy(update={"scope": "public.read"})
    (change,) = compare(old, old.model_copy(update={"tokens": (corrected,)})).changed
    wiring = wired(change.config, bench.endpoint, bench.sinks, bench.shared)
    bench.clock.now = bench.next_at
    bench.attempt()  # it has just looked, and would do so again three seconds later, or a minute where Vault has it
    bench.token.inbox.append(Reconfigured(wiring, change))
    asked = len(bench.endpoint.asked)
    bench.attempt()
    bench.run_for(1.0)
    assert len(bench.endpoint.asked) == asked + 1


def test_a_late_answer_of_another_call_is_ignored() -> None:
    """A place waits for the answer of the call that hangs there now: that of one before it tells nothing."""
    bench = Bench()
    bench.hanging = bench.sinks[0].pool
    bench.attempt()
    (place,) = bench.facts.places
    assert place.busy is not None
    bench.token.inbox.append(Late(place.busy.number + 1, bench.sinks[0].look()))

    bench.attempt()

    assert bench.facts.places[0].busy == place.busy
    bench.answer_late()
    bench.attempt()
    assert bench.facts.everywhere


def test_a_message_that_comes_as_an_attempt_ends_begins_it_again() -> None:
    """What another thread says after the last decision is taken in by this attempt, not left for the next."""
    bench = Bench()
    heard: list[object] = []

    def overheard(facts: Facts, moment: Moment) -> Action | Rest:
        decision = decide(facts, moment)
        if isinstance(decision, Rest) and not heard:
            heard.append(decision)
            bench.token.inbox.append(VaultBack())
        return decision

    object.__setattr__(bench.rotator, "decide", overheard)
    bench.attempt()

    assert heard
    assert not bench.token.inbox


def test_no_message_has_refused_tokens_asked_for_sooner() -> None:
    """However often a Vault comes back, tokens that the API refuses are asked for no more often than `min_interval`."""
    bench = Bench(config=verified())
    bench.endpoint.verify_error = VerifyError(Reason.TOKEN_REFUSED, "401")
    bench.attempt()
    bench.run_for(30.0)
    asked = len(bench.endpoint.asked)
    for _ in range(9):
        bench.clock.advance(1.0)
        bench.vault_is_back()
        bench.attempt()

    assert len(bench.endpoint.asked) <= asked + 1


def test_a_suspension_outlasts_a_token_that_waited_to_be_tried() -> None:
    """A token that was granted before the refusals and is published after them says nothing of the credential."""
    bench = Bench(config=verified(fraction=0.3, retry_rejected="0s"))
    bench.attempt()
    first = bench.sinks[0].content
    bench.endpoint.verify_error = VerifyError(Reason.UNAVAILABLE, "503")
    bench.run_for(0.35 * 7200.0)
    assert bench.facts.pending is not None
    bench.endpoint.broken = GrantError(Reason.INVALID_GRANT, "no")
    bench.run_for(0.6 * 7200.0)

    assert bench.sinks[0].content != first
    assert len(bench.told(Suspended)) == 1


def test_a_token_that_is_adopted_late_hurries_the_next() -> None:
    """What is adopted past its rotation point is replaced by its own life, not by the backoff from before."""
    for seed in range(20):
        sinks = [MemorySink(), MemorySink(name="file:/run/aca/bookings.json", kind="file", pool="file")]
        replica = Bench(sinks=sinks[:1])
        replica.attempt()
        clock = replica.clock
        bench = Bench(clock=clock, sinks=sinks)
        bench.rotator.rng.seed(seed)
        clock.advance(5000.0)
        sinks[0].look_errors.extend([Reason.CONNECT_FAILED] * 10_000)
        bench.endpoint.broken = GrantError(Reason.CONNECT_FAILED, "down")
        bench.attempt()
        bench.run_for(2120.0)
        sinks[0].look_errors.clear()
        while bench.document is None:
            clock.now = bench.next_at
            bench.attempt()
        held, trouble = bench.facts.held, bench.facts.trouble
        assert held is not None
        assert trouble is not None
        left = held.expires_at - clock.now
        assert trouble.again_at(bench.config) <= clock.now + max(left / 4, 0.5), (seed, left)
