"""What a token keeps of what is known when a reload changed it, and what it tries anew."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.errors import GrantError, VerifyError
from aca_tokend.core.guard import SeenRecord, parse_record
from aca_tokend.core.outcome import Adopted, Published, Reason, Resumed
from aca_tokend.core.token import Document
from aca_tokend.rotation.changes import compare
from aca_tokend.rotation.managed import Reconfigured
from tests.changed import replace
from tests.fakes import Bench, FakeClock, MemorySink, ScriptedEndpoint, wired
from tests.unit.test_changes import config, document

if TYPE_CHECKING:
    from collections.abc import Mapping

VAULT = {"to": "vault", "mount": "secret", "path": "aca/t0"}
FILE = {"to": "file", "path": "/run/aca/t0.json"}
OTHER_FILE = {"to": "file", "path": "/run/aca/other.json"}
REFUSED = GrantError(Reason.INVALID_GRANT, "refused")
UNTRIED = VerifyError(Reason.PROXY_FAILED, "no way through")
HELD_OFF = GrantError(Reason.RATE_LIMITED, "later", retry_after_seconds=300.0)


def file(name: str = "file:/run/aca/t0.json") -> MemorySink:
    return MemorySink(name, "file", "file")


@dataclass
class Rig:
    """A token, and reloads that change it."""

    sinks: list[MemorySink] = field(default_factory=lambda: [MemorySink()])
    clock: FakeClock = field(default_factory=FakeClock)
    draw: float = 0.0
    keys: dict[str, Any] = field(default_factory=dict)  # of the token, as it is written
    written: dict[str, Any] = field(default_factory=document)
    bench: Bench = field(init=False)

    def __post_init__(self) -> None:
        self.written["tokens"][0] |= {"publish": [VAULT, FILE][: len(self.sinks)]} | self.keys
        self.bench = Bench(self.clock, self.sinks, config(self.written).tokens[0], self.draw)

    def rotate(self) -> Bench:
        """The first rotation, a minute ago."""
        self.bench.attempt()
        assert self.bench.document is not None
        self.clock.advance(60.0)
        self.bench.events.clear()
        return self.bench

    def send(
        self,
        sinks: list[MemorySink] | None = None,
        endpoint: ScriptedEndpoint | None = None,
        **keys: Any,  # noqa: ANN401 -- keys of the token, as they are written
    ) -> None:
        """A reload with other keys of the token, and with the sinks and the endpoint that come of them."""
        bench, before = self.bench, self.written
        self.written = deepcopy(before)
        token = self.written["tokens"][0] | keys
        self.written["tokens"][0] = {key: value for key, value in token.items() if value is not None}
        if endpoint is not None:
            self.written["acaengine"]["main"] = {"url": f"https://{endpoint.host}", "timeout": "7s"}
            bench.shared.forget_endpoint("main")
            bench.endpoint = endpoint
        bench.sinks = sinks or bench.sinks
        (change,) = compare(config(before), config(self.written)).changed
        wiring = wired(change.config, bench.endpoint, bench.sinks, bench.shared)
        bench.token.inbox.append(Reconfigured(wiring, change))

    def change(
        self,
        sinks: list[MemorySink] | None = None,
        endpoint: ScriptedEndpoint | None = None,
        **keys: Any,  # noqa: ANN401 -- keys of the token, as they are written
    ) -> None:
        """The same, and the attempt that takes it in."""
        self.send(sinks, endpoint, **keys)
        self.bench.attempt()


# ── rotation ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_other_rotation_is_planned_anew() -> None:
    """Another fraction moves the rotation point of the token that is held; nothing is asked or looked at."""
    rig = Rig()
    bench = rig.rotate()
    held, looks = bench.facts.held, bench.sinks[0].looks

    rig.change(rotation={"fraction": 0.5})

    assert bench.next_at == pytest.approx(1000.0 + 3600.0)
    assert bench.facts.held == held
    assert (len(bench.endpoint.asked), bench.sinks[0].looks, bench.events) == (1, looks, [])


def test_rotation_point_that_has_passed_is_due() -> None:
    """If the rotation point has passed by the new plan, the token is rotated at once."""
    rig = Rig()
    bench = rig.rotate()
    rig.clock.advance(3600.0)

    rig.change(rotation={"fraction": 0.25})

    assert len(bench.endpoint.asked) == 2


def test_jitter_is_kept() -> None:
    """A token keeps its draw, so that the rotation points of tokens that change together stay spread."""
    rig = Rig(draw=0.5)
    rig.rotate()

    rig.change(scope="admin")

    assert rig.bench.facts.jitter == 0.5


def test_retry_after_a_failure_is_not_put_off() -> None:
    """A token that waits to try again keeps its time, whatever the new plan says."""
    rig = Rig()
    bench = rig.rotate()
    rig.clock.advance(7000.0)
    bench.endpoint.broken = REFUSED
    bench.attempt()
    retry_at = bench.next_at

    rig.change(rotation={"fraction": 0.99})

    assert (bench.next_at, len(bench.endpoint.asked)) == (retry_at, 2)


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_new_place_is_filled_alone() -> None:
    """A new place is looked at and gets the token that is held; the others are left alone, and no grant is made."""
    rig = Rig()
    bench = rig.rotate()
    old, new, looks = bench.sinks[0], file(), bench.sinks[0].looks

    rig.change([new, old], publish=[FILE, VAULT])

    assert new.content == old.content
    assert (len(bench.endpoint.asked), old.looks, old.writes) == (1, looks, 1)
    assert [event.sink for event in bench.told(Published)] == [new.name]


def test_new_place_gets_a_record() -> None:
    """Another process that meets the token at its new place finds there that the credential worked."""
    rig = Rig()
    bench = rig.rotate()
    new = MemorySink("vault:secret/aca/new")

    rig.change([new], publish=[VAULT | {"path": "aca/new"}])
    bench.run_for(5000.0)

    assert len(bench.endpoint.asked) == 2
    (entry,) = parse_record(new.records["attempts"][1]).entries
    assert entry.proven


def test_new_place_with_a_later_token_is_adopted() -> None:
    """If a new place holds a later token of this account, that one is adopted and brought to the others."""
    rig = Rig()
    bench = rig.rotate()
    replica = Bench(rig.clock, [file()], bench.config, suffix="-later")
    replica.attempt()
    rig.clock.advance(60.0)

    rig.change([bench.sinks[0], replica.sinks[0]], publish=[VAULT, FILE])

    assert bench.told(Adopted)
    assert bench.sinks[0].content == replica.sinks[0].content
    assert len(bench.endpoint.asked) == 1


def test_new_place_that_fails_is_tried_again() -> None:
    """A new place that cannot be read fails as any does: it is told, and tried again alone."""
    rig = Rig()
    bench = rig.rotate()
    new = file()
    new.look_errors.append(Reason.DIRECTORY_MISSING)

    rig.change([bench.sinks[0], new], publish=[VAULT, FILE])
    (failed,) = bench.told(Published)
    assert failed.failure is not None
    assert failed.failure.reason is Reason.DIRECTORY_MISSING
    bench.run_for(5.0)

    assert new.content == bench.sinks[0].content
    assert len(bench.endpoint.asked) == 1


def test_foreign_document_in_a_new_place_stays() -> None:
    """What somebody else keeps in a new place is not written over, even if its version is that of a write of ours."""
    rig = Rig()
    bench = rig.rotate()
    new = MemorySink("vault:secret/aca/new", place=[bench.sinks[0].place[0], "theirs"])

    rig.change([new], publish=[VAULT | {"path": "aca/new"}])

    assert (new.content, new.writes) == ("theirs", 0)


def test_failed_place_that_left_is_forgotten() -> None:
    """A place that failed and left is tried no more, and its failures count no longer."""
    rig = Rig([MemorySink(), file()])
    rig.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 2)
    bench = rig.rotate()
    assert bench.token.failures == 1

    rig.change(rig.sinks[:1], publish=[VAULT])

    assert bench.token.failures == 0
    assert bench.next_at == bench.facts.life.rotate  # type: ignore[union-attr]  # a token is held


def test_failed_place_that_stays_keeps_its_time() -> None:
    """A place that failed and stays is tried again when it would have been, and its failures count on."""
    rig = Rig([MemorySink(), file()])
    rig.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 2)
    rig.bench.attempt()
    retry_at, looks = rig.bench.next_at, rig.sinks[1].looks

    rig.change(rotation={"fraction": 0.5})

    assert (rig.bench.next_at, rig.sinks[1].looks, rig.bench.token.failures) == (retry_at, looks, 1)


def test_failed_place_is_tried_at_once_in_another_form() -> None:
    """A place that failed and is written in another way from now on may succeed: it is tried at once."""
    rig = Rig([MemorySink(), file()])
    rig.sinks[1].publish_errors.append(Reason.DISK_FULL)
    rig.bench.attempt()
    assert rig.sinks[1].content is None

    rig.change(publish=[VAULT, FILE | {"mode": "0600"}])

    assert rig.sinks[1].content == rig.bench.document


@pytest.mark.parametrize("restarted", [False, True])
def test_other_form_is_ours_to_replace(*, restarted: bool) -> None:
    """What reads as foreign because a place has another form is replaced, written or adopted by this process."""
    rig = Rig([file()], keys={"publish": [FILE]})
    bench = rig.rotate()
    if restarted:
        bench.restart()
        bench.attempt()
    place = [rig.sinks[0].place[0], "the old form"]

    rig.change([MemorySink(place=place)], publish=[FILE | {"mode": "0600"}])

    assert bench.sinks[0].content == bench.document
    assert len(bench.endpoint.asked) == 1


class Unversioned(MemorySink):
    """A sink whose stamps are text, such as KV version 1."""

    def read_record(self, name: str) -> SeenRecord:
        seen = super().read_record(name)
        return SeenRecord(seen.fields, f"{seen.stamp}")

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        assert isinstance(stamp, str)
        return f"{super().write_record(name, fields, int(stamp))}"


def test_stamp_of_another_kind_of_place_is_none() -> None:
    """After a mount got versions, the record that was read without them is read anew before it is written."""
    rig = Rig([Unversioned()], keys={"publish": [VAULT | {"kv_version": 1}]})
    bench, before = rig.bench, rig.sinks[0]
    bench.endpoint.answers.append(REFUSED)
    bench.attempt()
    assert before.records["attempts"]

    versioned = MemorySink(place=before.place, records=before.records)
    rig.change([versioned], publish=[VAULT | {"kv_version": 2}])
    bench.run_for(60.0)

    assert versioned.content == bench.document is not None
    assert versioned.records["attempts"][1] != {}


# ── account, scope, credential ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "keys",
    [
        {"username": "svc-other"},
        {"username": {"env": "USERNAME"}},
        {"authority": "authority-2"},
        {"client_id": "client-2"},
        {"scope": "admin"},
    ],
    ids=str,
)
def test_another_account_or_scope_is_rotated_at_once(keys: dict[str, Any]) -> None:
    """Another account or scope takes another token: it is granted at once and replaces the old one."""
    rig = Rig()
    bench = rig.rotate()
    bench.secrets.values["USERNAME"] = "svc-other"

    rig.change(**keys)

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content == bench.document is not None


@pytest.mark.parametrize("readable", [True, False])
def test_adopted_token_of_the_account_before_is_replaced(*, readable: bool) -> None:
    """What was adopted, and is ours by its account alone, is replaced too, even if it cannot be read meanwhile."""
    rig = Rig()
    bench, (sink,) = rig.rotate(), rig.sinks
    sink.put(replace(sink.content, token=""))  # as a daemon from before that field wrote it
    bench.restart()
    bench.attempt()
    assert len(bench.endpoint.asked) == 1
    if not readable:
        sink.look_errors.append(Reason.CONNECT_FAILED)
        rig.clock.advance(6000.0)
        bench.attempt()
        assert bench.facts.places[0].seen is None

    rig.change(username="svc-other")
    bench.run_for(10.0)

    assert isinstance(sink.content, Document)
    assert sink.content.username == "svc-other"


def test_another_server_is_rotated_at_once_and_proves_anew() -> None:
    """Another server is another account: a grant at once, claimed first, for no server vouches for another."""
    rig = Rig()
    bench = rig.rotate()
    requests = bench.sinks[0].record_requests

    rig.change(endpoint=ScriptedEndpoint(rig.clock, host="aca2.example.com", suffix="-2"))

    assert len(bench.endpoint.asked) == 1
    assert bench.sinks[0].record_requests > requests
    assert bench.sinks[0].content == bench.document is not None


def test_proven_credential_needs_no_claim_after_a_change() -> None:
    """A change of rotation keeps the credential proven: the next rotation costs no request to its record."""
    rig = Rig()
    bench = rig.rotate()
    requests = bench.sinks[0].record_requests

    rig.change(rotation={"fraction": 0.5})
    rig.clock.advance(3600.0)
    bench.attempt()

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].record_requests == requests


def test_other_reference_to_the_password_waits_for_the_next_grant() -> None:
    """Another place of the password makes no grant while the token is well."""
    rig = Rig()
    bench = rig.rotate()

    rig.change(password={"env": "NEW"})

    assert len(bench.endpoint.asked) == 1


class Running(FakeClock):
    """A clock that goes on by itself, as real ones do: two looks at it never tell the same time."""

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now


def failing() -> tuple[Rig, Bench]:
    """A token past its rotation point that waits after a failure."""
    rig = Rig(clock=Running())
    bench = rig.rotate()
    rig.clock.advance(6000.0)
    bench.endpoint.answers.append(GrantError(Reason.PROXY_FAILED, "no way through"))
    bench.attempt()
    rig.change(rotation={"max_rejections": 3})
    assert (len(bench.endpoint.asked), bench.failures) == (2, 1)
    return rig, bench


def test_failing_token_keeps_its_time_unless_its_way_changed() -> None:
    """A token that waits after a failure goes on to, whatever else changed, such as a place."""
    rig, bench = failing()

    rig.change([*rig.sinks, file()], publish=[VAULT, FILE])

    assert (len(bench.endpoint.asked), bench.failures) == (2, 1)


@pytest.mark.parametrize("keys", [{"password": {"env": "NEW"}}, {"scope": "admin"}, {"username": "svc-other"}], ids=str)
def test_failing_token_is_tried_at_once_with_what_is_new(keys: dict[str, Any]) -> None:
    """A token that waits after a failure is tried in the next attempt where what it is asked with changed."""
    rig, bench = failing()
    bench.secrets.values["NEW"] = "another"

    rig.change(**keys)

    assert (len(bench.endpoint.asked), bench.failures) == (3, 0)


def test_failing_token_is_tried_at_once_at_its_new_endpoint() -> None:
    """A token that waits after a failure is tried in the next attempt where its endpoint changed."""
    rig, bench = failing()

    rig.change(endpoint=ScriptedEndpoint(rig.clock, suffix="-2"))

    assert (len(bench.endpoint.asked), bench.failures) == (1, 0)


def suspended() -> tuple[Rig, Bench]:
    """A token whose credential was refused as often as it may be."""
    rig = Rig()
    rig.bench.endpoint.answers.extend([REFUSED] * 2)
    rig.bench.run_for(30.0)
    assert rig.bench.facts.suspension
    return rig, rig.bench


@pytest.mark.parametrize("keys", [{"password": {"env": "NEW"}}, {"client_secret": {"env": "NEW"}}], ids=str)
def test_suspended_token_resumes_with_another_credential(keys: dict[str, Any]) -> None:
    """A suspended token goes on at once when a reference leads to another credential."""
    rig, bench = suspended()
    bench.secrets.values["NEW"] = "another"

    rig.change(**keys)

    assert bench.told(Resumed)
    assert bench.document is not None


def test_suspended_token_stays_so_with_the_same_credential() -> None:
    """Another reference that leads to the very credential that was refused makes no request."""
    rig, bench = suspended()
    bench.secrets.values["NEW"] = bench.secrets.values["PASSWORD"]

    rig.change(password={"env": "NEW"})

    assert bench.facts.suspension
    assert len(bench.endpoint.asked) == 2


def test_another_account_is_not_suspended() -> None:
    """What was refused to one account keeps another from nothing."""
    rig, bench = suspended()

    rig.change(username="svc-other")

    assert not bench.facts.suspension
    assert bench.document is not None


@pytest.mark.parametrize("username", ["svc-before", {"env": "USERNAME"}], ids=str)
def test_what_failed_for_another_account_is_no_failure_of_this_one(username: str | dict[str, str]) -> None:
    """Back with the account whose token is fresh, nothing fails any more: what was refused was another account."""
    rig = Rig(keys={"username": username})
    rig.bench.secrets.values["USERNAME"] = "svc-before"
    bench = rig.rotate()
    bench.endpoint.answers.append(REFUSED)
    rig.change(username="svc-other")
    assert bench.failures == 1

    rig.change(username=username)

    assert (len(bench.endpoint.asked), bench.failures) == (2, 0)


def test_other_wait_for_a_cautious_attempt() -> None:
    """Another `retry_rejected` holds for a token that is suspended already, from when it was refused."""
    rig, bench = suspended()
    suspension = bench.facts.suspension
    assert suspension is not None

    rig.change(rotation={"retry_rejected": "0s"})
    bench.run_for(4000.0)
    assert len(bench.endpoint.asked) == 2
    rig.change(rotation={"retry_rejected": "2h"})
    rig.clock.now = suspension.refused_at + 7100.0
    bench.attempt()
    assert len(bench.endpoint.asked) == 2
    bench.run_for(110.0)

    assert len(bench.endpoint.asked) == 3
    assert bench.document is not None


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def held_up() -> tuple[Rig, Bench]:
    """A token that waits for its endpoint."""
    rig = Rig()
    bench = rig.rotate()
    rig.clock.advance(6000.0)
    bench.endpoint.broken = HELD_OFF
    bench.attempt()
    rig.clock.advance(300.0)
    other = bench.token.wiring.gate
    other.failed("another", bench.clock.now, bench.clock.now, 300.0, 0.5)
    bench.attempt()
    assert bench.facts.waits_for == "endpoint_held"
    bench.events.clear()
    return rig, bench


def test_place_that_is_new_while_the_endpoint_is_held_is_filled() -> None:
    """A new place gets the token that is held while this goes on waiting for its endpoint, and no failure is told."""
    rig, bench = held_up()
    new = file()

    rig.change([bench.sinks[0], new], publish=[VAULT, FILE])

    assert new.content == bench.document
    assert all(event.failure is None for event in bench.told(Published))
    assert (bench.facts.waits_for, bench.token.wiring.gate.breaker.waiting) == ("endpoint_held", 2)


def test_waiting_token_goes_on_at_its_new_endpoint() -> None:
    """A token that waits for an endpoint asks the one that replaces it, and the old breaker waits for it no more."""
    rig, bench = held_up()
    before = bench.token.wiring.gate

    rig.change(endpoint=ScriptedEndpoint(rig.clock, suffix="-2"))

    assert bench.token.wiring.gate is not before
    assert before.breaker.waiting == 1, "the other one alone"
    assert len(bench.endpoint.asked) == 1
    assert not bench.facts.waits_for


def test_token_that_moves_passes_its_turn_to_claim() -> None:
    """Who was told to claim at an endpoint, and leaves it by a reload, lets the next that waits there claim."""
    rig = Rig()
    bench = rig.rotate()
    claims, name = bench.token.wiring.gate.claims, bench.token.name
    claimed = [f"other-{number}" for number in range(claims.most)]
    assert all(claims.enter(it, 0.0) for it in claimed)
    assert not claims.enter(name, 1.0)
    assert not claims.enter("next", 2.0)
    assert [wake.token for wake in claims.passed(claimed[0], rig.clock.now)] == [name]

    rig.change(endpoint=ScriptedEndpoint(rig.clock, suffix="-2"))

    assert "next" in {wake.token for wake in bench.woken}


def test_token_that_moves_passes_its_turn_to_probe() -> None:
    """Who was told to probe an endpoint, and leaves it by a reload, lets the next that waits there probe."""
    rig = Rig()
    bench = rig.rotate()
    gate, now = bench.token.wiring.gate, rig.clock.now
    gate.failed("other", now + 100.0, now, 1.0, 0.5)
    gate.admit(bench.token.name, now + 50.0, now)
    assert gate.failed("other", now + 100.0, now, 1.0, 0.5)[0].token == bench.token.name

    rig.change(endpoint=ScriptedEndpoint(rig.clock, suffix="-2"))

    assert "other" in {wake.token for wake in bench.woken}


# ── canary ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_canary_follows_its_configuration() -> None:
    """A canary that a reload sets up tries the token in use at once and after its time; one that it ends does not."""
    rig = Rig()
    bench = rig.rotate()

    rig.change(verify={"path": "/api/me", "every": "30s"})
    assert (bench.endpoint.verified, bench.next_at) == (1, rig.clock.now + 30.0)
    bench.run_for(31.0)
    assert bench.endpoint.verified == 2
    rig.change(verify={"path": "/api/me"})
    bench.run_for(3600.0)

    assert (bench.endpoint.verified, len(bench.endpoint.asked)) == (2, 1)


def test_pending_token_is_used_once_nothing_need_try_it() -> None:
    """A token that could not be tried is published at once when a reload ends the trying."""
    rig = Rig(keys={"verify": {"path": "/api/me"}})
    bench = rig.bench
    bench.attempt()
    rig.clock.advance(6000.0)
    bench.endpoint.verify_error = UNTRIED
    bench.attempt()
    assert (bench.failures, len(bench.endpoint.asked)) == (1, 2)

    rig.change(verify=None)

    assert bench.facts.pending is None
    assert bench.sinks[0].content == bench.document is not None
    assert len(bench.endpoint.asked) == 2


def test_pending_token_of_the_account_before_is_published_no_more() -> None:
    """Where a reload ends the trying, whose token it is is resolved first: the one of another account is dropped."""
    rig = Rig(keys={"verify": {"path": "/api/me"}, "username": {"env": "USER"}})
    bench = rig.bench
    bench.secrets.values["USER"] = "svc-before"
    bench.attempt()
    rig.clock.advance(6000.0)
    bench.endpoint.verify_error = UNTRIED
    bench.attempt()
    assert (bench.failures, len(bench.endpoint.asked)) == (1, 2)
    bench.secrets.values["USER"] = "svc-after"
    rig.clock.advance(2.0)

    rig.change(verify=None)

    assert bench.facts.pending is None
    assert bench.sinks[0].content.username == "svc-after"


# ── reloads amid other things ─────────────────────────────────────────────────────────────────────────────────────────


def busy(bench: Bench) -> list[bool]:
    """At which places a call hangs."""
    return [place.busy is not None for place in bench.facts.places]


def hanging() -> tuple[Rig, Bench]:
    """A token that is due, of whose two places the second hangs in a look."""
    rig = Rig([MemorySink(), file()])
    bench = rig.rotate()
    rig.clock.advance(6000.0)
    bench.hanging = "file"
    bench.attempt()
    assert busy(bench) == [False, True]
    assert rig.sinks[0].content == bench.document != rig.sinks[1].content
    return rig, bench


def test_late_answer_of_a_place_that_left_is_ignored() -> None:
    """What a place answers after a reload has replaced it says nothing of the place that replaced it."""
    rig, bench = hanging()
    bench.hanging = ""
    new = file("file:/run/aca/other.json")
    rig.change([rig.sinks[0], new], publish=[VAULT, OTHER_FILE])
    known, writes = bench.facts, rig.sinks[1].writes
    assert new.content == bench.document

    bench.answer_late()
    bench.attempt()

    assert bench.facts == known
    assert (rig.sinks[1].writes, new.writes) == (writes, 1)


def test_place_that_hangs_is_read_anew_in_another_form() -> None:
    """Nobody waits for the answer of a place that is written in another way from now on."""
    rig, bench = hanging()
    bench.hanging = ""
    rig.change(publish=[VAULT, FILE | {"mode": "0600"}])

    assert busy(bench) == [False, False]
    assert rig.sinks[1].content == bench.document


def test_place_that_was_written_late_hangs_no_longer() -> None:
    """A write whose answer comes late is not made again."""
    rig = Rig([MemorySink(), file()])
    rig.sinks[0].before_publish = lambda: setattr(rig.bench, "hanging", "file")
    rig.bench.attempt()
    assert busy(rig.bench) == [False, True]

    rig.bench.answer_late()
    rig.bench.attempt()
    assert busy(rig.bench) == [False, False]
    assert rig.sinks[1].content == rig.bench.document
    assert rig.sinks[1].writes == 1


def test_place_that_fails_late_is_tried_again() -> None:
    """A place whose answer comes late and is a failure hangs no longer."""
    rig, bench = hanging()
    rig.sinks[1].look_errors.append(Reason.UNAVAILABLE)
    bench.answer_late()
    bench.attempt()
    bench.run_for(61.0)

    assert busy(bench) == [False, False]
    assert rig.sinks[1].content == bench.document


def test_late_answer_is_taken_in_wherever_its_place_stands_now() -> None:
    """A place that stays, though elsewhere in the list, is waited for, and served once it answers."""
    rig, bench = hanging()
    vault, slow = rig.sinks
    looks = slow.looks

    rig.change([slow, vault], publish=[FILE, VAULT])
    assert busy(bench) == [True, False]
    bench.answer_late()
    bench.attempt()

    assert busy(bench) == [False, False]
    assert slow.content == vault.content == bench.document
    assert slow.looks == looks + 1, "the one that came late"


def test_two_reloads_in_a_row() -> None:
    """Each reload is taken in from what the one before left: a place that left and came back is looked at anew."""
    rig = Rig([MemorySink(), file()])
    bench = rig.rotate()
    vault, one = rig.sinks
    looks, other = (vault.looks, one.looks), file("file:/run/aca/other.json")

    rig.send([other, vault], publish=[OTHER_FILE, VAULT])
    rig.send([vault, one], publish=[VAULT, FILE])
    bench.attempt()

    assert (vault.looks, one.looks, other.looks) == (looks[0], looks[1] + 1, 0)
    assert len(bench.endpoint.asked) == 1


def test_reload_amid_an_attempt_is_taken_in_by_it() -> None:
    """A reload that comes while a grant is under way is taken in after it, and what it makes due is done at once."""
    rig = Rig(clock=Running())
    bench, new = rig.bench, file()
    bench.endpoint.latency = 1.0

    def reload() -> None:
        bench.endpoint.before_answer = None
        rig.send([rig.sinks[0], new], publish=[VAULT, FILE], username="svc-other")

    bench.endpoint.before_answer = reload

    bench.attempt()

    assert [it.username for it in bench.endpoint.asked] == ["svc-0", "svc-other"]
    assert rig.sinks[0].content == new.content == bench.document
    assert new.content.username == "svc-other"
