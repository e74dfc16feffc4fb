"""The doctor without servers: what is said together, what hangs, what depends on what, and how it is shown."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest
from rich.console import Console

from aca_tokend import sinks
from aca_tokend.clock import SystemClock
from aca_tokend.core.config import EnvReference, parse
from aca_tokend.core.errors import InternalError, ReachError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account
from aca_tokend.doctor import LIMIT_SECONDS, accounts, endpoints, files, hastened, picture, reach, targets
from aca_tokend.doctor.examination import Check, Examination, Notes
from aca_tokend.doctor.findings import Area, Finding, Report, Status, listed
from aca_tokend.net.opening import Origin
from aca_tokend.parts import Parts
from tests.unit.file_writer import document

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from aca_tokend.core.config import Config

# Long enough for anything that ends at all.
PLENTY = 60.0
SHORT = 0.2


def finding(subject: str, status: Status = Status.OK, area: Area = Area.SECRET, detail: str = "it resolves") -> Finding:
    """One finding."""
    return Finding(area, subject, "resolves", status, detail, "mend it" if status is Status.FAILED else "")


# ── findings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_findings_are_one_row() -> None:
    """Subjects of which the same was found share a row; another detail is another row."""
    report = Report.of(
        [
            finding("a", Status.FAILED),
            finding("b"),
            finding("c", Status.FAILED),
            finding("d", Status.FAILED, detail="it is empty"),
        ],
        1.0,
    )
    assert [(row.subjects, row.status) for row in report.rows] == [
        (("a", "c"), Status.FAILED),
        (("b",), Status.OK),
        (("d",), Status.FAILED),
    ]
    assert report.counts == {"failed": 3, "warn": 0, "skipped": 0, "ok": 1}
    assert not report.well


def test_areas_stand_in_their_order() -> None:
    """Endpoints come first, whichever check ended first."""
    report = Report.of([finding("x", area=Area.ACCOUNT), finding("y", area=Area.ENDPOINT)], 0.0)
    assert [row.area for row in report.rows] == [Area.ENDPOINT, Area.ACCOUNT]


@pytest.mark.parametrize(("status", "well"), [(status, status is not Status.FAILED) for status in Status])
def test_what_is_well(status: Status, well: bool) -> None:
    """Only a failure makes it not well."""
    assert Report.of([finding("a", status)], 0.0).well is well


def test_json_has_every_subject() -> None:
    """The JSON names all subjects of a row, however many there are, and always has the same keys."""
    report = Report.of([finding(f"s{number}", Status.FAILED) for number in range(300)], 1.23)
    fields = json.loads(picture.as_json(report))

    assert list(fields) == ["well", "counts", "seconds", "checks"]
    assert (fields["well"], fields["seconds"], fields["counts"]["failed"]) == (False, 1.2, 300)
    (row,) = fields["checks"]
    assert list(row) == ["area", "check", "subjects", "status", "detail", "fix"]
    assert len(row["subjects"]) == 300


def test_many_names_are_cut() -> None:
    """Of many names the first are shown, and how many more there are."""
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(300)]) == "0, 1, 2 and 297 more"


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Hang:
    """A call that hangs until the end of the test. The time of an examination is not over before it began."""

    def __init__(self) -> None:
        self._begun, self._end = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def call(self) -> None:
        self._begun.set()
        self._end.wait(PLENTY)

    def progress(self, *_told: object) -> None:
        assert self._begun.wait(PLENTY)

    async def work(self, notes: Notes) -> None:
        """Finds its first step, and hangs in the second."""
        notes.ok("first", "well")
        await Call("pool", self.call)
        notes.ok("second", "too late")


def examine(*checks: Check, hang: Hang | None = None, size: int = 4) -> dict[tuple[str, str], tuple[Status, str]]:
    """Runs checks; status and detail of each by subject and step."""
    seconds, progress = (SHORT, hang.progress) if hang else (PLENTY, lambda *_: None)
    found = Examination({"pool": size}, checks).run(seconds, progress)
    return {(it.subject, it.check): (it.status, it.detail) for it in found}


def check(
    subject: str, *steps: str, work: Callable[[Notes], Coroutine[Any, Any, None]], after: Sequence[str] = ()
) -> Check:
    """A check that others name by its subject."""
    return Check(Area.VAULT, subject, steps, work, tuple(after), key=subject)


def well(*steps: str) -> Callable[[Notes], Coroutine[Any, Any, None]]:
    """Finds all of these in order."""

    async def work(notes: Notes) -> None:
        for step in steps:
            await Call("pool", lambda: None)
            notes.ok(step, "well")

    return work


def broken_at(step: str) -> Callable[[Notes], Coroutine[Any, Any, None]]:
    """Fails at once and goes no further."""

    async def work(notes: Notes) -> None:
        await Call("pool", lambda: None)
        notes.failed(step, "it fails", "mend it")

    return work


def test_steps_after_a_failure_are_skipped() -> None:
    """What could not be tried because a step before it failed says so."""
    found = examine(check("a", "one", "two", work=broken_at("one")))
    assert found["a", "one"] == (Status.FAILED, "it fails")
    assert found["a", "two"] == (Status.SKIPPED, "because one of a failed")


def test_dependents_are_skipped_with_the_reason() -> None:
    """Whoever waits for a check that broke off is skipped, and so is whoever waits for that one."""
    found = examine(
        check("c", "four", work=well("four"), after=["b"]),
        check("b", "three", work=well("three"), after=["a"]),
        check("a", "one", "two", work=broken_at("one")),
    )
    assert found["b", "three"] == found["c", "four"] == (Status.SKIPPED, "because one of a failed")


def test_a_failure_in_the_last_step_stops_nobody() -> None:
    """A check that came to its end lets the others go on, though something failed in it."""
    found = examine(check("a", "one", work=broken_at("one")), check("b", "two", work=well("two"), after=["a"]))
    assert found["b", "two"] == (Status.OK, "well")


def test_waits_for_all_it_needs() -> None:
    """A check with several conditions begins after the last of them."""
    order: list[str] = []

    def noted(name: str) -> Callable[[Notes], Coroutine[Any, Any, None]]:
        async def work(notes: Notes) -> None:
            await Call("pool", lambda: order.append(name))
            notes.ok("it", "well")

        return work

    examine(
        check("c", "it", work=noted("c"), after=["a", "b"]),
        check("a", "it", work=noted("a")),
        check("b", "it", work=noted("b"), after=["a"]),
    )
    assert order == ["a", "b", "c"]


def test_what_hangs_is_told() -> None:
    """When the time is over the step that hangs fails with a fix, and what waits for it is skipped."""
    with Hang() as hang:
        first = check("a", "first", "second", "third", work=hang.work)
        checks = [first, check("b", "x", work=well("x"), after=["a"])]
        found = Examination({"pool": 4}, checks).run(SHORT, hang.progress)
    assert [(it.subject, it.check, it.status, it.detail) for it in found] == [
        ("a", "first", Status.OK, "well"),
        ("a", "second", Status.FAILED, "hangs: no end of it within 0.2 s"),
        ("a", "third", Status.SKIPPED, "second hangs"),
        ("b", "x", Status.SKIPPED, "a hangs"),
    ]
    assert found[1].fix


def test_what_never_began_is_skipped() -> None:
    """A check whose pool is held by others that hang is not said to hang itself."""
    with Hang() as hang:
        found = examine(
            check("a", "first", "second", work=hang.work), check("b", "x", work=well("x")), hang=hang, size=1
        )
    assert found["b", "x"] == (Status.SKIPPED, "the time was over before it was its turn")


def test_no_more_at_once_than_the_pool_takes() -> None:
    """However many checks there are, a server is asked as many at once as its pool is large, and no more."""
    lock, together, now, most = threading.Lock(), threading.Barrier(3), [0], [0]

    def call() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(PLENTY)
        with lock:
            now[0] -= 1

    async def work(notes: Notes) -> None:
        await Call("pool", call)
        notes.ok("it", "well")

    found = examine(*(check(str(number), "it", work=work) for number in range(99)), size=3)
    assert len(found) == 99
    assert most[0] == 3


def test_no_more_checks_of_a_lane_at_once() -> None:
    """Of the checks in one lane so many are under way as the pool takes calls, though their calls are in another."""
    lock, under_way, most = threading.Lock(), [0], [0]

    async def work(notes: Notes) -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        await Call("wide", lambda: None)
        await Call("wide", lambda: None)
        with lock:
            under_way[0] -= 1
        notes.ok("it", "well")

    checks = [Check(Area.ACCOUNT, str(number), ("it",), work, lane="pool") for number in range(100)]
    found = Examination({"pool": 2, "wide": 8}, checks).run(PLENTY, lambda *_: None)
    assert len(found) == 100
    assert most[0] <= 2


def test_thousands_that_need_no_call() -> None:
    """Checks that end at once, one after the other in one lane, are no depth of the stack."""

    async def work(notes: Notes) -> None:
        notes.skipped("it", "there is no time")

    checks = [Check(Area.ACCOUNT, str(number), ("it",), work, lane="pool") for number in range(5000)]
    assert len(Examination({"pool": 1}, checks).run(PLENTY, lambda *_: None)) == 5000


def test_a_bug_is_raised() -> None:
    """What nobody expected is not a finding: it ends the call."""

    async def work(notes: Notes) -> None:
        del notes
        await Call("pool", lambda: 1 // 0)

    with pytest.raises(InternalError, match="unexpected ZeroDivisionError in test_doctor"):
        examine(check("a", "it", work=work))


def test_progress_is_told() -> None:
    """Progress says how many checks are done, of how many, and which are out."""
    told: list[tuple[int, int, list[str]]] = []
    checks = [check("a", "it", work=well("it")), check("b", "it", work=well("it"), after=["a"])]
    Examination({"pool": 1}, checks).run(PLENTY, lambda done, total, out: told.append((done, total, list(out))))
    assert told[-1] == (2, 2, [])
    assert all(total == 2 for _, total, _ in told)


def test_the_process_ends_although_threads_hang() -> None:
    """A call that never comes back keeps the process from nothing."""
    code = """
