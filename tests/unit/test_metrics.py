"""What is measured, read from the page as Prometheus reads it."""

from __future__ import annotations

import gzip
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from aca_tokend.core.login import LoggedIn, LoginFailed, RenewalFailed, Renewed
from aca_tokend.core.outcome import (
    REJECTED,
    Adopted,
    Component,
    Failed,
    Failure,
    Granted,
    HookRan,
    Published,
    PublishResult,
    Reason,
    Resumed,
    Rotated,
    Skipped,
    Step,
    Suspended,
    Unexpected,
)
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document
from aca_tokend.metrics import Metrics, SinkView, TokenView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

CANARY = "canary-8f14e45f"
START = 1_800_000_000.0
SINK = "vault:secret/aca/bookings"
FILE = "file:/run/aca/bookings.json"
# Not numbers, or more than one would write; what is no version is not repeated in the content type either.
ODD_VERSIONS = ("=x", "=2.<b>", "= 1.0", " = 9e99", "=1.0.0.0", "=", "=" + 5000 * "9" + ".0.0", "=1.0.0=2.<b>")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
PROMISED = """\
gauge token_issued_timestamp_seconds token
gauge token_expiration_timestamp_seconds token
gauge token_rotation_timestamp_seconds token
gauge token_ttl_seconds token
gauge token_outage_tolerance_seconds token
gauge token_ready token
gauge token_suspended token reason
gauge token_consecutive_failures token
gauge token_last_success_timestamp_seconds token
counter token_unavailable_seconds_total token
counter rotations_total token result
counter rotation_errors_total token step reason
histogram rotation_duration_seconds
histogram grant_duration_seconds endpoint code
counter publish_total token sink result
histogram publish_duration_seconds kind
gauge published_expiration_timestamp_seconds token sink
gauge published_issued_timestamp_seconds token sink
histogram scheduler_lag_seconds
gauge endpoint_up endpoint
counter internal_errors_total component
counter vault_login_total vault method result
gauge vault_token_expiration_timestamp_seconds vault
gauge clock_skew_seconds endpoint
gauge config_last_reload_successful
gauge config_last_reload_timestamp_seconds
counter log_lines_dropped_total
gauge build_info version revision python"""


def parse_openmetrics(page: bytes) -> list[Metric]:
    return list(openmetrics_families(page.decode()))  # type: ignore[no-untyped-call]  # the library does not type it


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def document(issued: float = 0.0, lifetime: float = 100.0) -> Document:
    return Document(
        access_token=Secret(CANARY),
        issued_at=at(issued),
        expires_at=at(issued + lifetime),
        refresh_after=at(issued + lifetime * 0.667),
        expires_in=int(lifetime),
        scope="public",
        username="svc-bookings",
        authority="authority-1",
        account="0" * 32,
    )


def view(token: str = "bookings", held: Document | None = None, **changes: Any) -> TokenView:  # noqa: ANN401 -- the fields of TokenView
    """A token that is published where it belongs, unless told otherwise."""
    published = SinkView(SINK, "vault", held.issued_at if held else None, held.expires_at if held else None)
    base = TokenView(
        token=token,
        document=held,
        rotate_at=START + 60 if held else 0.0,
        expires_at=held.expires_at.timestamp() if held else 0.0,
        suspended=None,
        consecutive_failures=0,
        sinks=(published,),
        settled=held is not None,
    )
    return base._replace(**changes)


