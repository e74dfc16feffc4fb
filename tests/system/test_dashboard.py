"""The Grafana dashboard against a real Prometheus that scrapes a real daemon, well at first and in trouble then."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from parts import STATE, STATES

from aca_tokend.core.secret import Secret
from aca_tokend.demo.child import HelperError
from aca_tokend.demo.stage import Passwords, Settings, Stage, wait_until
from tests.integration.conftest import CANARY_CLIENT_SECRET, CANARY_PASSWORD, assert_nothing_leaked
from tests.system.monitoring import Monitoring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.demo.stage import DaemonProcess

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "grafana" / "aca-tokend.json"
METRICS = ROOT / "docs" / "metrics.md"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))

# Tokens are due after three seconds and live for five minutes: what fails then stays failing, and does not expire.
LIFETIME_SECONDS = 300.0
ROTATION = """min_interval = "1s"
fraction = 0.01
jitter = 0.0
backoff = { initial = "500ms", cap = "1s" }
retry_rejected = "0s"
"""
TOKENS = ("well", "rejected", "failing", "half")
# long enough for a machine that does much else
SETTINGS = Settings(rotation=ROTATION, endpoint='timeout = "30s"', vault='timeout = "30s"')
NO_RULES = "groups: []"


class Asked(NamedTuple):
    """One expression of the dashboard."""

    panel: str
    letter: str
    expression: str


def asked() -> list[Asked]:
    """Every expression of every panel."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    return [Asked(panel["title"], target["refId"], target["expr"]) for panel in panels for target in panel["targets"]]


def fill(expression: str, token: str) -> str:
    """An expression as Grafana sends it with this token chosen, and everything else at All."""
    values = {each["name"]: each["allValue"] for each in DASHBOARD["templating"]["list"] if "allValue" in each}
    values |= {"token": token, "__rate_interval": "1m", "__range": "1h"}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


class Watcher:
    """Looks at panels of the dashboard as a person would who has chosen one token."""

    def __init__(self, monitoring: Monitoring) -> None:
        self._monitoring = monitoring

    def show(self, panel: str, token: str = "") -> dict[str, float]:
        """What one panel shows now: each of its series by the values of its labels, or by the legend."""
        targets = next(each["targets"] for each in DASHBOARD["panels"] if each["title"] == panel)
        shown = {}
        for target in targets:
            for labels, value in self._monitoring.query(fill(target["expr"], token)):
                named = {name: text for name, text in labels.items() if name not in {"job", "instance"}}
                shown[" ".join(named.values()) or target["legendFormat"]] = value
        return shown

    def wait_for(self, panel: str, expected: dict[str, float], token: str = "") -> None:
        """Waits until a panel shows this and nothing else."""
        seen = {}

        def shows() -> bool:
            nonlocal seen
            seen = self.show(panel, token)
            return seen == expected

        try:
            wait_until(shows, panel)
        except HelperError as error:
            message = f"{panel} shows {seen} and not {expected}"
            raise AssertionError(message) from error

    def empty(self, token: str) -> list[str]:
        """The expressions that give nothing to draw."""
        return [
            f"{each.panel} {each.letter}"
            for each in asked()
            if not any(math.isfinite(value) for _, value in self._monitoring.query(fill(each.expression, token)))
        ]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, DaemonProcess, Monitoring]]:
    """A daemon with tokens that rotate every three seconds, and a Prometheus that scrapes it every second."""
    directory = tmp_path_factory.mktemp("dashboard")
    passwords = Passwords(Secret(CANARY_PASSWORD), Secret(CANARY_CLIENT_SECRET))
    with (
        Stage(directory, lifetime=LIFETIME_SECONDS, passwords=passwords) as stage,
        Monitoring(directory / "monitoring", NO_RULES) as monitoring,
    ):
        daemon = stage.daemon(stage.config(TOKENS, SETTINGS))
        monitoring.watch(one=daemon)
        yield stage, daemon, monitoring


def test_every_expression_is_valid(tmp_path: Path) -> None:
    """As recording rules promtool takes all expressions and finds nothing to complain of."""
    rules = [
        {"record": f"panel:{index}", "expr": fill(each.expression, "bookings")} for index, each in enumerate(asked())
    ]
    reloads = [fill(each["expr"], "") for each in DASHBOARD["annotations"]["list"]]
    rules += [{"record": f"annotation:{index}", "expr": each} for index, each in enumerate(reloads)]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", str(file))

    assert f"{len(rules)} rules found" in checked