import sys, threading
from aca_tokend.core.steps import Call
from aca_tokend.core.token import Account
from aca_tokend.doctor.examination import Check, Examination
from aca_tokend.doctor.findings import Area
begun = threading.Event()
def hang():
    begun.set()
    threading.Event().wait()
async def work(notes):
    await Call("pool", hang)
found = Examination({"pool": 1}, [Check(Area.FILE, "a", ("it",), work)]).run(0.2, lambda *_: begun.wait())
print(found[0].detail)
sys.exit(3)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (3, "")
    assert "hangs" in ended.stdout


# ── showing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def shown(report: Report, width: int = 80) -> str:
    """The report as it is printed."""
    stream = io.StringIO()
    picture.show(report, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_fix_stands_beside_each_failure(width: int) -> None:
    """Each failure has its fix below it, and the last line says what it comes to, however narrow the terminal."""
    text = shown(Report.of([finding("a", Status.FAILED), finding("b")], 2.0), width)
    lines = [line.strip() for line in text.splitlines()]
    assert any("FAILED" in line for line in lines)
    assert lines.index("→ mend it") > next(number for number, line in enumerate(lines) if "FAILED" in line)
    assert lines[-1] == "not well: 1 failed, 0 warn, 1 ok; 2.0 s"


def test_hundreds_are_a_few_lines() -> None:
    """Three hundred equal failures take no more room than one."""
    findings = [finding(f"token-{number}", Status.FAILED) for number in range(300)]
    text = shown(Report.of(findings, 2.0))
    assert "token-0, token-1, token-2 and 297 more" in text
    assert len(text.splitlines()) < 10


def test_markup_is_not_obeyed() -> None:
    """What stands in square brackets is shown as it is."""
    text = shown(Report.of([finding("[bold]x[/bold]", detail="see [vault.main]")], 0.0))
    assert "[bold]x[/bold]" in text
    assert "see [vault.main]" in text


def test_progress_without_a_terminal() -> None:
    """Elsewhere than on a terminal progress is a few plain lines."""
    stream = io.StringIO()
    with picture.progress(Console(file=stream), LIMIT_SECONDS) as progress:
        for done in range(101):
            progress(done, 100, ["vault.main"] * (100 - done))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "100 checks, 12.5 s at most"
    assert "waiting for vault.main" in lines[1]
    assert 2 <= len(lines) <= 5
    assert "\x1b" not in stream.getvalue()


def test_progress_on_a_terminal() -> None:
    """On a terminal it is a bar that is gone at the end."""
    stream = io.StringIO()
    with picture.progress(Console(file=stream, force_terminal=True), LIMIT_SECONDS) as progress:
        progress(1, 2, ["vault.main"])
    assert "1/2" in stream.getvalue()


# ── single checks ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Found:
    """Notes whose findings a test looks at."""

    def __init__(self, *steps: str) -> None:
        self.findings: list[Finding] = []
        self.notes = Notes(Area.ENDPOINT, "acaengine.main", steps, self.findings.append)

    @property
    def last(self) -> Finding:
        return self.findings[-1]


def certificate(days: float) -> dict[str, Any]:
    """What Python tells of a certificate that ends in so many days."""
    ends = datetime.now(UTC) + timedelta(days=days)
    return {
        "subjectAltName": (("DNS", "aca.example.com"), ("IP Address", "10.0.0.1"), ("URI", "spiffe://x")),
        "issuer": ((("organizationName", "Example"),), (("commonName", "Example CA"),)),
        "notAfter": ends.strftime("%b %d %H:%M:%S %Y GMT"),
    }


@pytest.mark.parametrize(("days", "status"), [(80.0, Status.OK), (14.5, Status.OK), (13.5, Status.WARN)])
def test_certificate_that_ends_soon(days: float, status: Status) -> None:
    """A certificate is told with names, issuer and days left, and warned of in its last two weeks."""
    found = Found(reach.TLS)
    reach.tell_certificate(found.notes, certificate(days), time.time())
    assert found.last.status is status
    assert "for aca.example.com, 10.0.0.1 by Example CA" in found.last.detail
    assert bool(found.last.fix) is (status is Status.WARN)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("certificate has expired", "renew"),
        ("Hostname mismatch, certificate is not valid for 'x'", "stands on the certificate"),
        ("IP address mismatch, certificate is not valid for '10.0.0.1'", "stands on the certificate"),
        ("self-signed certificate", "ca_file"),
        ("unable to get local issuer certificate", "ca_file"),
        ("ca_file /x: no such file or directory", "PEM"),
        ("wrong version number", "plain HTTP"),
        ("something else", "check ca_file"),
    ],
)
def test_fix_for_each_problem_of_tls(said: str, fix: str) -> None:
    """What OpenSSL says of a certificate leads to what a person can do about it."""
    found = Found(reach.TLS)
    reach.tell_tls_failure(found.notes, ReachError(Reason.TLS_FAILED, f"TLS failed: {said}"))
    assert found.last.status is Status.FAILED
    assert fix in found.last.fix