@dataclass
class World:
    """Metrics over tokens and a clock that are moved by hand."""

    views: list[TokenView] = field(default_factory=lambda: [view()])
    now: float = 0.0
    walks: int = 0
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.look, lambda: START + self.now, ["main"], {"main": "approle"})

    def look(self) -> Iterator[TokenView]:
        self.walks += 1
        yield from list(self.views)

    def tick(self, now: float) -> None:
        self.now = now
        self.metrics.tick(START + now)

    def publish(self, held: Document, now: float) -> None:
        """A new token goes to the only sink."""
        self.now = now
        self.views = [view(held=held)]
        self.metrics.observe(Published("bookings", SINK, "vault", PublishResult.WRITTEN, 0.01))

    def families(self) -> dict[str, Metric]:
        page, _ = self.metrics.exposition("")
        return {family.name: family for family in parse_text(page.decode())}

    def samples(self) -> dict[str, float]:
        """The page: each series as it stands there without the prefix, and its value."""
        page, _ = self.metrics.exposition("")
        lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0].removeprefix("aca_tokend_"): float(line.rpartition(" ")[2]) for line in lines}

    def value(self, name: str, **labels: str) -> float:
        found = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == f"aca_tokend_{name}" and sample.labels == labels
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_series_of_a_token_are_there_from_the_start() -> None:
    """Before anything happened every series of a token is there, at 0."""
    samples = {series: value for series, value in World().samples().items() if 'token="bookings"' in series}

    assert set(samples.values()) == {0.0}
    assert set(samples) == {
        *(
            f'{name}{{token="bookings"}}'
            for name in (
                "token_issued_timestamp_seconds",
                "token_expiration_timestamp_seconds",
                "token_rotation_timestamp_seconds",
                "token_ttl_seconds",
                "token_outage_tolerance_seconds",
                "token_ready",
                "token_consecutive_failures",
                "token_last_success_timestamp_seconds",
                "token_unavailable_seconds_total",
            )
        ),
        *(f'token_suspended{{token="bookings",reason="{reason}"}}' for reason in REJECTED),
        *(f'rotations_total{{token="bookings",result="{r}"}}' for r in ("rotated", "adopted", "failed", "skipped")),
        *(f'publish_total{{token="bookings",sink="{SINK}",result="{result}"}}' for result in PublishResult),
        f'published_expiration_timestamp_seconds{{token="bookings",sink="{SINK}"}}',
        f'published_issued_timestamp_seconds{{token="bookings",sink="{SINK}"}}',
    }


def test_other_series_are_there_from_the_start() -> None:
    """Before anything happened the series of endpoints, Vaults, kinds of sinks and the process are there, at 0."""
    samples = World().samples()

    for series in (
        "rotation_duration_seconds_count",
        'grant_duration_seconds_count{code="200",endpoint="main"}',
        'publish_duration_seconds_count{kind="vault"}',
        'publish_duration_seconds_count{kind="file"}',
        "scheduler_lag_seconds_count",
        *(f'internal_errors_total{{component="{component}"}}' for component in Component),
        'clock_skew_seconds{endpoint="main"}',
        'vault_login_total{method="approle",result="succeeded",vault="main"}',
        'vault_login_total{method="approle",result="failed",vault="main"}',
        'vault_token_expiration_timestamp_seconds{vault="main"}',
    ):
        assert samples[series] == 0.0, series
    assert not [series for series in samples if series.startswith("endpoint_up")]


def test_series_vanish_with_the_token() -> None:
    """When a token leaves, its series leave with it; when it comes back, they begin again at 0."""
    world = World([view("bookings"), view("rooms")])
    for token in ("bookings", "rooms"):
        world.metrics.observe(Rotated(token, document(), 0.1, (SINK,), None))
    assert world.value("rotations_total", token="rooms", result="rotated") == 1

    world.views = [view("bookings")]
    assert not [series for series in world.samples() if "rooms" in series]
    world.views = [view("bookings"), view("rooms")]

    assert world.value("rotations_total", token="rooms", result="rotated") == 0
    assert world.value("rotations_total", token="bookings", result="rotated") == 1


def test_event_before_the_token_was_ever_seen_is_kept() -> None:
    """What happens to a token before the first look at the tokens is counted."""
    world = World([])
    world.samples()
    world.metrics.observe(Rotated("bookings", document(), 0.1, (SINK,), None))
    world.tick(100.0)
    world.views = [view()]

    assert world.value("rotations_total", token="bookings", result="rotated") == 1


