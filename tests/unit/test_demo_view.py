"""What the demo shows: the daemon's log in plain words, the picture on a terminal, and the outage."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from rich.console import Console

from aca_tokend.core.token import rfc3339
from aca_tokend.demo.journal import Journal, TokenState
from aca_tokend.demo.outage import OUTAGE_SECONDS, Outage
from aca_tokend.demo.processes import LookAlike
from aca_tokend.demo.reader import Reader
from aca_tokend.demo.show import Summary, _conclude
from aca_tokend.demo.stage import wait_until
from aca_tokend.demo.view import Scene, picture
from tests.lookalikes import LEVERS, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEGAN = 1_700_000_000.0
NAMES = ("bookings", "signage", "sensors")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "daemon.log", NAMES, BEGAN)


@pytest.fixture(scope="module")
def lookalike() -> Iterator[LookAlike]:
    with LookAlike.start(LEVERS) as lookalike:
        yield lookalike


@pytest.fixture(scope="module")
def http(lookalike: LookAlike) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=lookalike.url, trust_env=False) as client:
        yield client


def at(seconds: float) -> str:
    """A moment so many seconds after the start, as the log writes it."""
    return rfc3339(datetime.fromtimestamp(BEGAN + seconds, UTC))


def write(journal: Journal, seconds: float, event: str, **keys: object) -> None:
    """Adds a line to the daemon's log."""
    with journal._log.open("a") as log:
        log.write(json.dumps({"timestamp": at(seconds), "level": "info", "event": event, **keys}) + "\n")


def rotate(journal: Journal, name: str, issued: float) -> None:
    """Logs a rotation to a token of ten seconds."""
    life = {"issued_at": at(issued), "refresh_after": at(issued + 6), "expires_at": at(issued + 10)}
    write(journal, issued, "token_rotated", token=name, **life)


def scene(journal: Journal, lookalike: LookAlike | None = None, *, ends: float = 30.0) -> Scene:
    """A scene with two readers of one account."""
    readers = [Reader(f"{place} bookings", dict, 0) for place in ("vault", "file")]
    readers[0].accepted, readers[0].tokens = 1_234, 7
    readers[1].accepted, readers[1].tokens = 1_000, 6
    outage = Outage(lookalike, journal, ends)  # type: ignore[arg-type]  # None where no outage begins
    places = (("metrics", "http://127.0.0.1:46187/metrics"), ("file", "/run/aca-tokend-demo-k3j2x9a1/published/b.json"))
    return Scene(journal, readers, outage, places, 10.0, None if math.isinf(ends) else ends)