@pytest.mark.parametrize(
    ("skew", "status"),
    [
        (0.9, Status.OK),
        (-5.0, Status.OK),
        (6.0, Status.WARN),
        (-29.0, Status.WARN),
        (31.0, Status.FAILED),
        (None, Status.SKIPPED),
    ],
)
def test_clock_skew(skew: float | None, status: Status) -> None:
    """A clock is warned of from 5 seconds on, and fails from 30, as the status and the alert have it."""
    found = Found(endpoints.CLOCK)
    endpoints._clock(found.notes, skew)
    assert found.last.status is status


@pytest.mark.parametrize(("status", "well"), [(200, True), (404, False), (403, False), (500, False)])
def test_authority(status: int, well: bool) -> None:
    """Only 200 means that the server knows our Host; 404 says which Host it does not know."""
    found = Found(endpoints.AUTHORITY)
    assert endpoints._authority(found.notes, status, "aca.example.com") is well
    assert "aca.example.com" in found.last.detail
    assert bool(found.last.fix) is not well


def test_a_name_that_is_none() -> None:
    """A host name that cannot be one does not resolve."""
    with pytest.raises(ReachError) as failed:
        reach.addresses(Origin("https", "x" * 80 + ".example.com", 443))
    assert failed.value.reason is Reason.NAME_NOT_RESOLVED


