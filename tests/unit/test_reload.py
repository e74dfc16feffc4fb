"""What a changed configuration means: which tokens it concerns, what they keep, and when what left is ended."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import Config, parse
from aca_tokend.core.errors import GrantRejected, GrantUnavailable
from aca_tokend.core.guard import SeenRecord
from aca_tokend.core.outcome import Adopted, Published, Reason, Resumed
from aca_tokend.reload import Change, Changes, Origin, Retired, Source, compare, take_over
from tests.fakes import Bench, MemorySink, ScriptedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Document = dict[str, Any]


def document(tokens: int = 1) -> Document:
    """A configuration as it is written: two endpoints, two Vaults, tokens that use the first of each."""
    auth = {"method": "token", "token": {"env": "VAULT_TOKEN"}}
    return {
        "acaengine": {"main": {"url": "https://aca.example.com"}, "other": {"url": "https://other.example.com"}},
        "vault": {
            "main": {"address": "https://vault.example.com:8200", "auth": auth},
            "other": {"address": "https://other.example.com:8200", "auth": auth},
        },
        "tokens": [
            {
                "name": f"t{number}",
                "acaengine": "main",
                "authority": "authority-1",
                "username": f"svc-{number}",
                "password": {"env": "PASSWORD"},
                "client_id": "client-1",
                "client_secret": {"env": "CLIENT_SECRET"},
                "scope": "public",
                "publish": [
                    {"to": "vault", "mount": "secret", "path": f"aca/t{number}"},
                    {"to": "file", "path": f"/run/aca/t{number}.json"},
                ],
            }
            for number in range(tokens)
        ],
    }


def config(written: Document) -> Config:
    return parse([("config.toml", written)])


def changes(tokens: int, edit: Callable[[Document], object]) -> Changes:
    """What an edit of a configuration of so many tokens changes."""
    before = document(tokens)
    after = deepcopy(before)
    edit(after)
    return compare(config(before), config(after))


def names(found: Changes) -> tuple[list[str], list[str], list[str], int]:
    return [t.name for t in found.added], [t.name for t, _ in found.changed], list(found.removed), found.unchanged


# ── compare ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_same_content_is_no_change() -> None:
    """Two configurations that say the same differ in nothing."""
    assert names(changes(3, lambda it: it)) == ([], [], [], 3)


def test_order_is_no_change() -> None:
    """The order of tokens changes none of them."""
    assert names(changes(3, lambda it: it["tokens"].reverse())) == ([], [], [], 3)


def test_added_changed_removed() -> None:
    """Each token is counted once, by what happened to it."""

    def edit(it: Document) -> None:
        it["tokens"][0]["scope"] = "admin"
        it["tokens"][1]["name"] = "new"

    assert names(changes(3, edit)) == (["new"], ["t0"], ["t1"], 1)


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (lambda it: it["acaengine"]["main"].update(timeout="7s"), ["t0", "t1"]),
        (lambda it: it["acaengine"]["other"].update(timeout="7s"), []),
        (lambda it: it["vault"]["main"].update(timeout="7s"), ["t0", "t1"]),
        (lambda it: it["vault"]["other"].update(timeout="7s"), ["t1"]),
        (lambda it: it.update(rotation={"fraction": 0.5}), ["t0", "t1"]),
        (lambda it: it["acaengine"].update(third={"url": "https://third.example.com"}), []),
        (lambda it: it.update(admin={"listen": ""}), []),
    ],
    ids=["its endpoint", "another endpoint", "its vault", "vault of a secret", "defaults", "new endpoint", "pages"],
)
def test_what_a_token_uses_is_part_of_it(edit: Callable[[Document], object], changed: list[str]) -> None:
    """A token whose endpoint or Vault changed has changed, be it that only a secret comes from that Vault."""
    before = document(2)
    before["tokens"][1]["password"] = {"vault": "secret/aca#password", "vault_name": "other"}
    after = deepcopy(before)
    edit(after)

    assert names(compare(config(before), config(after)))[1] == changed


def test_origins_of_sinks() -> None:
    """A sink comes from the one that publishes to the same place, wherever it stands and in whichever form."""

    def edit(it: Document) -> None:
        vault, file = it["tokens"][0]["publish"]
        new = {"to": "file", "path": "/run/aca/new.json"}
        it["tokens"][0]["publish"] = [file | {"mode": "0600"}, new, vault]

    ((_, origins),) = changes(1, edit).changed

    assert origins == (Origin(1, alike=False), None, Origin(0, alike=True))


def test_same_path_in_another_vault_is_another_place() -> None:
    """Where the Vault has another address, its sinks are new; with another log-in they are what they were."""
    ((_, moved),) = changes(1, lambda it: it["vault"]["main"].update(address="https://v2.example.com:8200")).changed
    ((_, logged_in),) = changes(1, lambda it: it["vault"]["main"]["auth"].update(token={"env": "OTHER"})).changed

    assert moved == (None, Origin(1, alike=True))
    assert logged_in == (Origin(0, alike=True), Origin(1, alike=True))


# ── take_over ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Changing(Bench):
    """A token that was rotated once, and is given other configurations."""

    def rotate(self) -> Changing:
        self.attempt()
        assert self.state.document is not None
        self.clock.advance(60.0)
        self.events.clear()
        return self

    def change(
        self,
        sinks: list[MemorySink] | None = None,
        origins: tuple[Origin | None, ...] | None = None,
        *,
        endpoint: ScriptedEndpoint | None = None,
        rotation: dict[str, Any] | None = None,
        **keys: Any,  # noqa: ANN401 -- the keys of a token
    ) -> None:
        """Another configuration, and the attempt that takes it over."""
        if rotation:
            keys["rotation"] = self.state.config.rotation.model_copy(update=rotation)
        self.sinks = sinks or self.sinks
        self.endpoint = endpoint or self.endpoint
        fresh = self.shared.state(self.state.config.model_copy(update=keys), self.endpoint, self.sinks, 10.0)
        alike = tuple(Origin(number, alike=True) for number in range(len(self.sinks)))
        take_over(self.state, Change(fresh, origins or alike), self.clock.now)
        self.attempt()


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
    looks, rotate_at = old.looks, bench.state.rotate_at

    bench.change([old, new], (Origin(0, alike=True), None))

    assert new.content == old.content
    assert (len(bench.endpoint.asked), old.looks, bench.state.rotate_at) == (1, looks, rotate_at)
    assert [event.sink for event in bench.told(Published)] == [new.name]


def test_added_sink_with_a_later_token_is_adopted() -> None:
    """If the new sink holds a later token of this account, that one is adopted and brought to the others."""
    later = Changing(sinks=[MemorySink("vault.other:secret/aca/bookings")], suffix="-later")
    bench = Changing().rotate()
    later.clock = bench.clock
    later.__post_init__()
    later.rotate()

    bench.change([bench.sinks[0], later.sinks[0]], (Origin(0, alike=True), None))

    assert bench.told(Adopted)
    assert bench.sinks[0].content == later.sinks[0].content
    assert len(bench.endpoint.asked) == 1


def test_added_sink_that_fails_is_tried_again() -> None:
    """A new sink that cannot be read fails as any sink does: it is told, and tried again alone."""
    bench = Changing().rotate()
    new = MemorySink("file:/run/aca/bookings.json", "file", "file")
    new.look_errors.append(Reason.DIRECTORY_MISSING)

    bench.change([bench.sinks[0], new], (Origin(0, alike=True), None))
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

    bench.change([bench.sinks[0], new], (Origin(0, alike=True), None))

    assert new.content == "theirs"
    assert new.writes == 0


def test_removed_sink_that_failed_is_forgotten() -> None:
    """A sink that failed and left is tried no more, and its failures count no longer."""
    bench = Changing(sinks=[MemorySink(), MemorySink("file:/run/aca/bookings.json", "file", "file")])
    bench.sinks[1].publish_errors.extend([Reason.DISK_FULL] * 2)
    bench.rotate()
    assert bench.state.publish_failures

    bench.change(bench.sinks[:1])

    assert (bench.state.publish_failures, bench.state.publish_at) == (0, None)


def test_other_form_of_an_adopted_token_is_ours_to_replace() -> None:
    """What was adopted and now reads as foreign, because the sink has another form, is replaced and not refused."""
    bench = Changing().rotate()
    bench.restart()
    bench.rotate()
    assert len(bench.endpoint.asked) == 1
    place = [bench.sinks[0].place[0], "the old form"]

    bench.change([MemorySink(place=place)], (Origin(0, alike=False),))

    assert bench.sinks[0].content == bench.state.document
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
    assert bench.sinks[0].content == bench.state.document


def test_adopted_token_of_the_account_before_is_replaced() -> None:
    """What was adopted, not written by this process, is replaced too once the token has another account."""
    bench = Changing().rotate()
    bench.restart()
    bench.rotate()

    bench.change(username="svc-other")

    assert len(bench.endpoint.asked) == 2
    assert bench.sinks[0].content == bench.state.document
    assert bench.state.published


def test_another_server_is_rotated_at_once_and_proves_anew() -> None:
    """Another server is another account: a grant at once, claimed first, for no server vouches for another."""
    bench = Changing().rotate()
    requests = bench.sinks[0].record_requests

    bench.change(endpoint=ScriptedEndpoint(bench.clock, host="aca2.example.com", suffix="-2"))

    assert len(bench.endpoint.asked) == 1
    assert bench.sinks[0].record_requests > requests
    assert bench.sinks[0].content == bench.state.document


def test_other_reference_to_the_password_waits_for_the_next_grant() -> None:
    """Another place of the password makes no grant while the token is well."""
    from aca_tokend.core.config import EnvReference

    bench = Changing().rotate()

    bench.change(password=EnvReference(env="NEW"))

    assert len(bench.endpoint.asked) == 1


def test_failing_token_is_tried_at_once_when_its_way_was_mended() -> None:
    """A token that waits after a failure is tried at once where its endpoint or a reference changed, else in time."""
    from aca_tokend.core.config import EnvReference

    bench = Changing().rotate()
    bench.clock.advance(5000.0)
    bench.endpoint.broken = GrantUnavailable(Reason.PROXY_FAILED, "no way through")
    bench.attempt()
    assert len(bench.endpoint.asked) == 2
    bench.change(rotation={"max_rejections": 3})
    assert len(bench.endpoint.asked) == 2

    bench.change(endpoint=ScriptedEndpoint(bench.clock, suffix="-2"))
    assert len(bench.endpoint.asked) == 1
    assert bench.state.failures == 0

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
    bench.state.wake_at = bench.clock.now
    bench.attempt()
    assert bench.state.waits_for == "endpoint_held"
    bench.events.clear()
    new = MemorySink("file:/run/aca/bookings.json", "file", "file")

    bench.change([bench.sinks[0], new], (Origin(0, alike=True), None))

    assert new.content == bench.state.document
    assert all(event.failure is None for event in bench.told(Published))


def test_token_that_changed_is_waited_for_no_more() -> None:
    """A token whose endpoint changed does not go on waiting at the breaker of the one before: a turn would be lost."""
    bench = Changing().rotate()
    bench.clock.advance(5000.0)
    bench.endpoint.broken = GrantUnavailable(Reason.RATE_LIMITED, "later", retry_after_seconds=300.0)
    bench.attempt()
    before = bench.state.gate
    assert before.breaker.waiting == 1

    bench.shared.forget_endpoint("main", clients=False)
    bench.change()

    assert bench.state.gate is not before
    assert before.breaker.waiting == 0


def test_suspended_token_resumes_with_another_password() -> None:
    """A token suspended for its password goes on at once when its reference leads to another one."""
    from aca_tokend.core.config import EnvReference

    bench = Changing()
    bench.endpoint.answers.extend([GrantRejected(Reason.INVALID_GRANT, "refused")] * 2)
    bench.run_for(30.0)
    assert bench.state.suspended
    bench.secrets.values["NEW"] = "another password"

    bench.change(password=EnvReference(env="NEW"))

    assert bench.told(Resumed)
    assert bench.state.document is not None


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
    bench.change([versioned], (Origin(0, alike=False),))
    bench.run_for(60.0)

    assert bench.state.published
    assert versioned.records["attempts"][1] != {}


def test_canary_follows_its_configuration() -> None:
    """A canary that is set up by a reload tries the token in use after its time, and is ended by another."""
    from aca_tokend.core.config import VerifyConfig

    bench = Changing().rotate()
    bench.change(verify=VerifyConfig(path="/api/me", every=30.0))
    assert bench.next_at == bench.clock.now + 30.0
    bench.run_for(31.0)
    assert bench.endpoint.verified == 1

    bench.change(verify=None)

    assert bench.state.canary_at is None


def test_other_wait_for_a_cautious_attempt() -> None:
    """Another `retry_rejected` holds for a token that is suspended already."""
    bench = Changing()
    bench.endpoint.answers.extend([GrantRejected(Reason.INVALID_GRANT, "refused")] * 2)
    bench.run_for(30.0)

    bench.change(rotation={"retry_rejected": 0.0})
    assert bench.state.cautious_at is None
    bench.change(rotation={"retry_rejected": 600.0})
    assert bench.state.cautious_at == bench.clock.now + 600.0


# ── what left ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_retired_waits_for_every_attempt_that_began_before() -> None:
    """What left is ended once no attempt is under way that began before, those of earlier reloads included."""
    retired, ended = Retired(), list[str]()
    retired.add(frozenset({1, 2}), [lambda: ended.append("first")])
    retired.settle(lambda: frozenset({2, 3}))
    retired.add(frozenset({4}), [lambda: ended.append("second")])
    retired.settle(lambda: frozenset({2, 5}))
    assert ended == []

    retired.settle(lambda: frozenset({5}))
    retired.settle(lambda: frozenset({5}))

    assert ended == ["first", "second"]


# ── the files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Told:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **keys: Any) -> None:  # noqa: ANN401 -- whatever the line says
        self.lines.append((event, keys))

    warning = error


MAIN = """
include = ["more/*.toml"]
[acaengine.main]
url = "https://aca.example.com"
[[tokens]]
name = "bookings"
authority = "authority-1"
username = "svc-bookings"
password = { env = "PASSWORD" }
client_id = "client-1"
client_secret = { env = "CLIENT_SECRET" }
publish = [{ to = "file", path = "/run/aca/bookings.json" }]
"""


class Files:
    """A configuration in files, and what reading it again told."""

    def __init__(self, folder: Path, text: str = MAIN) -> None:
        from aca_tokend.config_files import load

        self.main = folder / "config.toml"
        self.main.write_text(text)
        loaded = load(self.main)
        self.told, self.observed = Told(), list[bool]()
        self.source = Source(self.main, loaded, loaded, self.told, self.observed.append)


def test_source_that_says_the_same(tmp_path: Path) -> None:
    """Files that say the same are no change, unless somebody asked for an answer."""
    files = Files(tmp_path)
    files.main.write_text(MAIN + "# a comment\n")

    assert files.source.read(asked=False) is None
    assert files.observed == []
    assert files.source.read(asked=True) is not None
    assert files.told.lines == []


def test_source_keeps_the_tokens_that_are_as_before(tmp_path: Path) -> None:
    """A token that is as before stays the same object, whatever else changed, so that none is in memory twice."""
    files = Files(tmp_path)
    (bookings,) = files.source.running.tokens
    entry = MAIN[MAIN.index("[[tokens]]") :]
    head = MAIN.removesuffix(entry).replace('com"', 'com"\nmax_concurrency = 3')
    files.main.write_text(head + entry.replace("bookings", "parking") + entry)

    read = files.source.read(asked=False)

    assert read is not None
    assert [token.name for token in read.tokens] == ["parking", "bookings"]
    assert read.tokens[1] is bookings
    assert files.source.written.tokens[1] is bookings
    files.main.write_text(MAIN.replace("svc-bookings", "svc-other"))
    read = files.source.read(asked=False)
    assert read is not None
    assert read.tokens[0].username == "svc-other"


def test_source_that_is_wrong(tmp_path: Path) -> None:
    """A wrong file is told once, and again when asked; the good one that follows counts even if it says the same."""
    files = Files(tmp_path)
    files.main.write_text(MAIN.replace("authority", "autority").replace("more/", "others/"))

    assert files.source.read(asked=False) is None
    assert files.source.read(asked=False) is None
    assert len(files.told.lines) == 1
    assert files.source.read(asked=True) is None
    assert [event for event, _ in files.told.lines] == ["config_rejected"] * 2
    assert any("did you mean authority?" in problem for problem in files.told.lines[0][1]["problems"])
    assert set(files.source.include) == {"more/*.toml", "others/*.toml"}, "what is mended may be in either"

    files.main.write_text(MAIN)
    assert files.source.read(asked=False) is not None
    assert files.observed == [False, False, False, True]
    assert files.source.include == ("more/*.toml",)


def test_source_keeps_what_needs_a_restart(tmp_path: Path) -> None:
    """What only a restart changes is told each time and stays; the rest of the file takes effect."""
    files = Files(tmp_path)
    files.main.write_text(f'{MAIN}[admin]\nlisten = "127.0.0.1:1"\n[log]\nlevel = "debug"\nformat = "json"\n')

    read = files.source.read(asked=False)

    assert read is not None
    assert (read.admin.listen, read.log.level, read.log.format) == ("127.0.0.1:9464", "debug", "auto")
    assert files.told.lines == [("config_needs_restart", {"keys": ["admin.listen", "log.format"]})]
    assert files.source.read(asked=False) is None
    files.source.read(asked=True)
    assert len(files.told.lines) == 2


def test_source_keeps_the_number_of_its_shard(tmp_path: Path) -> None:
    """How many shards there are may change while it runs; which of them this is takes a restart."""
    files = Files(tmp_path)
    files.main.write_text(f"{MAIN}[shard]\ncount = 2\nindex = 1\n")
    read = files.source.read(asked=False)
    assert read is not None
    assert read.shard is None
    assert files.told.lines == [("config_needs_restart", {"keys": ["shard.index"]})]

    sharded = Files(tmp_path, f"{MAIN}[shard]\ncount = 2\nindex = 1\n")
    sharded.main.write_text(f"{MAIN}[shard]\ncount = 3\nindex = 1\n")
    read = sharded.source.read(asked=False)
    assert read is not None
    assert read.shard is not None
    assert (read.shard.count, read.shard.index, sharded.told.lines) == (3, 1, [])