def promtool(*arguments: str) -> str:
    """What promtool says; a test fails where it finds anything wrong."""
    program = shutil.which("promtool")
    assert program, "install the Debian package prometheus"
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class Seen(NamedTuple):
    """What one daemon says of a token, at 600 seconds past 1970."""

    ready: int = 1
    suspended: int = 0
    failures: int = 0
    issued: int = 100
    due: int = 700
    until: tuple[int, ...] = (1000,)
    kind: str = "vault"

    def series(self, token: str, instance: str) -> list[dict[str, str]]:
        """As metrics that stay as they are for ten minutes."""
        labels = f'job="aca-tokend", instance="{instance}", token="{token}"'
        values = {
            f"token_ready{{{labels}}}": self.ready,
            f'token_suspended{{{labels}, reason="invalid_grant"}}': self.suspended,
            f'token_suspended{{{labels}, reason="invalid_scope"}}': 0,
            f"token_consecutive_failures{{{labels}}}": self.failures,
            f"token_issued_timestamp_seconds{{{labels}}}": self.issued,
            f"token_rotation_timestamp_seconds{{{labels}}}": self.due,
        }
        for number, until in enumerate(self.until):
            place = f'sink="{self.kind}:{number}"'
            values[f"published_expiration_timestamp_seconds{{{labels}, {place}}}"] = until
        return [{"series": f"aca_tokend_{name}", "values": f"{value}x10"} for name, value in values.items()]


# What the daemons say of a token, and the state that follows.
SEEN: dict[str, tuple[list[Seen], str]] = {
    "well": ([Seen()], "ready"),
    "expired-since-the-scrape": ([Seen(until=(599,))], "ready"),
    "not-looked-at": ([Seen(ready=0, issued=0, due=0, until=(0,))], "starting"),
    "failed-once": ([Seen(failures=1)], "failing"),
    "waits-for-its-endpoint": ([Seen(due=500)], "failing"),
    "just-due": ([Seen(due=590)], "ready"),
    "refused": ([Seen(suspended=1, failures=2)], "suspended"),
    "suspended-by-its-record": ([Seen(suspended=1, due=500)], "suspended"),
    "over": ([Seen(ready=0, until=(500,))], "expired"),
    "never-granted": ([Seen(ready=0, issued=0, due=0, failures=1, until=(0,))], "expired"),
    "refused-and-over": ([Seen(ready=0, suspended=1, issued=0, due=0, until=(0,))], "expired"),
    "one-of-two-places": ([Seen(ready=0, failures=1, until=(1000, 0))], "expired"),
    "second-replica-has-not-looked": ([Seen(), Seen(ready=0, issued=50, due=400, until=(500,))], "ready"),
    "second-replica-fails": ([Seen(), Seen(failures=1)], "failing"),
    "file-of-one-machine-is-over": ([Seen(kind="file"), Seen(ready=0, until=(500,), kind="file")], "expired"),
}


def test_states(tmp_path: Path) -> None:
    """The state of a token is the worst that is true of it, whichever daemon knows it."""
    words = [word for word, _ in STATES]
    series = [
        each
        for token, (seen, _) in SEEN.items()
        for number, one in enumerate(seen)
        for each in one.series(token, f"instance-{number}")
    ]
    expected = [
        {"labels": f'{{job="aca-tokend", token="{token}"}}', "value": words.index(state)}
        for token, (_, state) in SEEN.items()
    ]
    asked_at = {"expr": fill(STATE, ""), "eval_time": "10m", "exp_samples": expected}
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"tests": [{"input_series": series, "promql_expr_test": [asked_at]}]}))

    promtool("test", "rules", str(file))


def make_directory_of(file: Path) -> None:
    """Puts a directory in the place of a published file, which the daemon may write anew at this very moment."""
    while True:
        file.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            file.mkdir()
            return