# ── configurations ────────────────────────────────────────────────────────────────────────────────────────────────────


def config(publish: dict[str, Any], **endpoint: object) -> Config:
    """One token with one place."""
    document = {
        "acaengine": {"main": {"url": "https://aca.example.com", **endpoint}},
        "tokens": [
            {
                "name": "bookings",
                "authority": "authority-1",
                "username": "svc",
                "password": {"env": "PASSWORD"},
                "client_id": "client-1",
                "client_secret": {"env": "SECRET"},
                "publish": [{"to": "file", **publish}],
            }
        ],
    }
    return parse([("config.toml", document)])


def parts_of(config: Config) -> Parts:
    return Parts(config, SystemClock(), lambda _event: None)


def examine_files(publish: dict[str, Any]) -> dict[str, Finding]:
    """The findings about the only place of a configuration, by step."""
    parts = parts_of(config(publish))
    checks = [*files.places(parts), *targets.checks(parts), *files.surroundings(parts)]
    found = Examination(parts.pools(), checks).run(PLENTY, lambda *_: None)
    return {it.check: it for it in found}


def test_a_file_that_can_be_written(tmp_path: Path) -> None:
    """A directory that may be written is well, and nothing is left in it."""
    found = examine_files({"path": str(tmp_path / "bookings.json")})
    assert {found[step].status for step in ("directory", "owner", "target")} == {Status.OK}
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_files(tmp_path: Path) -> None:
    """A place that is a directory of files is tried as a whole, and must be there."""
    place = {"to": "directory", "files": {"token": {"format": "token"}}}
    found = examine_files({**place, "path": str(tmp_path)})
    assert {found[step].status for step in ("directory", "owner", "target")} == {Status.OK}
    assert list(tmp_path.iterdir()) == []
    found = examine_files({**place, "path": str(tmp_path / "missing")})
    assert found["directory"].status is Status.FAILED