def drawn(scene: Scene, now: float, *, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """The picture as the rows of a terminal."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(picture(scene, BEGAN + now, console))
    stream.seek(0)
    return stream.read().splitlines()


def test_the_journal_tells_what_happened_in_plain_words(journal: Journal) -> None:
    """Each event of interest becomes one line with its time; other lines become none."""
    write(journal, 0.25, "daemon_started", tokens=3, admin="127.0.0.1:1234", version="1")
    rotate(journal, "bookings", 0.5)
    write(journal, 0.75, "publish_written", token="bookings", kind="file", sink="file:/x")
    rotate(journal, "bookings", 6)
    failed = {"step": "grant", "reason": "server_error", "message": "…", "attempt": 1}
    write(journal, 12, "rotation_failed", token="bookings", next_attempt_at=at(12.5), **failed)
    write(journal, 13, "publish_failed", token="signage", kind="vault", reason="vault_sealed", sink="vault:x")

    journal.follow()

    assert [(entry.seconds, entry.text) for entry in journal.news()] == [
        (0.25, "the daemon started with 3 tokens"),
        (0.5, "bookings got its first token, valid for 10 s"),
        (6.0, "bookings rotated, valid for 10 s"),
        (12.0, "bookings: grant failed (server error), again in 0.5 s"),
        (13.0, "signage: publish to vault failed (vault sealed)"),
    ]
    assert journal.news() == [], "each is news once"
    assert len(journal.entries) == 5
    assert journal.admin == "127.0.0.1:1234"
    assert (journal.rotations, journal.failures, journal.complete) == (1, 1, False)


def test_the_journal_waits_for_the_end_of_a_line(journal: Journal) -> None:
    """Half a line is left until its other half is written, and what is no JSON is passed over."""
    rotate(journal, "bookings", 1)
    whole = journal._log.read_bytes()
    journal._log.write_bytes(b"Traceback\n" + whole[:40])
    journal.follow()
    assert journal.news() == []

    journal._log.write_bytes(b"Traceback\n" + whole)
    journal.follow()
    assert [entry.text for entry in journal.news()] == ["bookings got its first token, valid for 10 s"]


def test_the_state_of_a_token_follows_its_life(journal: Journal) -> None:
    """A token is fresh, due, retrying, suspended or expired by its events and by the time."""
    token = journal.tokens["bookings"]
    assert token.state(BEGAN) is TokenState.NONE

    rotate(journal, "bookings", 0)
    journal.follow()
    assert [token.state(BEGAN + now) for now in (1, 6, 10)] == [TokenState.FRESH, TokenState.DUE, TokenState.EXPIRED]

    write(journal, 6, "rotation_failed", token="bookings", step="grant", reason="timeout")
    journal.follow()
    assert token.state(BEGAN + 7) is TokenState.RETRYING

    write(journal, 7, "token_suspended", token="bookings", reason="invalid_grant")
    journal.follow()
    assert token.state(BEGAN + 8) is TokenState.SUSPENDED

    rotate(journal, "bookings", 9)
    journal.follow()
    assert token.state(BEGAN + 10) is TokenState.FRESH


def test_a_rotation_point_of_another_token_is_not_taken(journal: Journal) -> None:
    """The daemon's rotation point replaces the published one only where it lies in this token's life."""
    rotate(journal, "bookings", 20)
    journal.follow()
    token = journal.tokens["bookings"]

    token.set_rotation(BEGAN + 15)
    assert (token.rotate_at, token.rotation_known) == (BEGAN + 26, False)
    token.set_rotation(BEGAN + 25.5)
    assert (token.rotate_at, token.rotation_known) == (BEGAN + 25.5, True)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
def test_the_picture_fits_the_terminal(journal: Journal, width: int, height: int) -> None:
    """Every row fits, every token has its row with state, bar, seconds left and rotations, and the last events show."""
    for name in NAMES:
        rotate(journal, name, 0)
    for number in range(20):
        rotate(journal, "bookings", 6 + number / 10)
    journal.follow()

    rows = drawn(scene(journal), 10.9, width=width, height=height)

    assert len(rows) < height
    assert max(map(len, rows)) <= width
    text = "\n".join(rows)
    (row,) = [row for row in rows if row.startswith("bookings")]
    assert "fresh" in row
    assert row.split()[-3:] == ["7.0", "s", "20"]
    bar = row.split()[2]
    assert bar.index("●") / len(bar) == pytest.approx(0.3, abs=0.05)
    assert bar.index("┃") / len(bar) == pytest.approx(0.6, abs=0.05)
    assert "2,234 reads of OpenBao and the files, 0 refused, 7 different tokens seen" in text
    assert "7.9 s  bookings rotated, valid for 10 s" in text
    assert "http://127.0.0.1:46187/metrics" in text
    assert "/run/aca-tokend-demo-k3j2x9a1/published/b.json" in text
    assert "Ctrl-C" in rows[0]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20, 5), (40, 10)])
def test_a_tiny_terminal_is_no_reason_to_fail(journal: Journal, width: int, height: int) -> None:
    """However small the terminal is, something is drawn."""
    rotate(journal, "bookings", 0)
    journal.follow()

    assert drawn(scene(journal), 3, width=width, height=height)


def test_the_picture_needs_no_unicode(journal: Journal) -> None:
    """Where the terminal takes ASCII alone, the bar and its legend are drawn with that."""
    rotate(journal, "bookings", 0)
    journal.follow()

    rows = drawn(scene(journal), 3, encoding="ascii")

    assert "now o  rotation point |" in "\n".join(rows)
    (row,) = [row for row in rows if row.startswith("bookings")]
    assert set(row.split()[2]) == set("=-|o")


def test_a_refused_read_is_no_success(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """A demo in which a single read was refused exits 1 and tells of it; without one it exits 0."""
    rotate(journal, "bookings", 1.0)
    journal.follow()
    seen = scene(journal)
    assert _conclude(Summary(seen, 0)) == 0
    assert "no reader noticed anything" in capsys.readouterr().out

    seen.readers[1].refused, seen.readers[1].last_refusal = 1, "401 expired"
    assert _conclude(Summary(seen, 0)) == 1
    told = capsys.readouterr()
    assert "no reader noticed anything" not in told.out
    assert told.err == "1 reads were refused; one of them: 401 expired\n"


@pytest.mark.parametrize(
    ("ends", "promise"),
    [
        (math.inf, "Soon after 20 s the token endpoint will answer 503 for 2 s: watch the reads."),
        (60, "Soon after 20 s the token endpoint will answer 503 for 2 s: watch the reads."),
        (30, "Soon after 10 s the token endpoint will answer 503 for 2 s: watch the reads."),
        (7, ""),
    ],
)
def test_the_outage_is_announced(journal: Journal, ends: float, promise: str) -> None:
    """It comes after a third of the time or 20 seconds, and not at all in a demo too short to recover in."""
    assert scene(journal, ends=ends).outage.text() == promise


def test_the_outage_meets_a_rotation_and_ends_by_itself(
    journal: Journal, lookalike: LookAlike, http: httpx.Client
) -> None:
    """It begins just before a rotation point, makes grants fail, and ends without being told to."""
    outage = scene(journal, lookalike).outage
    rotate(journal, "bookings", 10)
    journal.follow()
    answers = [ask(http).status_code]

    outage.tick(14.0, BEGAN + 14.0, 0)
    assert outage.happened == 0, "no rotation point is near"
    outage.tick(15.75, BEGAN + 15.75, 5)
    assert outage.happened == 1
    answers.append(ask(http).status_code)
    write(journal, 16, "rotation_failed", token="bookings", step="grant", reason="unavailable")
    journal.follow()
    outage.tick(16.0, BEGAN + 16.0, 5)
    assert outage.text() == "The token endpoint answers 503 for 2 s now: 1 attempt failed, 0 reads refused so far."

    wait_until(lambda: ask(http).status_code == 200, "the end of the outage")
    wait_until(lambda: outage._timer is not None and not outage._timer.is_alive(), "the end of the timer")
    outage.tick(16.0 + OUTAGE_SECONDS, BEGAN + 16.0 + OUTAGE_SECONDS, 5)

    assert answers == [200, 503]
    assert outage.text() == "The token endpoint answered 503 for 2 s: 1 attempt failed, 0 reads refused."
    assert [entry.text for entry in journal.news()][-1] == "the token endpoint answers again"


def test_a_long_demo_has_an_outage_every_minute(journal: Journal, lookalike: LookAlike) -> None:
    """After one minute the next outage may begin, again just before a rotation point."""
    outage = scene(journal, lookalike, ends=math.inf).outage
    for began in (20.0, 80.0, 140.0):
        rotate(journal, "bookings", began - 5.75)
        journal.follow()
        outage.tick(began, BEGAN + began, 0)
        outage.close()
        lookalike.heal()
        outage.tick(began + 59.0, BEGAN + began + 59.0, 0)
        outage.tick(began + 60.0, BEGAN + began + 60.0, 0)

    assert outage.happened == 3