@pytest.mark.xdist_group("dashboard")
def test_well(watched: tuple[Stage, DaemonProcess, Monitoring]) -> None:
    """While all is well every panel has something to show, and what is counted as trouble is 0 and not missing."""
    _, daemon, monitoring = watched
    watcher = Watcher(monitoring)
    for token in TOKENS:
        daemon.wait_for("token_rotated", 2, token=token)

    wait_until(lambda: not watcher.empty("well"), "something in every panel")

    # a scrape that took too long, on a machine that does much else, leaves a gap of a second
    nothing = {"expired": 0, "suspended": 0, "failing": 0, "starting": 0}
    watcher.wait_for("Tokens by state", {**nothing, "ready": len(TOKENS)})
    watcher.wait_for("Tokens in trouble", {"no token is in trouble": 0})
    watcher.wait_for("Tokens in trouble, over time", {"not ready": 0, "suspended": 0, "failing": 0})
    watcher.wait_for("Why: errors in the time that is shown", {"no errors": 0})
    watcher.wait_for("Errors by step and reason", {"no errors": 0})
    watcher.wait_for("Sinks that fail", {"no sink fails": 0})
    wait_until(lambda: watcher.show("Outage tolerance left").get("", 0.0) > 0.7, "all of the outage tolerance left")
    watcher.wait_for("Configuration", {"": 1})
    watcher.wait_for("Suspended", {"no": 0}, token="well")
    watcher.wait_for("Our token expires in", {"main": 10 * 365 * 86400})  # a root token never expires
    watcher.wait_for("Last log-in", {"main": 1})
    watcher.wait_for("Up", {"main": 1})
    # a scrape in the middle of a rotation finds the sinks behind
    wait_until(lambda: set(watcher.show("Sinks behind", "well").values()) == {0}, "no sink behind")


@pytest.mark.xdist_group("dashboard")
def test_links(watched: tuple[Stage, DaemonProcess, Monitoring]) -> None:
    """Every link to the daemon, be it to its pages, a token or a runbook, leads to a page that it serves."""
    _, daemon, _ = watched
    links = set(re.findall(r"\$\{status_page:raw\}(/[^\"]*)", json.dumps(DASHBOARD)))

    assert {"/", "/tokens/${__value.text}", "/runbooks/README"} < links
    for link in links:
        assert daemon.get(link.replace("${__value.text}", "well"))[0] == 200, link


def unanswered(monitoring: Monitoring) -> list[str]:
    """The examples of docs/metrics.md that give nothing."""
    examples: list[str] = re.findall(
        r"^```promql\n(.*?)^```$", METRICS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert examples
    return [example for example in examples if not monitoring.query(example)]


@pytest.mark.xdist_group("dashboard")
def test_trouble(watched: tuple[Stage, DaemonProcess, Monitoring]) -> None:
    """Each kind of trouble stands where the dashboard promises it: which token, which step, why; nothing leaks."""
    stage, daemon, monitoring = watched
    watcher = Watcher(monitoring)
    for token in TOKENS:
        daemon.wait_for("token_rotated", token=token)
    kinds = {"rejected": "invalid_grant", "failing": "server_error_500", "never": "invalid_grant"}
    stage.lookalike.levers(faults=[{"kind": kind, "username": token} for token, kind in kinds.items()])
    stage.config([*TOKENS, "never"], SETTINGS)
    make_directory_of(stage.file_of("half"))

    watcher.wait_for("Tokens in trouble", {"never": 4, "rejected": 3, "failing": 2, "half": 2})

    watcher.wait_for("Tokens by state", {"expired": 1, "suspended": 1, "failing": 2, "starting": 0, "ready": 1})
    reasons = {"invalid_grant grant never", "invalid_grant grant rejected", "server_error grant failing"}
    reasons |= {"not_a_file look half"}
    wait_until(lambda: reasons <= watcher.show("Why: errors in the time that is shown").keys(), "every reason")
    watcher.wait_for("Suspended", {"invalid_grant": 1}, token="rejected")
    failing = {f"file:{stage.file_of('half')} half"}
    wait_until(lambda: watcher.show("Sinks that fail").keys() == failing, "the sink that fails")
    wait_until(lambda: not watcher.empty("rejected") + watcher.empty("half"), "something in every panel")
    wait_until(lambda: not unanswered(monitoring), "an answer to every example of docs/metrics.md")
    stage.file_of("half").rmdir()
    assert_nothing_leaked(stage, daemon)