def test_negotiation() -> None:
    """OpenMetrics is written where the scraper asks for it, the older text format elsewhere."""
    world = World()
    page, content_type = world.metrics.exposition(f"{OPENMETRICS};q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert page.endswith(b"# EOF\n")
    assert page.count(b"# EOF") == 1

    odd = [f"{kind};version{it}" for kind in ("text/plain", OPENMETRICS.partition(";")[0]) for it in ODD_VERSIONS]
    for accept in ("", "*/*", "text/html,*/*;q=0.1", *odd):
        page, content_type = world.metrics.exposition(accept)
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        assert b"# EOF" not in page


def busy() -> World:
    """A world in which everything has happened, with names that need escaping."""
    odd = 'odd "name" \\ with\nall'
    sinks = (SinkView(f"file:/run/{odd}", "file", at(0), at(100)), SinkView(SINK, "vault", None, None))
    world = World([view(held=document()), view(odd, held=document(), sinks=sinks, suspended=Reason.INVALID_GRANT)])
    failure = Failure(Step.GRANT, Reason.TIMEOUT, CANARY)
    for token in ("bookings", odd):
        for event in (
            Granted(token, "main", "200", 0.2, -1.5),
            Granted(token, "main", "none", 0.2, None),
            Rotated(token, document(), 0.3, (SINK,), None),
            Adopted(token, document(), SINK),
            Failed(token, failure, 1, 1.0),
            Suspended(token, failure),
            Resumed(token, "the credential changed"),
            Published(token, SINK, "vault", PublishResult.FAILED, 0.0, failure),
        ):
            world.metrics.observe(event)
    world.metrics.observe_login(LoggedIn("main", "approle", None, 0.0))
    world.metrics.observe_lag(0.02)
    world.now = 10.0
    return world


def test_compressed_page_is_the_same() -> None:
    """The page that is compressed while it is written is the one that is not."""
    metrics = busy().metrics

    packed, content_type = metrics.exposition(OPENMETRICS, compressed=True)

    assert gzip.decompress(packed) == metrics.exposition(OPENMETRICS)[0]
    assert content_type == metrics.exposition(OPENMETRICS)[1]


def test_both_formats_are_well_formed_and_say_the_same() -> None:
    """Prometheus's own parsers read both formats, and find the same series with the same values."""
    world = busy()
    text, _ = world.metrics.exposition("")
    openmetrics, _ = world.metrics.exposition(OPENMETRICS)

    def series(families: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        found = [sample for family in families for sample in family.samples]
        by_name = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
        assert len(by_name) == len(found)
        return by_name

    older = list(parse_text(text.decode()))
    newer = parse_openmetrics(openmetrics)
    assert series(older) == series(newer)
    assert {family.name: (family.type, family.documentation) for family in newer} == {
        family.name: (family.type, family.documentation) for family in older
    }
    assert 'odd "name" \\ with\nall' in {sample.labels.get("token") for family in newer for sample in family.samples}


def test_page_shows_nothing_it_should_not() -> None:
    """The page holds no token, no user name, no message of an error and no `_created` series."""
    for accept in ("", OPENMETRICS):
        page, _ = busy().metrics.exposition(accept)
        for word in (CANARY, "svc-bookings", "authority-1", "_created"):
            assert word.encode() not in page


# ── what each event and view says ─────────────────────────────────────────────────────────────────────────────────────


def test_life_of_a_token() -> None:
    """Issue, rotation point and expiration are absolute; what is left is computed when the page is written."""
    world = World([view(held=document())])
    world.now = 30.0

    assert world.value("token_issued_timestamp_seconds", token="bookings") == START
    assert world.value("token_expiration_timestamp_seconds", token="bookings") == START + 100
    assert world.value("token_rotation_timestamp_seconds", token="bookings") == START + 60
    assert world.value("token_outage_tolerance_seconds", token="bookings") == 40
    assert world.value("token_ttl_seconds", token="bookings") == 70
    assert world.value("published_issued_timestamp_seconds", token="bookings", sink=SINK) == START
    assert world.value("published_expiration_timestamp_seconds", token="bookings", sink=SINK) == START + 100
    world.now = 130.0
    assert world.value("token_ttl_seconds", token="bookings") == -30


def test_ready() -> None:
    """A token is ready while every sink holds one that has not expired."""
    sinks = (SinkView(SINK, "vault", at(0), at(100)), SinkView(FILE, "file", at(-50), at(50)))
    world = World([view(held=document(), sinks=sinks)])

    world.now = 49.9
    assert world.value("token_ready", token="bookings") == 1
    world.now = 50.0
    assert world.value("token_ready", token="bookings") == 0
    world.views = [view(held=document(), sinks=(sinks[0], SinkView(FILE, "file", None, None)))]
    world.now = 10.0
    assert world.value("token_ready", token="bookings") == 0


@pytest.mark.parametrize("reason", sorted(REJECTED))
def test_suspended(reason: Reason) -> None:
    """A suspended token says so under its reason alone."""
    world = World([view(suspended=reason, consecutive_failures=2)])

    assert world.value("token_consecutive_failures", token="bookings") == 2
    for other in REJECTED:
        assert world.value("token_suspended", token="bookings", reason=other.value) == int(other is reason)


def test_rotations() -> None:
    """Each attempt that ended counts under its result; a suspension is no second failure."""
    world = World()
    failure = Failure(Step.GRANT, Reason.INVALID_GRANT, "m")
    world.now = 5.0
    world.metrics.observe(Rotated("bookings", document(), 0.3, (SINK,), None))
    assert world.value("token_last_success_timestamp_seconds", token="bookings") == START + 5
    world.now = 6.0
    world.metrics.observe(Adopted("bookings", document(), SINK))
    world.now = 7.0
    world.metrics.observe(Failed("bookings", failure, 1, 1.0))
    world.metrics.observe(Suspended("bookings", failure))
    world.metrics.observe(Skipped("bookings", "suspended"))

    for result, count in {"rotated": 1, "adopted": 1, "failed": 1, "skipped": 1}.items():
        assert world.value("rotations_total", token="bookings", result=result) == count
    assert world.value("token_last_success_timestamp_seconds", token="bookings") == START + 6
    assert world.value("rotation_errors_total", token="bookings", step="grant", reason="invalid_grant") == 1
    assert world.value("rotation_duration_seconds_count") == 1
    assert world.value("rotation_duration_seconds_sum") == pytest.approx(0.3)


@pytest.mark.parametrize("step", [Step.PUBLISH, Step.LOOK])
def test_failure_of_a_sink_counts_once(step: Step) -> None:
    """A new token that reached no sink is one failed rotation, and one error of the sink that failed."""
    world = World()
    failure = Failure(step, Reason.DISK_FULL, "m", sink=SINK)
    world.metrics.observe(Published("bookings", SINK, "vault", PublishResult.FAILED, 0.0, failure))
    world.metrics.observe(Failed("bookings", failure, 1, 1.0))

    assert world.value("rotations_total", token="bookings", result="failed") == 1
    assert world.value("rotation_errors_total", token="bookings", step=step.value, reason="disk_full") == 1
    assert world.value("publish_total", token="bookings", sink=SINK, result="failed") == 1


def test_failed_hook_counts_for_each_token() -> None:
    """A hook that fails is an error of each token that waits for it; one that works counts nothing."""
    world = World()
    failure = Failure(Step.HOOK, Reason.COMMAND_TIMEOUT, "m")
    world.metrics.observe(HookRan("nginx", ("bookings",), 0.1, "", failure, 1, 1.0))
    world.metrics.observe(HookRan("nginx", ("bookings",), 0.1))

    assert world.value("rotation_errors_total", token="bookings", step="hook", reason="command_timeout") == 1
    assert world.value("rotations_total", token="bookings", result="failed") == 0


def test_publishes() -> None:
    """Each publish counts under its sink and result; only what was written has a duration."""
    world = World()
    for result in (*PublishResult, PublishResult.WRITTEN):
        world.metrics.observe(Published("bookings", SINK, "vault", result, 0.2))

    for name, count in {"written": 2, "unchanged": 1, "failed": 1, "fenced": 1}.items():
        assert world.value("publish_total", token="bookings", sink=SINK, result=name) == count
    assert world.value("publish_duration_seconds_count", kind="vault") == 2
    assert world.value("publish_duration_seconds_count", kind="file") == 0


@pytest.mark.parametrize(
    ("code", "up"),
    [("200", 1), ("400", 1), ("401", 1), ("none", 0), ("429", 0), ("500", 0), ("503", 0), ("404", 0), ("301", 0)],
)
def test_endpoint_up(code: str, up: int) -> None:
    """An endpoint is up if the last grant was answered as an OAuth server answers, be it to refuse."""
    world = World()
    world.metrics.observe(Granted("bookings", "main", "503" if up else "200", 0.1, 0.0))
    world.metrics.observe(Granted("bookings", "main", code, 0.1, 2.5))
    world.metrics.observe(Granted("bookings", "main", code, 0.1, None))

    assert world.value("endpoint_up", endpoint="main") == up
    assert world.value("grant_duration_seconds_count", endpoint="main", code=code) == 2
    assert world.value("clock_skew_seconds", endpoint="main") == 2.5


FAILED_LOGIN = LoginFailed("main", "approle", Reason.UNAVAILABLE, "vault main: no", 2.0, 0.0)


def test_logins() -> None:
    """Log-ins to Vault count by result; the expiration is that of the last token that Vault gave."""
    world = World()
    world.metrics.observe_login(LoggedIn("main", "approle", START + 60, 0.0))
    world.metrics.observe_login(FAILED_LOGIN)

    assert world.value("vault_login_total", vault="main", method="approle", result="succeeded") == 1
    assert world.value("vault_login_total", vault="main", method="approle", result="failed") == 1
    assert world.value("vault_token_expiration_timestamp_seconds", vault="main") == START + 60
    world.metrics.observe_login(LoggedIn("main", "approle", None, 0.0))
    assert world.value("vault_token_expiration_timestamp_seconds", vault="main") == float("inf")


def test_last_login() -> None:
    """Whether the last log-in succeeded is told once there was one."""
    world = World()
    assert 'vault_last_login_successful{vault="main"}' not in world.samples()
    world.metrics.observe_login(FAILED_LOGIN)
    assert world.value("vault_last_login_successful", vault="main") == 0
    world.metrics.observe_login(LoggedIn("main", "approle", START + 60, 0.0))
    assert world.value("vault_last_login_successful", vault="main") == 1


def test_renewals() -> None:
    """A renewal moves the life of our token, and is no log-in."""
    world = World()
    world.metrics.observe_login(LoggedIn("main", "approle", START + 60, 0.0))
    assert world.value("vault_token_issued_timestamp_seconds", vault="main") == START
    world.now = 40.0
    world.metrics.observe_login(Renewed("main", START + 120))
    world.now = 50.0
    world.metrics.observe_login(RenewalFailed("main", Reason.TIMEOUT, "vault main: no", START + 120))

    assert world.value("vault_token_expiration_timestamp_seconds", vault="main") == START + 120
    assert world.value("vault_token_issued_timestamp_seconds", vault="main") == START + 40
    assert world.value("vault_login_total", vault="main", method="approle", result="succeeded") == 1


def test_internal_errors() -> None:
    """A bug counts for the part that met it, and for no other."""
    world = World()
    world.metrics.observe(Unexpected(Component.HOOK, "reload", "KeyError", ()))
    world.metrics.observe(Unexpected(Component.PAGE, "/", "MemoryError", (), Reason.RESOURCE_EXHAUSTED))  # no bug

    counts = {component: world.value("internal_errors_total", component=component) for component in Component}
    assert counts == {**dict.fromkeys(Component, 0.0), Component.HOOK: 1.0}


def test_lag() -> None:
    """An attempt that began early was not late."""
    world = World()
    world.metrics.observe_lag(-0.5)
    world.metrics.observe_lag(0.25)

    assert world.value("scheduler_lag_seconds_count") == 2
    assert world.value("scheduler_lag_seconds_sum") == 0.25


def test_build_info(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is told by version, revision and Python's version; an unknown revision is empty."""
    monkeypatch.delenv("ACA_TOKEND_REVISION", raising=False)
    (sample,) = World().families()["aca_tokend_build_info"].samples
    assert sample.value == 1
    assert sample.labels["revision"] == ""
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", sample.labels["version"])
    assert re.fullmatch(r"3\.\d+\.\d+\S*", sample.labels["python"])

    monkeypatch.setenv("ACA_TOKEND_REVISION", "0123abc")
    (sample,) = World().families()["aca_tokend_build_info"].samples
    assert sample.labels["revision"] == "0123abc"


# ── unavailable time ──────────────────────────────────────────────────────────────────────────────────────────────────


def unavailable(world: World) -> float:
    return world.value("token_unavailable_seconds_total", token="bookings")


def test_valid_token_is_available() -> None:
    """While a valid token is published, and is replaced in time, no unavailable time counts."""
    world = World()
    world.publish(document(0), 0.5)
    world.tick(1.0)
    world.tick(60.0)
    world.publish(document(66), 66.5)
    world.tick(140.0)

    assert unavailable(world) == 0


def test_time_since_expiration_counts() -> None:
    """From the expiration on time counts, to the moment of each look, however seldom anyone looks."""
    world = World()
    world.publish(document(0), 0.5)
    world.tick(1.0)
    world.tick(130.0)
    assert unavailable(world) == 30
    world.now = 137.5
    assert unavailable(world) == 37.5
    world.tick(150.0)
    assert unavailable(world) == 50


def test_gap_between_two_looks_counts() -> None:
    """A token that expired and was replaced since the last look was unavailable from its expiration to the publish."""
    world = World()
    world.publish(document(0), 0.5)
    world.tick(90.0)
    world.publish(document(112), 112.5)
    world.tick(120.0)

    assert unavailable(world) == 12.5


def test_end_of_a_gap_counts_to_the_publish() -> None:
    """The last part of a gap ends with the publish, not with the look after it."""
    world = World()
    world.publish(document(0), 0.5)
    world.tick(90.0)
    world.tick(110.0)
    world.publish(document(112), 112.5)
    world.tick(120.0)

    assert unavailable(world) == 12.5


def test_sink_without_a_token_is_unavailable() -> None:
    """A token that could not be published anywhere since it was first tried is unavailable all the time."""
    world = World([view(consecutive_failures=1, settled=True)])
    world.tick(1.0)
    world.tick(31.0)

    assert unavailable(world) == 30


def test_first_token_on_its_way_is_not_unavailable() -> None:
    """While the first attempt has a token that no sink holds yet, nothing is counted: a new deployment is no outage."""
    nowhere = (SinkView(SINK, "vault", None, None),)
    world = World([view(held=document(), sinks=nowhere, settled=False)])
    world.tick(1.0)
    world.tick(31.0)
    world.publish(document(), 31.5)
    world.tick(40.0)

    assert unavailable(world) == 0


def test_token_that_waits_with_nothing_published_is_unavailable() -> None:
    """A token whose first attempts only waited, behind its endpoint's breaker, is unavailable all the time."""
    world = World([view(settled=True)])
    world.tick(1.0)
    world.tick(31.0)

    assert unavailable(world) == 30


def test_one_of_two_sinks_is_enough_to_be_unavailable() -> None:
    """A token is unavailable while any of its sinks holds no valid one."""
    sinks = (SinkView(SINK, "vault", at(0), at(100)), SinkView(FILE, "file", at(-60), at(40)))
    world = World([view(held=document(), sinks=sinks)])
    world.tick(1.0)
    world.tick(50.0)

    assert unavailable(world) == 10


def test_time_before_the_first_attempt_does_not_count() -> None:
    """Until its first attempt has ended nobody knows what is published, and nothing counts."""
    world = World([view()])
    world.tick(1.0)
    world.tick(31.0)
    assert unavailable(world) == 0

    world.publish(document(30), 40.0)
    world.tick(50.0)
    assert unavailable(world) == 0


def test_clock_stepped_back_takes_nothing_away() -> None:
    """A wall clock that is set back takes nothing from the counter."""
    world = World()
    world.publish(document(0), 0.5)
    world.tick(1.0)
    world.tick(130.0)
    world.now = -3000.0
    assert unavailable(world) == 30
    world.now = -2990.0
    assert unavailable(world) == 30


def test_ticks_are_cheap_while_all_is_well() -> None:
    """While no token can have expired, ticks seldom look at the tokens; while one has, no more than every 5 seconds."""
    world = World([view(held=document(0, 100))])
    for second in range(100):
        world.tick(second)
    assert world.walks <= 100 / 15 + 1

    world.walks = 0
    for second in range(100, 200):
        world.tick(second)
    assert world.walks <= 100 / 5 + 1
    assert unavailable(world) == 99


# ── threads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_count_is_lost_between_threads() -> None:
    """Events from many threads all count, while other threads scrape and tick."""
    threads, rounds = 8, 250
    tokens = ["bookings", "rooms"]
    world = World([view(token) for token in tokens])
    done = threading.Event()
    start = threading.Barrier(threads)
    pages: list[bytes] = []

    def work() -> None:
        start.wait()
        for number in range(rounds):
            token = tokens[number % 2]
            failure = Failure(Step.GRANT, list(Reason)[number % len(Reason)], "m")
            world.metrics.observe(Rotated(token, document(), 0.1, (SINK,), None))
            world.metrics.observe(Failed(token, failure, 1, 1.0))
            world.metrics.observe(Published(token, SINK, "vault", PublishResult.WRITTEN, 0.1))
            world.metrics.observe(Granted(token, "main", "200", 0.1, 0.0))
            world.metrics.observe_login(LoggedIn("main", "approle", None, 0.0))
            world.metrics.observe_lag(0.0)

    def scrape() -> None:
        while not done.is_set():
            pages.append(world.metrics.exposition(OPENMETRICS)[0])
            world.metrics.tick(START)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    scraper = threading.Thread(target=scrape)
    for thread in (scraper, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    scraper.join()

    total = threads * rounds
    for token in tokens:
        assert world.value("rotations_total", token=token, result="rotated") == total / 2
        assert world.value("rotations_total", token=token, result="failed") == total / 2
        assert world.value("publish_total", token=token, sink=SINK, result="written") == total / 2
    errors = [value for series, value in world.samples().items() if series.startswith("rotation_errors_total")]
    assert sum(errors) == total
    assert world.value("rotation_duration_seconds_count") == total
    assert world.value("publish_duration_seconds_count", kind="vault") == total
    assert world.value("grant_duration_seconds_count", endpoint="main", code="200") == total
    assert world.value("vault_login_total", vault="main", method="approle", result="succeeded") == total
    assert world.value("scheduler_lag_seconds_count") == total
    assert all(parse_openmetrics(page) for page in pages[::10])


class Halted(TokenView):
    """A token at which the scrape stops until told to go on: once as the page reckons, and once as it is written."""

    at: ClassVar[list[str]] = []
    halted: ClassVar = threading.Semaphore(0)
    told: ClassVar = threading.Semaphore(0)

    @property
    def valid_until(self) -> float:
        """What unavailable time is reckoned by, and then a line of the page is written from."""
        return self._halt("writing" if "reckoning" in self.at else "reckoning")

    def _halt(self, where: str) -> float:
        if where not in self.at:
            self.at.append(where)
            self.halted.release()
            assert self.told.acquire(timeout=30), f"a rotation waits for a scrape that is {where}"
        return START + 100


def test_scrape_holds_up_no_rotation() -> None:
    """However long a scrape takes, rotations tell of what they do meanwhile: it holds no lock that they need."""
    base = view(held=document())
    middle = Halted(base.token, base.document, base.rotate_at, base.expires_at, None, 0, base.sinks, settled=True)
    metrics = Metrics(lambda: [view("first"), middle, view("last")], lambda: START, ["main"], {"main": "approle"})

    def rotate() -> None:
        for name in ("first", "bookings", "last"):
            metrics.observe(Rotated(name, document(), 0.1, (SINK,), None))
            metrics.observe(Published(name, SINK, "vault", PublishResult.WRITTEN, 0.1))
            metrics.observe(Granted(name, "main", "200", 0.1, 0.0))

    def rotations() -> None:
        for _ in range(2):
            Halted.halted.acquire()
            rotate()
            Halted.told.release()

    rotator = threading.Thread(target=rotations, daemon=True)
    rotator.start()
    page, _ = metrics.exposition(OPENMETRICS)

    assert Halted.at == ["reckoning", "writing"]
    assert b'aca_tokend_rotations_total{token="bookings",result="rotated"} 2' in metrics.exposition(OPENMETRICS)[0]
    assert page.endswith(b"# EOF\n")


# ── docs/metrics.md ───────────────────────────────────────────────────────────────────────────────────────────────────


def rows(heading: str, columns: int) -> list[list[str]]:
    """The rows of the table under a heading of docs/metrics.md."""
    section = re.split(r"^#+ ", DOCS.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    table = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    assert all(len(row) == columns for row in table)
    return [[cell.strip() for cell in row] for row in table]


def names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`(\w+)`", cell))


def test_documented_metrics() -> None:
    """docs/metrics.md names exactly the metrics of the page, with type, labels and meaning."""
    told = {names(name)[0]: (kind, set(names(labels)), meaning) for name, kind, labels, meaning in rows("Metrics", 4)}
    found = {}
    for family in busy().families().values():
        name = family.name.removeprefix("aca_tokend_") + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels, family.documentation)

    assert told == found


def test_names_are_kept() -> None:
    """What alerts, dashboards and the rules of others are built on keeps its name, its type and its labels."""
    found = {family.name: family for family in busy().families().values()}
    for promised in PROMISED.split("\n"):
        kind, name, *labels = promised.split()
        family = found[f"aca_tokend_{name.removesuffix('_total')}"]
        assert family.type == kind, name
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == set(labels), name


def test_documented_labels() -> None:
    """docs/metrics.md names exactly the values that closed labels have from the start."""
    told = {label.replace("`", ""): set(names(values)) for label, values in rows("Labels", 2)}
    families = World().families()

    def values(family: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in families[f"aca_tokend_{family}"].samples}

    assert told == {
        "result of rotations_total": values("rotations", "result"),
        "result of publish_total": values("publish", "result"),
        "result of vault_login_total": values("vault_login", "result"),
        "reason of token_suspended": values("token_suspended", "reason"),
        "step": {step.value for step in Step},
        "kind": values("publish_duration_seconds", "kind"),
        "component": values("internal_errors", "component"),
    }


def test_documented_buckets() -> None:
    """docs/metrics.md names exactly the buckets of the histograms."""
    told = {names(name)[0]: [float(bound) for bound in bounds.split()] for name, bounds in rows("Buckets", 2)}
    found: dict[str, list[float]] = {}
    for family in World().families().values():
        bounds = {float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels}
        if bounds:
            found[family.name.removeprefix("aca_tokend_")] = sorted(bounds - {float("inf")})

    assert told == found


def test_docs_are_about_seconds_since_1970() -> None:
    """The time stamps on the page are those that the documentation promises: seconds since 1970 in UTC."""
    world = World([view(held=document())])

    expires = world.value("token_expiration_timestamp_seconds", token="bookings")

    assert datetime.fromtimestamp(expires, UTC) - at(0) == timedelta(seconds=100)


def test_labels_follow_the_configuration() -> None:
    """Series of an endpoint and a Vault that left vanish, also those that a late answer brings back; new ones begin."""
    metrics = Metrics(list, lambda: 1000.0, ["main", "old"], {"main": "token", "old": "token"})
    late = Granted("bookings", "old", "503", 0.1, 1.0)
    metrics.observe(late)

    for _ in range(2):
        metrics.follow(["main", "new"], {"main": "approle", "new": "token"})
        page = metrics.exposition("")[0].decode()
        assert '="old"' not in page
        assert 'grant_duration_seconds_count{code="200",endpoint="new"} 0.0' in page
        assert 'vault_login_total{method="approle",result="failed",vault="main"} 0.0' in page
        assert 'method="token",result="failed",vault="main"' not in page
        metrics.observe(late)
    metrics.follow(["main", "old"], {"old": "token"})
    assert 'vault="main"' not in metrics.exposition("")[0].decode()


def test_reloads_are_told() -> None:
    """The configuration counts as well from the start; one that is wrong changes nothing but that."""
    now = [1000.0]
    metrics = Metrics(list, lambda: now[0], [], {})

    def told() -> tuple[str, str]:
        page = metrics.exposition("")[0].decode()
        values = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("aca_tokend_config_"))
        name = "aca_tokend_config_last_reload_"
        return values[f"{name}successful"], values[f"{name}timestamp_seconds"]

    assert told() == ("1.0", "1000.0")
    now[0] = 2000.0
    metrics.observe_reload(False)
    assert told() == ("0.0", "1000.0")
    metrics.observe_reload(True)
    assert told() == ("1.0", "2000.0")


def test_counts_of_an_attempt_that_outlived_its_token_are_forgotten() -> None:
    """What an attempt tells after its token left is not there when a token of that name comes again."""
    views = [view()]
    metrics = Metrics(lambda: views, lambda: 1000.0, [], {})
    metrics.exposition("")
    views.clear()
    metrics.exposition("")
    metrics.observe(Skipped("bookings", "suspended"))
    metrics.exposition("")
    metrics.exposition("")
    views.append(view())

    assert 'rotations_total{token="bookings",result="skipped"} 0' in metrics.exposition("")[0].decode()