@pytest.mark.parametrize("to", ["file", "directory"])
def test_a_place_by_two_ways(tmp_path: Path, to: str) -> None:
    """The doctor says where links lead, and fails a place that is another's by way of a link."""
    (tmp_path / "run" / "bookings").mkdir(parents=True)
    (tmp_path / "var").symlink_to("run")
    extra: dict[str, Any] = {"to": to} if to == "file" else {"to": to, "files": {"token": {"format": "token"}}}
    name = "rooms.json" if to == "file" else "bookings"
    ways = [{**extra, "path": str(tmp_path / folder / name)} for folder in ("run", "var")]
    real = tmp_path / "run" / ("" if to == "file" else name)

    assert examine_files(ways[0])["directory"].detail == "may be written"
    assert examine_files(ways[1])["directory"].detail == f"may be written; it leads to {real}"

    whole = config(ways[0])
    other = config(ways[1]).tokens[0].model_copy(update={"name": "rooms"})
    parts = parts_of(whole.model_copy(update={"tokens": (*whole.tokens, other)}))
    found = Examination(parts.pools(), files.places(parts)).run(PLENTY, lambda *_: None)
    (failed,) = [it for it in found if it.status is Status.FAILED]
    paths = {way["path"] for way in ways}
    assert failed.detail in {f"is the same place as {path}, by a link" for path in paths - {failed.subject}}
    assert failed.fix == "publish each token to places of its own"


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    """A missing directory fails with its fix, and what would come after it is skipped."""
    found = examine_files({"path": str(tmp_path / "missing" / "bookings.json")})
    assert (found["directory"].status, found["directory"].fix) == (Status.FAILED, "create the directory")
    assert found["target"].status is Status.SKIPPED
    assert found["memory"].status is Status.SKIPPED


