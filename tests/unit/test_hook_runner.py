"""When a hook is run: after what, how often, when again, and that no token waits for it. On a clock moved by hand."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import FilePublish
from aca_tokend.core.errors import GrantError, InternalError
from aca_tokend.core.outcome import Granted, HookRan, Published, PublishResult, Reason, Step
from aca_tokend.core.policy import HOOK_SPACING_SECONDS
from aca_tokend.core.secret import Secret
from aca_tokend.core.steps import make
from aca_tokend.rotation.changes import Change
from aca_tokend.rotation.hook_runner import Hooker, HookState, Written
from aca_tokend.rotation.managed import Reconfigured
from tests.fakes import Bench, FakeHook, MemorySink, drive, token_config, wired

if TYPE_CHECKING:
    from aca_tokend.core.config import BackoffConfig, TokenConfig
    from aca_tokend.core.steps import Call

FILE = "file:/run/aca/bookings.json"
BACKOFF: BackoffConfig = token_config().rotation.backoff


def configured(*hooks: HookState | None) -> TokenConfig:
    """A token of as many places, which have something to run after a write where there is a hook."""
    config, after = token_config(), {"command": ["/bin/reload"]}
    files = [FilePublish.model_validate({"to": "file", "path": f"/run/aca/{n}.json"}) for n in range(len(hooks))]
    with_hook = FilePublish.model_validate({"to": "file", "path": "/run/aca/hook.json", "after": after}).after
    publish = (
        it if hook is None else it.model_copy(update={"after": with_hook})
        for it, hook in zip(files, hooks, strict=True)
    )
    return config.model_copy(update={"publish": tuple(publish)})


def hook_state(name: str = "hook 1", hook: FakeHook | None = None) -> HookState:
    return HookState(name, hook or FakeHook(), BACKOFF, frozenset({"bookings"}))


@dataclass
class Rig:
    """A token in a Vault and a file, and what is run after the file is written."""

    hook: FakeHook = field(default_factory=FakeHook)
    vault: MemorySink = field(default_factory=MemorySink)
    file: MemorySink = field(default_factory=lambda: MemorySink(name=FILE, kind="file", pool="file"))
    bench: Bench = field(init=False)
    state: HookState = field(init=False)
    hooker: Hooker = field(init=False)

    def __post_init__(self) -> None:
        self.state = hook_state(hook=self.hook)
        self.bench = Bench(sinks=[self.vault, self.file], config=configured(None, self.state), hooks=[None, self.state])
        self.hooker = Hooker(self.bench.clock, random.Random(7), self.bench.events.append)  # noqa: S311 -- a test

    def restart(self, *hooks: HookState | None) -> None:
        """A new process with these hooks, or with the one that it had."""
        if not hooks:
            self.state = hook_state(hook=self.hook)
        self.bench.hooks = list(hooks) or [None, self.state]
        self.bench.config = configured(*self.bench.hooks)
        self.bench.restart()

    def run(self) -> float:
        """An attempt of the hook; in how many seconds the next is due."""
        return drive(self.hooker.attempt(self.state)) - self.bench.clock.now

    def rotate(self) -> None:
        """A later token is published."""
        self.bench.clock.advance(7000)
        self.bench.attempt()

    @property
    def told(self) -> list[HookRan]:
        return self.bench.told(HookRan)


@pytest.fixture
def rig() -> Rig:
    """A token and its hook."""
    return Rig()


def test_write_puts_its_hook_on_schedule(rig: Rig) -> None:
    """A write asks for a run at once, and goes on without waiting for it; the run is told."""
    rig.bench.attempt()

    assert [(wake.token, wake.at) for wake in rig.bench.woken] == [("hook 1", rig.bench.clock.now)]
    assert rig.hook.runs == 0
    assert rig.run() == math.inf
    assert rig.hook.runs == 1
    (ran,) = rig.told
    assert (ran.hook, ran.tokens, ran.output, ran.failure, ran.recovered) == (
        "reload",
        ("bookings",),
        "done",
        None,
        False,
    )


def test_nothing_written_nothing_run(rig: Rig) -> None:
    """A sink that holds what the hook was run for asks for nothing, and an attempt without need runs nothing."""
    rig.bench.attempt()
    rig.run()
    rig.bench.endpoint.broken = GrantError(Reason.UNAVAILABLE, "acaengine main: 503")
    rig.bench.clock.advance(5000)
    rig.bench.attempt()
    assert rig.bench.failures

    assert rig.run() == math.inf
    assert rig.hook.runs == 1
    assert len(rig.bench.woken) == 1


def test_sink_without_a_hook_asks_for_none(rig: Rig) -> None:
    """Only the sink that has a hook asks for it."""
    rig.file.publish_errors.append(Reason.DISK_FULL)
    rig.bench.attempt()
    assert rig.vault.content is not None
    assert rig.bench.woken == []


def test_failing_sink_does_not_keep_the_hook_of_another(rig: Rig) -> None:
    """A Vault that cannot be written is none of the file's hook's business."""
    rig.vault.publish_errors.append(Reason.VAULT_SEALED)
    rig.bench.attempt()
    assert len(rig.bench.woken) == 1


def test_adopted_token_asks_once_after_a_start(rig: Rig) -> None:
    """What the first look finds may have been written by a process that died before the hook: it is run once."""
    rig.bench.attempt()
    rig.restart()
    rig.bench.attempt()
    rig.run()

    assert rig.hook.runs == 1
    assert rig.file.writes == 1


def test_same_token_in_another_form_asks(rig: Rig) -> None:
    """A file that is written anew in another form, with the token it had, has its hook run."""
    rig.bench.attempt()
    rig.run()
    rig.file.outdated = True
    change(rig, rig.state, alike=False)

    assert rig.file.writes == 2
    assert len(rig.bench.woken) == 2


def test_write_whose_answer_was_lost_asks(rig: Rig) -> None:
    """A write that failed in the eyes of the daemon, and yet is there at the next look, has its hook run."""
    rig.bench.attempt()
    rig.run()
    rig.bench.clock.advance(7000)
    rig.file.before_publish = lambda: rig.file.publish_errors.append(Reason.IO_ERROR)
    rig.bench.attempt()
    assert len(rig.bench.woken) == 1
    rig.file.before_publish = None
    rig.file.put(rig.bench.document)
    rig.bench.clock.advance(60)
    rig.bench.attempt()

    assert [it.result for it in rig.bench.told(Published) if it.sink == FILE][-1] is PublishResult.UNCHANGED
    assert len(rig.bench.woken) == 2


def test_two_sinks_share_a_run(rig: Rig) -> None:
    """Two sinks of a token with the same hook ask together, after both were written, and have one run."""
    rig.restart(rig.state, rig.state)
    rig.bench.attempt()

    assert len(rig.bench.woken) == 1
    rig.run()
    assert rig.hook.runs == 1
    assert rig.told[0].tokens == ("bookings",)


def test_failed_hook_is_run_again_alone(rig: Rig) -> None:
    """A hook that fails is run again by the backoff, without a look, a grant or a write, until it succeeds."""
    rig.hook.errors.extend([Reason.COMMAND_FAILED] * 4)
    rig.bench.attempt()
    looks, writes = rig.file.looks, rig.file.writes
    waits = []
    for _ in range(4):
        waits.append(rig.run())
        rig.bench.clock.advance(waits[-1])
    assert rig.state.failing == {"bookings"}
    assert rig.run() == math.inf

    for number, wait in enumerate(waits):
        longest = max(min(60.0, 2.0**number), HOOK_SPACING_SECONDS)
        assert max(0.5 * longest, HOOK_SPACING_SECONDS) <= wait <= longest
    failures = [told for told in rig.told if told.failure]
    assert [told.attempt for told in failures] == [1, 2, 3, 4]
    assert [told.next_attempt_seconds for told in failures] == waits
    assert failures[0].failure is not None
    assert (failures[0].failure.step, failures[0].failure.reason) == (Step.HOOK, Reason.COMMAND_FAILED)
    assert failures[0].output == "what it said"
    assert rig.told[-1].recovered
    assert (rig.state.failures, rig.state.failing) == (0, frozenset())
    assert (rig.file.looks, rig.file.writes) == (looks, writes)
    assert len(rig.bench.told(Granted)) == 1


def test_write_does_not_hurry_a_failing_hook(rig: Rig) -> None:
    """What is written while a hook fails waits for its next run, and one run is for both."""
    rig.hook.errors.append(Reason.COMMAND_TIMEOUT)
    rig.bench.attempt()
    wait = rig.run()
    due = rig.bench.clock.now + wait
    rig.state.ask(Written("bookings", "file:/another"), ())
    assert rig.run() == pytest.approx(wait), "too early"
    assert rig.hook.runs == 1
    rig.bench.clock.now = due
    rig.run()

    assert rig.hook.runs == 2
    assert not rig.state.waiting
    rig.rotate()
    assert rig.bench.woken[-1].at == rig.bench.clock.now


def test_write_during_a_run_needs_another(rig: Rig) -> None:
    """A run is for what was written before it began; what comes meanwhile asks for another, a second later."""
    rig.hook.before_answer = lambda: rig.state.ask(Written("bookings", "file:/another"), ())
    rig.bench.attempt()
    rig.run()
    rig.hook.before_answer = None

    assert rig.run() == pytest.approx(HOOK_SPACING_SECONDS)
    assert rig.hook.runs == 1
    rig.bench.clock.advance(HOOK_SPACING_SECONDS)
    assert rig.run() == math.inf
    assert rig.hook.runs == 2


def test_many_tokens_share_a_run() -> None:
    """Ten thousand tokens with one hook have one run for all that was written before it began."""
    rig = Rig()
    names = [f"t{number}" for number in range(10_000)]
    rig.state.tokens = frozenset(names)
    for name in names:
        rig.state.ask(Written(name, FILE), (Secret(name),))

    assert rig.run() == math.inf
    assert rig.hook.runs == 1
    assert rig.told[0].tokens == tuple(names)


def test_tokens_that_left_are_waited_for_no_more(rig: Rig) -> None:
    """A failing hook is not run for a token that left the configuration, and knows its token no more."""
    rig.hook.errors.append(Reason.COMMAND_FAILED)
    rig.bench.attempt()
    rig.bench.clock.advance(rig.run())
    rig.state.tokens = frozenset()

    assert rig.run() == math.inf
    assert rig.hook.runs == 1
    assert (rig.state.failures, rig.state.failing, rig.state.known) == (0, frozenset(), {})


def test_run_that_was_owed_is_made_for_a_token_that_left(rig: Rig) -> None:
    """What was written before its token left the configuration has its run, which shows nothing of it."""
    rig.bench.attempt()
    rig.state.tokens = frozenset()

    assert rig.run() == math.inf
    assert (rig.hook.runs, rig.hook.secrets) == (1, [Secret("token-1")])


def test_run_that_hangs_is_told_and_not_made_twice(rig: Rig) -> None:
    """A run that nothing ends is told as failed at each try, and none begins beside it; once it is over, one does."""
    hanging: list[Call[Any]] = []

    def hangs(call: Call[Any]) -> bool:
        hanging.append(call)
        return True

    rig.bench.attempt()
    drive(rig.hooker.attempt(rig.state), hangs)
    rig.bench.clock.advance(60)
    assert rig.run() < 60
    assert rig.hook.runs == 0
    assert [it.failure.reason for it in rig.told if it.failure] == [Reason.COMMAND_TIMEOUT] * 2
    assert [call.finish for call in hanging] == [True]

    make(hanging[0])
    rig.bench.clock.advance(60)
    assert rig.run() == math.inf
    assert rig.hook.runs == 2
    assert rig.told[-1].recovered


def test_run_that_was_not_begun_is_tried_again(rig: Rig) -> None:
    """Where the system had no thread for a run, the next try makes it."""
    rig.bench.attempt()
    attempt = rig.hooker.attempt(rig.state)
    attempt.send(None)
    with pytest.raises(StopIteration):
        attempt.send((InternalError.of(RuntimeError("no thread")),))

    rig.bench.clock.advance(60)
    assert rig.run() == math.inf
    assert rig.hook.runs == 1


def test_hook_knows_what_it_must_not_show(rig: Rig) -> None:
    """A run is told the tokens that its sinks hold and held before, so that its output shows neither."""
    rig.bench.attempt()
    rig.run()
    rig.rotate()
    rig.run()
    assert set(rig.hook.secrets) == {Secret("token-1"), Secret("token-2")}


def test_last_run_is_at_once_and_alone(rig: Rig) -> None:
    """When the daemon stops, what is asked for is run at once, and a failure is left to the next start."""
    rig.bench.attempt()
    rig.run()
    rig.rotate()
    rig.state.last = True
    rig.state.not_before = math.inf
    rig.hook.errors.append(Reason.COMMAND_FAILED)

    assert rig.run() == math.inf
    assert rig.hook.runs == 2
    assert rig.told[-1].next_attempt_seconds == math.inf


# ── reload ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def send(rig: Rig, hook: HookState | None, *, alike: bool = True) -> None:
    """A reload that changes what is run after the file, and `alike` or not how the file is written."""
    bench = rig.bench
    wiring = wired(configured(None, hook), bench.endpoint, bench.sinks, bench.shared, [None, hook])
    bench.token.inbox.append(Reconfigured(wiring, Change(wiring.config, (0, 1), (True, alike), tried_anew=False)))


def change(rig: Rig, hook: HookState | None, *, alike: bool = True) -> None:
    """The same, and the attempt that takes it in."""
    send(rig, hook, alike=alike)
    rig.bench.attempt()


def test_changed_hook_waits_for_the_next_write(rig: Rig) -> None:
    """A reload that changes a hook writes nothing and runs nothing: the new one begins with the next write."""
    rig.bench.attempt()
    rig.run()
    another = hook_state("hook 2")
    looks = rig.file.looks

    change(rig, another)

    assert (rig.file.looks, rig.file.writes, len(rig.bench.woken)) == (looks, 1, 1)
    rig.rotate()
    assert rig.bench.woken[-1].token == "hook 2"
    assert [written for written, _ in another.asked] == [Written("bookings", FILE)]


def test_added_hook_waits_for_the_next_write(rig: Rig) -> None:
    """A hook that was added is not run for what was written before it was there."""
    rig.restart(None, None)
    rig.bench.attempt()

    change(rig, rig.state)

    assert rig.bench.woken == []
    rig.rotate()
    assert len(rig.bench.woken) == 1


@pytest.mark.parametrize("begun", [True, False])
def test_new_hook_takes_over_what_the_old_one_owes(rig: Rig, begun: bool) -> None:
    """A hook in the place of one that failed, or was not run yet, is run at once, also where two reloads follow."""
    rig.hook.errors.append(Reason.COMMAND_FAILED)
    rig.bench.attempt()
    if begun:
        rig.run()
    between, last = hook_state("hook 2"), hook_state("hook 3")
    send(rig, between)

    change(rig, last)

    assert rig.bench.woken[-1].token == "hook 3"
    assert rig.file.writes == 1


def test_hook_that_is_taken_away_is_run_for_what_was_written_with_it(rig: Rig) -> None:
    """A reload that takes a hook away while the file is written, leaves that write its run."""
    rig.file.before_publish = lambda: send(rig, None)
    rig.bench.attempt()

    assert [wake.token for wake in rig.bench.woken] == ["hook 1"]
    assert [written for written, _ in rig.state.asked] == [Written("bookings", FILE)]


def test_hook_is_run_for_what_was_written_since_it_was_added(rig: Rig) -> None:
    """A reload that adds a hook while the file is written has it run for that write."""

    def reload() -> None:
        rig.bench.clock.advance(0.1)
        send(rig, rig.state)

    rig.restart(None, None)
    rig.file.before_publish = reload
    rig.bench.attempt()

    assert [wake.token for wake in rig.bench.woken] == ["hook 1"]


def test_hook_shared_with_another_token_owes_what_it_was_asked_for(rig: Rig) -> None:
    """A hook that another token keeps is still run for what was written before a reload gave this one another."""
    rig.bench.attempt()
    rig.state.tokens = frozenset({"signage"})
    rig.run()

    assert rig.told[0].tokens == ("bookings",)


def test_same_hook_keeps_what_it_owes(rig: Rig) -> None:
    """A reload that leaves the hook alone changes nothing about what it was asked for."""
    rig.bench.attempt()
    change(rig, rig.state)
    assert len(rig.bench.woken) == 1
    assert rig.run() == math.inf
    assert rig.hook.runs == 1


def test_removed_hook_is_asked_no_more(rig: Rig) -> None:
    """A hook that was taken away is not asked for again."""
    rig.bench.attempt()
    change(rig, None)
    rig.rotate()
    assert len(rig.bench.woken) == 1


def test_new_place_has_its_hook_run(rig: Rig) -> None:
    """A file that a reload adds is written, and its hook run."""
    both = rig.bench.sinks
    rig.bench.sinks = both[:1]
    rig.restart(None)
    rig.bench.attempt()

    rig.bench.sinks = both
    wiring = wired(configured(None, rig.state), rig.bench.endpoint, both, rig.bench.shared, [None, rig.state])
    rig.bench.token.inbox.append(
        Reconfigured(wiring, Change(wiring.config, (0, None), (True, False), tried_anew=False))
    )
    rig.bench.attempt()
    assert rig.file.content == rig.vault.content
    assert len(rig.bench.woken) == 1
