"""What a token keeps when its configuration changes, and what becomes of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import EnvReference, VerifyConfig
from aca_tokend.core.errors import GrantRejected, GrantUnavailable
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.outcome import Adopted, Published, Reason, Resumed
from aca_tokend.rotation.credentials import Resolver
from aca_tokend.rotation.facts import Busy
from aca_tokend.rotation.managed import Late, Reconfigured, Woken
from tests.fakes import Bench, MemorySink, ScriptedEndpoint, drive, token_config, wired

if TYPE_CHECKING:
    from collections.abc import Mapping

FOREVER = token_config(retry_rejected="0s").rotation


class Changing(Bench):
    """A token that was rotated once, and is given other configurations."""

    def rotate(self) -> Changing:
        self.attempt()
        assert self.document is not None
        self.clock.advance(60.0)
        self.events.clear()
        return self

    def change(
        self,
        sinks: list[MemorySink] | None = None,
        previous: tuple[int | None, ...] | None = None,
        *,
        alike: bool = True,
        endpoint: ScriptedEndpoint | None = None,
        rotation: dict[str, Any] | None = None,
        **keys: Any,  # noqa: ANN401 -- the keys of a token
    ) -> None:
        """Another configuration, and the attempt that takes it over."""
        self.reload(sinks, previous, alike=alike, endpoint=endpoint, rotation=rotation, **keys)
        self.attempt()

    def reload(
        self,
        sinks: list[MemorySink] | None = None,
        previous: tuple[int | None, ...] | None = None,
        *,
        alike: bool = True,
        endpoint: ScriptedEndpoint | None = None,
        rotation: dict[str, Any] | None = None,
        **keys: Any,  # noqa: ANN401 -- the keys of a token
    ) -> None:
        """Another configuration, which the next attempt takes over."""
        before = self.config
        if rotation:
            keys["rotation"] = before.rotation.model_copy(update=rotation)
        anew = endpoint is not None or not keys.keys().isdisjoint({"password", "client_secret"})
        self.sinks, self.endpoint = sinks or self.sinks, endpoint or self.endpoint
        self.config = before.model_copy(update=keys)
        config = self.config.model_copy(update={"publish": tuple(self._places())})
        wiring = wired(config, self.endpoint, self.sinks, self.shared, self.hooks)
        previous = tuple(range(len(self.sinks))) if previous is None else previous
        same = tuple(alike and it is not None for it in previous)
        self.token.inbox.append(Reconfigured(wiring, previous, same, anew))


def test_other_rotation_is_planned_anew() -> None:
    """Another fraction moves the rotation point of the token that is held; nothing is asked or looked at."""
    bench = Changing().rotate()
    looks = bench.sinks[0].looks

    bench.change(rotation={"fraction": 0.5, "jitter": 0.0})

    assert bench.next_at == pytest.approx(1000.0 + 3600.0)
    assert (len(bench.endpoint.asked), bench.sinks[0].looks, bench.events) == (1, looks, [])


def test_rotation_point_that_has_passed_is_due() -> None:
    """If the rotation point has passed by the new plan, the token is rotated at once."""
    bench = Changing().rotate()
    bench.clock.advance(3600.0)

    bench.change(rotation={"fraction": 0.25, "jitter": 0.0})

    assert len(bench.endpoint.asked) == 2


def test_retry_after_a_failure_is_not_put_off() -> None:
    """A token that waits to try again keeps its time, whatever the new plan says."""
    bench = Changing().rotate()
    bench.clock.advance(7000.0)
    bench.endpoint.broken = GrantRejected(Reason.INVALID_GRANT, "refused")
    bench.attempt()
    retry_at = bench.next_at

    bench.change(rotation={"fraction": 0.99, "jitter": 0.0})

    assert bench.next_at == retry_at


def test_added_sink_is_filled_alone() -> None:
    """A new sink is looked at and gets the token that is held; the others are left alone, and no grant is made."""
    bench = Changing().rotate()
    old, new = bench.sinks[0], MemorySink("file:/run/aca/bookings.json", "file", "file")
    looks, rotate_at = old.looks, bench.next_at

    bench.change([old, new], (0, None))

    assert new.content == old.content
    assert (len(bench.endpoint.asked), old.looks, bench.next_at) == (1, looks, rotate_at)
    assert [event.sink for event in bench.told(Published)] == [new.name]


def test_added_sink_with_a_later_token_is_adopted() -> None:
    """If the new sink holds a later token of this account, that one is adopted and brought to the others."""
    later = Changing(sinks=[MemorySink("vault.other:secret/aca/bookings")], suffix="-later")
    bench = Changing().rotate()
    later.clock = bench.clock
    later.__post_init__()
    later.rotate()

    bench.change([bench.sinks[0], later.sinks[0]], (0, None))

    assert bench.told(Adopted)
    assert bench.sinks[0].content == later.sinks[0].content
    assert len(bench.endpoint.asked) == 1


def test_added_sink_that_fails_is_tried_again() -> None:
    """A new sink that cannot be read fails as any sink does: it is told, and tried again alone."""
    bench = Changing().rotate()
    new = MemorySink("file:/run/aca/bookings.json", "file", "file")
    new.look_errors.append(Reason.DIRECTORY_MISSING)

    bench.change([bench.sinks[0], new], (0, None))
    (failed,) = bench.told(Published)
    assert failed.failure is not None
    assert failed.failure.reason is Reason.DIRECTORY_MISSING
    bench.run_for(5.0)

    assert new.content == bench.sinks[0].content
    assert len(bench.endpoint.asked) == 1


def test_foreign_document_in_an_added_sink_stays() -> None:
    """What somebody else keeps in the place of a new sink is not written over, whatever its version."""
    bench = Changing().rotate()
    new = MemorySink("vault:secret/aca/new", place=[bench.sinks[0].place[0], "theirs"])

    bench.change([bench.sinks[0], new], (0, None))

    assert new.content == "theirs"
    assert new.writes == 0


def test_removed_sink_that_failed_is_forgotten() -> None:
    """A sink that failed and left is tried no more, and its failures count no longer."""
    bench = Changing(sinks=[MemorySink(), MemorySink("file:/run/aca/bookings.json", "file", "file")])
    bench.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 2)
    bench.rotate()
    assert bench.facts.places[1].failure

    bench.change(bench.sinks[:1])

    assert [place.failure for place in bench.facts.places] == [None]
    assert bench.next_at > bench.clock.now + 3600.0


def test_other_form_of_an_adopted_token_is_ours_to_replace() -> None:
    """What was adopted and now reads as foreign, because the sink has another form, is replaced and not refused."""
    bench = Changing().rotate()
    bench.restart()
    bench.rotate()
    assert len(bench.endpoint.asked) == 1
    place = [bench.sinks[0].place[0], "the old form"]

    bench.change([MemorySink(place=place)], (0,), alike=False)

    assert bench.sinks[0].content == bench.document
    assert len(bench.endpoint.asked) == 1


@pytest.mark.parametrize(
    "keys", [{"username": "svc-other"}, {"authority": "authority-2"}, {"client_id": "client-2"}, {"scope": "admin"}]
)
def test_another_account_or_scope_is_rotated_at_once(keys: dict[str, str]) -> None:
    """Another account or scope takes another token: it is granted at once and replaces the old one."""
    bench = Changing().rotate()
    changed: dict[str, Any] = dict(keys)

    bench.change(**changed)

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content == bench.document


def test_adopted_token_of_the_account_before_is_replaced() -> None:
    """What was adopted, not written by this process, is replaced too once the token has another account."""
    bench = Changing().rotate()
    bench.restart()
    bench.rotate()

    bench.change(username="svc-other")

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content == bench.document
    assert bench.facts.everywhere


def test_another_server_is_rotated_at_once_and_proves_anew() -> None:
    """Another server is another account: a grant at once, claimed first, for no server vouches for another."""
    bench = Changing().rotate()
    requests = bench.sinks[0].record_requests

    bench.change(endpoint=ScriptedEndpoint(bench.clock, host="aca2.example.com", suffix="-2"))

    assert len(bench.endpoint.asked) == 1
    assert bench.sinks[0].record_requests > requests
    assert bench.sinks[0].content == bench.document


def test_other_reference_to_the_password_waits_for_the_next_grant() -> None:
    """Another place of the password makes no grant while the token is well."""
    bench = Changing().rotate()

    bench.change(password=EnvReference(env="NEW"))

    assert len(bench.endpoint.asked) == 1


def test_failing_token_is_tried_at_once_when_its_way_was_mended() -> None:
    """A token that waits after a failure is tried at once where its endpoint or a reference changed, else in time."""
    bench = Changing().rotate()
    bench.clock.advance(5000.0)
    bench.endpoint.broken = GrantUnavailable(Reason.PROXY_FAILED, "no way through")
    bench.attempt()
    assert len(bench.endpoint.asked) == 2
    bench.change(rotation={"max_rejections": 3})
    assert len(bench.endpoint.asked) == 2

    bench.change(endpoint=ScriptedEndpoint(bench.clock, suffix="-2"))
    assert len(bench.endpoint.asked) == 1
    assert bench.failures == 0

    bench.clock.advance(5000.0)
    bench.secrets.values.clear()
    bench.attempt()
    bench.secrets.values.update({"NEW": "p", "CLIENT_SECRET": "s"})
    bench.change(password=EnvReference(env="NEW"))
    assert len(bench.endpoint.asked) == 2


def test_sink_added_while_the_endpoint_is_held_is_filled() -> None:
    """While a token waits for its endpoint, a new sink gets the token that is held, and no failure is told of it."""
    bench = Changing().rotate()
    bench.clock.advance(5000.0)
    bench.endpoint.broken = GrantUnavailable(Reason.RATE_LIMITED, "later", retry_after_seconds=300.0)
    bench.attempt()
    bench.clock.advance(1.0)
    bench.token.inbox.append(Woken(bench.clock.now))
    bench.attempt()
    assert bench.facts.waiting is not None
    assert bench.facts.waiting.why == "endpoint_held"
    bench.events.clear()
    new = MemorySink("file:/run/aca/bookings.json", "file", "file")

    bench.change([bench.sinks[0], new], (0, None))

    assert new.content == bench.document
    assert all(event.failure is None for event in bench.told(Published))


def test_token_that_changed_is_waited_for_no_more() -> None:
    """A token whose endpoint changed does not go on waiting at the breaker of the one before: a turn would be lost."""
    bench = Changing().rotate()
    bench.clock.advance(5000.0)
    bench.endpoint.broken = GrantUnavailable(Reason.RATE_LIMITED, "later", retry_after_seconds=300.0)
    bench.attempt()
    before = bench.token.wiring.gate
    assert before.breaker.waiting == 1

    bench.shared.forget_endpoint("main")
    bench.change()

    assert bench.token.wiring.gate is not before
    assert before.breaker.waiting == 0


def test_suspended_token_resumes_with_another_password() -> None:
    """A token suspended for its password goes on at once when its reference leads to another one."""
    bench = Changing()
    bench.endpoint.answers.extend([GrantRejected(Reason.INVALID_GRANT, "refused")] * 2)
    bench.run_for(30.0)
    assert bench.facts.suspension
    bench.secrets.values["NEW"] = "another password"

    bench.change(password=EnvReference(env="NEW"))

    assert bench.told(Resumed)
    assert bench.document is not None


def test_proven_credential_needs_no_claim_after_a_change() -> None:
    """A change of rotation keeps the credential proven: the next rotation costs no request to its record."""
    bench = Changing().rotate()
    requests = bench.sinks[0].record_requests

    bench.change(rotation={"fraction": 0.5})
    bench.clock.advance(3600.0)
    bench.attempt()

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].record_requests == requests


class Unversioned(MemorySink):
    """A sink whose stamps are text, such as KV version 1."""

    def read_record(self, name: str) -> SeenRecord:
        seen = super().read_record(name)
        return SeenRecord(seen.fields, f"{seen.stamp}")

    def write_record(self, name: str, fields: Mapping[str, object], stamp: object) -> object:
        assert isinstance(stamp, str)
        return f"{super().write_record(name, fields, int(stamp))}"


def test_stamp_of_another_kind_of_sink_is_none() -> None:
    """After a mount got versions, the record that was read without them is read anew before it is written."""
    bench = Changing(sinks=[Unversioned()])
    bench.endpoint.answers.append(GrantRejected(Reason.INVALID_GRANT, "refused"))
    bench.attempt()
    before = bench.sinks[0]
    assert before.records["attempts"]

    versioned = MemorySink(place=before.place, records=before.records)
    bench.change([versioned], (0,), alike=False)
    bench.run_for(60.0)

    assert bench.facts.everywhere
    assert versioned.records["attempts"][1] != {}


def test_canary_follows_its_configuration() -> None:
    """A canary that is set up by a reload tries the token in use at once and then regularly; another ends it."""
    bench = Changing().rotate()
    bench.change(verify=VerifyConfig(path="/api/me", every=30.0))
    assert bench.endpoint.verified == 1
    bench.run_for(31.0)
    assert bench.endpoint.verified == 2

    bench.change(verify=None)
    bench.run_for(300.0)

    assert bench.endpoint.verified == 2


def test_other_wait_for_a_cautious_attempt() -> None:
    """Another `retry_rejected` holds for a token that is suspended already."""
    bench = Changing()
    bench.endpoint.answers.extend([GrantRejected(Reason.INVALID_GRANT, "refused")] * 2)
    bench.run_for(30.0)

    bench.change(rotation={"retry_rejected": 0.0})
    bench.run_for(7200.0)
    assert len(bench.endpoint.asked) == 2
    bench.change(rotation={"retry_rejected": 600.0})
    bench.run_for(60.0)
    assert len(bench.endpoint.asked) == 3


# ── accounts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_document_of_the_old_account_stays_until_there_is_a_new_token() -> None:
    """While no token of another account can be had, what is published is left to readers."""
    bench = Changing().rotate()
    before = bench.sinks[0].content
    bench.endpoint.broken = GrantUnavailable(Reason.UNAVAILABLE, "503")

    bench.change(username="svc-other")
    bench.run_for(600.0)
    assert bench.sinks[0].content == before
    assert bench.document is None, "it is not the configured account's"

    bench.endpoint.broken = None
    bench.run_for(600.0)
    assert bench.sinks[0].content == bench.document
    assert bench.sinks[0].content.username == "svc-other"


def test_account_of_before_is_had_again_at_once() -> None:
    """Back to the account before, its token is used again as long as it is valid: nothing is asked for."""
    bench = Changing().rotate()
    bench.endpoint.broken = GrantUnavailable(Reason.UNAVAILABLE, "503")
    bench.change(username="svc-other")

    bench.change(username="svc-bookings")

    assert bench.document is not None
    assert bench.document.username == "svc-bookings"
    assert [it.username for it in bench.endpoint.asked] == ["svc-bookings", "svc-other"]


@pytest.mark.parametrize("what", ["authority", "host"])
def test_wrong_account_that_is_fixed_is_rotated_at_once(what: str) -> None:
    """A suspension for a wrong authority or host ends with it: the credential is another one with the right one."""
    bench = Changing()
    bench.config = bench.config.model_copy(update={"authority": "wrong", "rotation": FOREVER})
    bench.endpoint.broken = GrantRejected(Reason.INVALID_GRANT, "refused")
    bench.restart()
    bench.attempt()
    bench.run_for(300.0)
    assert bench.facts.suspension

    bench.endpoint.broken = None
    if what == "host":
        bench.change(endpoint=ScriptedEndpoint(bench.clock, host="other.example.com"))
    else:
        bench.change(authority="authority-1")

    assert bench.document is not None
    assert bench.sinks[0].content == bench.document


def test_wrong_scope_that_is_fixed_is_rotated_at_once() -> None:
    """A suspension for a scope ends with it; one for a password does not, as that is the same."""
    bench = Changing()
    bench.config = bench.config.model_copy(update={"rotation": FOREVER})
    bench.restart()
    bench.endpoint.broken = GrantRejected(Reason.INVALID_SCOPE, "refused")
    bench.attempt()
    bench.run_for(300.0)
    assert bench.facts.suspension
    bench.endpoint.broken = GrantRejected(Reason.INVALID_GRANT, "refused")
    asked = len(bench.endpoint.asked)

    bench.change(scope="admin")
    bench.run_for(300.0)
    assert len(bench.endpoint.asked) == asked + 2
    assert bench.facts.suspension

    bench.endpoint.broken = None
    bench.change(scope="public")
    bench.run_for(300.0)
    assert len(bench.endpoint.asked) == asked + 2


# ── reloads in a row, and places at which a call hangs ────────────────────────────────────────────────────────────────


def test_two_reloads_before_the_next_attempt() -> None:
    """Of two reloads the second counts, and a place that was there before both keeps what is known of it."""
    bench = Changing().rotate()
    old, new = bench.sinks[0], MemorySink("file:/run/aca/bookings.json", "file", "file")
    looks = old.looks

    bench.reload([old, new], (0, None))
    bench.reload([new, old], (1, 0))
    bench.attempt()

    assert new.content == old.content == bench.document
    assert (old.looks, len(bench.endpoint.asked)) == (looks, 1)


def test_place_that_left_and_came_back_is_read_anew() -> None:
    """What is known of a place ends when it leaves, though the next reload brings it back."""
    bench = Changing(sinks=[MemorySink(), MemorySink("file:/run/aca/bookings.json", "file", "file")]).rotate()
    first, second = bench.sinks
    looks = second.looks

    bench.reload([first], (0,))
    bench.change([first, second], (0, None))

    assert second.looks == looks + 1
    assert second.content == bench.document


def test_busy_place_stays_busy() -> None:
    """A call that hangs at a place is waited for over a reload, and its answer is taken in where the place stayed."""
    bench = Changing().rotate()
    seen = bench.facts.places[0].seen
    bench.token.facts = bench.facts.with_place(0, busy=Busy(77, None), seen=None)

    bench.change(rotation={"fraction": 0.5})
    busy = bench.facts.places[0].busy
    assert busy
    bench.token.inbox.append(Late(77, seen))
    bench.attempt()

    assert bench.facts.places[0].busy is None
    assert bench.facts.everywhere


def test_late_answer_of_a_place_that_was_replaced_is_dropped() -> None:
    """What a place answers that a reload replaced is not taken for an answer of the new one."""
    bench = Changing().rotate()
    seen = bench.facts.places[0].seen
    bench.token.facts = bench.facts.with_place(0, busy=Busy(77, None), seen=None)

    bench.change([MemorySink("vault:secret/aca/new")], (None,))
    bench.token.inbox.append(Late(77, seen))
    bench.attempt()

    assert bench.sinks[0].content == bench.document


def test_waiting_token_is_not_left_waiting() -> None:
    """A token that waits for another's attempt is tried at once after a reload: the other may not wake it any more."""
    bench = Changing()
    credential = bench.shared.known(drive(Resolver(bench.secrets).resolve(bench.config, bench.endpoint, 0.0))).user
    permit = object()
    credential.enter(bench.facts, bench.token.wiring.rules, bench.clock.now, permit)
    bench.attempt()
    assert bench.facts.waiting is not None
    credential.answered(permit, bench.token.wiring.rules, bench.clock.now, None)

    bench.change(rotation={"fraction": 0.5})

    assert bench.document is not None


def test_jitter_is_kept() -> None:
    """A token keeps its jitter over a reload, so that thousands do not draw anew and come at once."""
    bench = Changing(draw=0.7).rotate()

    bench.change(rotation={"fraction": 0.5})

    assert bench.facts.jitter == 0.7