@pytest.mark.parametrize("kind", ["directory", "link", "foreign"])
def test_a_target_that_is_no_file_of_ours(tmp_path: Path, kind: str) -> None:
    """A directory or a link in the place of the token fails, another's file is warned of; its content is not shown."""
    target = tmp_path / "bookings.json"
    if kind == "directory":
        target.mkdir()
    elif kind == "link":
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.write_text("canary-content")
    found = examine_files({"path": str(target)})
    assert found["target"].status is (Status.WARN if kind == "foreign" else Status.FAILED)
    assert found["target"].fix
    assert "canary-content" not in str(found)


OURS, ANOTHER = Account("aca.example.com", "authority-1", "svc", "client-1").fingerprint, "0" * 32


@pytest.mark.parametrize("to", ["file", "directory"])
@pytest.mark.parametrize(
    ("token", "account", "replace_foreign", "told"),
    [
        ("bookings", OURS, False, (Status.OK, "holds a token")),
        ("", OURS, False, (Status.OK, "holds a token")),
        ("bookings", ANOTHER, False, (Status.OK, "will be replaced: it holds the token of another account")),
        ("rooms", OURS, False, (Status.WARN, "will not be replaced: this token did not write what is there")),
        ("", ANOTHER, False, (Status.WARN, "will not be replaced: this token did not write what is there")),
        ("rooms", OURS, True, (Status.OK, "holds a token")),
        ("rooms", ANOTHER, True, (Status.OK, "will be replaced: it holds the token of another account")),
    ],
)
def test_what_a_start_will_do(
    tmp_path: Path, to: str, token: str, account: str, replace_foreign: bool, told: tuple[Status, str]
) -> None:
    """A document under the token's name is its own, whatever the account; one under another name stays, with a fix."""
    place: dict[str, Any] = {"path": str(tmp_path / "bookings.json")}
    if to == "directory":
        place = {"to": to, "path": str(tmp_path), "files": {"token": {"format": "token"}}}
    sink = sinks.build(config(place).tokens[0].publish[0], {})
    sink.publish(replace(document(1), account=account, token=token), sink.look())

    found = examine_files({**place, "replace_foreign": replace_foreign})["target"]

    assert (found.status, found.detail.startswith(told[1])) == (told[0], True), found.detail
    assert ("replace_foreign" in found.fix) is (found.status is Status.WARN)


def test_account_that_cannot_be_resolved(tmp_path: Path) -> None:
    """Where a reference of the account does not resolve, nothing is said of what a start will do."""
    whole = config({"path": str(tmp_path / "bookings.json")})
    entry = whole.tokens[0].model_copy(update={"username": EnvReference(env="NO_SUCH_VARIABLE")})
    parts = parts_of(whole.model_copy(update={"tokens": (entry,)}))
    (only,) = targets.checks(parts)
    (found,) = Examination(parts.pools(), [replace(only, after=())]).run(PLENTY, lambda *_: None)
    assert (found.status, found.detail) == (Status.SKIPPED, "whose token it should be cannot be resolved")


@pytest.mark.parametrize("to", ["file", "directory"])
def test_record_of_a_client(tmp_path: Path, to: str) -> None:
    """An earlier version's attempt record of a client is named as one that can be removed, and stays where it is."""
    place: dict[str, Any] = {"path": str(tmp_path / "bookings.json")}
    record = tmp_path / ".bookings.json.client-attempts"
    if to == "directory":
        place = {"to": to, "path": str(tmp_path), "files": {"token": {"format": "token"}}}
        record = tmp_path / ".client-attempts"
    assert targets.RECORD not in examine_files(place)
    record.write_text("{}")
    found = examine_files(place)[targets.RECORD]
    assert (found.subject, found.status) == (str(record), Status.OK)
    assert "can be removed" in found.detail
    assert record.read_text() == "{}"


def test_an_owner_that_there_is_none(tmp_path: Path) -> None:
    """An unknown owner is a failure of its own, and the directory is still said to be well."""
    found = examine_files({"path": str(tmp_path / "bookings.json"), "owner": "no-such-user"})
    assert found["directory"].status is Status.OK
    assert found["owner"].status is Status.FAILED
    assert "owner" in found["owner"].fix


@pytest.mark.parametrize(
    ("kind", "status"), [("tmpfs", Status.OK), ("ext4", Status.WARN), ("overlay", Status.WARN), ("", Status.SKIPPED)]
)
def test_kind_of_file_system(tmp_path: Path, kind: str, status: Status) -> None:
    """The kernel's list of mounts tells what a directory is on: memory, or a disk that tokens should not be on."""
    device = tmp_path.stat().st_dev
    number = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    line = f"36 35 {number if kind else '0:0'} / / rw,noatime shared:1 - {kind or 'tmpfs'} none rw\n"
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:1 / /proc rw - proc proc rw\n" + line)
    assert files._file_system(str(tmp_path), mounts) == kind
    found = Found(files.MEMORY)
    files._tell_memory(found.notes, kind)
    assert found.last.status is status


@pytest.mark.parametrize(
    ("after", "status"),
    [
        ({"command": ["sh", "-c", "true"]}, Status.OK),
        ({"command": ["no-such-program"]}, Status.FAILED),
        ({"command": ["/etc/passwd"]}, Status.FAILED),
        ({"signal": "HUP", "pid_file": "/nonexistent/pid"}, Status.FAILED),
        ({"signal": "HUP", "pid_file": "/etc/passwd"}, Status.OK),
    ],
)
def test_hooks(tmp_path: Path, after: dict[str, Any], status: Status) -> None:
    """The program of a hook must be there to be run, and its pid file to be read; it is not run."""
    found = examine_files({"path": str(tmp_path / "bookings.json"), "after": after})["hook"]
    assert found.status is status
    assert bool(found.fix) is (status is Status.FAILED)


def test_no_timeout_is_longer_than_the_doctor_waits() -> None:
    """Long timeouts are cut, short ones stay."""
    assert hastened(config({"path": "/x"}, timeout="30s")).acaengine["main"].timeout == 4.0
    assert hastened(config({"path": "/x"}, timeout="1s")).acaengine["main"].timeout == 1.0


def test_no_attempt_is_begun_without_time_for_it() -> None:
    """An attempt for which too little time is left is skipped, with what to do: once begun it must be counted."""
    whole = config({"path": "/x"}, timeout="4s")
    parts = parts_of(whole)
    (only,) = accounts.checks(parts, whole, SystemClock(), SystemClock().monotonic() + 5.0)
    (found,) = Examination(parts.pools(), [replace(only, after=())]).run(PLENTY, lambda *_: None)
    assert (found.status, found.check) == (Status.SKIPPED, "grant")
    assert found.detail == "not tried: too little time is left for a whole attempt; call the doctor again"


def test_a_daemons_claim_is_respected() -> None:
    """How long a claim of a daemon counts goes by the daemon's timeout, not by the shorter one of the doctor."""
    whole = config({"path": "/x"}, timeout="30s")
    (only,) = accounts.checks(parts_of(hastened(whole)), whole, SystemClock(), SystemClock().monotonic() + PLENTY)
    assert only.examine.keywords["token"].wiring.rules.lease_seconds == 61.0  # type: ignore[attr-defined]  # it is a partial
