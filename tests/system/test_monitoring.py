"""From a fault to a person and back: real daemons, the shipped rules in a real Prometheus, a real Alertmanager.

All faults of `rehearsal.py` happen side by side, once for the whole module; the tests read what came of it.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aca_tokend.core.outcome import Component, Reason, Step
from aca_tokend.demo.child import HelperError
from aca_tokend.demo.stage import wait_until
from tests.system.cast import TOKENS
from tests.system.monitoring import RULES, Monitoring, hurried, program
from tests.system.rehearsal import FAULTS, PAGE, about, telling, written
from tests.system.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aca_tokend.demo.stage import DaemonProcess
    from tests.system.monitoring import Alert

# The story takes a minute and a half on an idle machine, and the first test waits for it.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("monitoring")]

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Until every alert came, and again until every alert is resolved.
LIMIT_SECONDS = 400.0

SLO = "ACATokenSLOBurnFast"


@dataclass
class Story:
    """What came of it all.

    Attributes:
        told: what the webhook was told until the last alert had come.
        pages: the page of metrics at that time, in both formats.
        statuses: what `aca-tokend status` said of each fault when its first alert came.
    """

    scene: Scene
    monitoring: Monitoring
    told: list[Alert]
    pages: Mapping[str, str]
    statuses: Mapping[str, str]

    def of(self, fault: str) -> list[Alert]:
        """The alerts that a fault raised."""
        return [alert for alert in self.told if alert.firing and about(alert) == fault]


def missing(told: list[Alert]) -> set[tuple[str, str]]:
    """The alerts that must come and did not yet."""
    came = {(about(alert), alert.name) for alert in told if alert.firing}
    wanted = {(name, alert) for name, fault in FAULTS.items() for alert in fault.alerts} | {("", SLO)}
    return wanted - came


def wait(condition: Callable[[], bool], what: str) -> None:
    """Waits; what does not come about is for the tests to tell, each of its own fault."""
    with contextlib.suppress(HelperError):
        wait_until(condition, what, LIMIT_SECONDS)


def page(daemon: DaemonProcess, accept: str) -> str:
    """The page of metrics in the format that a scraper asks for."""
    request = urllib.request.Request(f"http://127.0.0.1:{daemon.admin_port}/metrics", headers={"Accept": accept})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=LIMIT_SECONDS) as response:
        return str(response.read().decode())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Everything is well; all faults are made; their alerts come; all is mended; the alerts are resolved."""
    directory = tmp_path_factory.mktemp("monitoring")
    rules = hurried(RULES.read_text(encoding="utf-8"))
    with Scene(directory) as scene, Monitoring(directory / "monitoring", rules) as monitoring:
        hook = monitoring.webhook
        monitoring.watch(**scene.daemons)
        # by the count that the rules keep: of what it never had Prometheus cannot tell that it is gone
        well = f"job:aca_tokend_tokens:count == {len(TOKENS)} == scalar(count(aca_tokend_token_ready == 1))"
        wait_until(lambda: bool(monitoring.query(well)), "ready tokens", LIMIT_SECONDS)
        for fault in FAULTS.values():
            fault.make(scene)
        statuses: dict[str, str] = {}

        def all_came() -> bool:
            for alert in hook.told():
                name = about(alert)
                if name in FAULTS and name not in statuses and alert.name == FAULTS[name].alerts[0]:
                    statuses[name] = scene.status(name)
            return not missing(hook.told())

        wait(all_came, "every alert came")
        told = hook.told()
        pages = {accept: page(scene.daemons["tokens"], accept) for accept in (TEXT, OPENMETRICS)}
        for fault in FAULTS.values():
            fault.mend(scene)
        monitoring.watch(**scene.daemons)
        wait(lambda: not any(map(about, hook.firing())), "every alert is resolved")
        yield Story(scene, monitoring, told, pages, statuses)


def test_a_minute_lasts_a_second() -> None:
    """The rules of the tests are those that are shipped, with durations a sixtieth as long and nothing else changed."""
    rules = """
      - record: x:rate5m
        expr: 'max_over_time(x{place=~"vault[.:].*"}[1h:1m] offset 10m) > 30'
        for: 2m
        annotations: {text: "30s or 2m"}
    """
    assert (
        hurried(rules)
        == """
      - record: x:rate5m
        expr: 'max_over_time(x{place=~"vault[.:].*"}[60000ms:1000ms] offset 10000ms) > 30'
        for: 2000ms
        annotations: {text: "30s or 2m"}
    """
    )


def test_rules_work(story: Story) -> None:
    """Prometheus evaluates every rule without an error."""
    assert {rule["name"]: rule["lastError"] for rule in story.monitoring.rules() if rule.get("lastError")} == {}
    assert {rule["health"] for rule in story.monitoring.rules()} == {"ok"}


@pytest.mark.parametrize("fault", FAULTS)
def test_alert_arrives_and_is_resolved(story: Story, fault: str) -> None:
    """A fault raises its alerts and no others, and they are resolved once it is mended."""
    assert {alert.name for alert in story.of(fault)} == set(FAULTS[fault].alerts)
    assert [alert.name for alert in story.monitoring.webhook.firing() if about(alert) == fault] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_alert_tells_what_a_person_needs(story: Story, fault: str) -> None:
    """Each alert names what it is about, why, what to do first and a runbook that there is, in whole sentences."""
    for alert in story.of(fault):
        told = f"{alert.annotations['summary']}\n{alert.annotations['description']}"
        assert fault in told
        assert re.search(FAULTS[fault].why, told), told
        assert "First: " in told
        assert not re.search(r"error expanding|<no value>|%!|  |NaN", told), told
        assert alert.annotations["runbook_url"].endswith(f"/{alert.name}.md")
        assert (RUNBOOKS / f"{alert.name}.md").is_file()


def test_what_is_well_raises_nothing(story: Story) -> None:
    """A token beside all of these, in the same daemon, at the same endpoint and in the same Vault, raises no alert."""
    assert story.of("well") == []


def test_burning_budget_is_told(story: Story) -> None:
    """So many tokens without validity at one time are told of as an error budget that burns."""
    assert [alert for alert in story.told if alert.name == SLO and alert.firing]


def test_promtool_finds_nothing(story: Story) -> None:
    """`promtool check metrics` has nothing to say of a page whose tokens are well, suspended, failing and expired."""
    command = [program("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=story.pages[TEXT], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_both_formats_reach_prometheus(story: Story) -> None:
    """Prometheus reads OpenMetrics where it asks for that, the older text elsewhere, and finds the same in both."""
    newer = story.monitoring
    assert story.pages[OPENMETRICS].endswith("# EOF\n")
    with Monitoring(story.scene.directory / "older", "groups: []", protocol="PrometheusText0.0.4") as older:
        older.watch(**story.scene.daemons)
        wait_until(lambda: series(newer) == series(older) != set(), "the same series in both")
        # a counter's name ends with _total in the older format alone
        assert newer.kinds("tokens")["aca_tokend_rotations"] == "counter"
        assert older.kinds("tokens")["aca_tokend_rotations_total"] == "counter"


def series(monitoring: Monitoring, which: str = 'instance="tokens"') -> set[tuple[tuple[str, str], ...]]:
    """The names and labels of what is exported."""
    found = monitoring.query(f'{{__name__=~"aca_tokend_.+",{which}}}')
    return {tuple(sorted(labels.items())) for labels, _ in found}


def test_no_free_text_in_a_label(story: Story) -> None:
    """Every label is a name of the configuration, a place that it names, or one of a closed list."""
    names = "|".join(token.name for token in TOKENS)
    allowed = {
        "token": names,
        "endpoint": "main|endpoint-down|endpoint-hangs|clock-wrong",
        "vault": "main|policy-lost|login-lost|vault-sealed",
        "sink": rf"(vault(\.[\w-]+)?:secret/aca/({names})|file:{story.scene.directory}/\w+/({names})\.json)",
        "reason": "|".join(Reason),
        "step": "|".join(Step),
        "component": "|".join(Component),
        "result": "rotated|adopted|failed|skipped|written|unchanged|fenced|succeeded",
        "code": r"\d{3}|none",
        "kind": "vault|file",
        "method": "token|approle",
        "version": r"\d\S*",
        "python": r"3\.\S*",
        "revision": r"\w*",
        "le": r"[\d.]+|\+Inf",
    }
    found = re.findall(r'(\w+)="([^"]*)"', story.pages[TEXT])
    assert len(found) > 1000
    assert not [label for label in set(found) if not re.fullmatch(allowed.get(label[0], ""), label[1])]


def test_no_secret_is_told(story: Story) -> None:
    """No secret is on any page, in any log or in any alert."""
    seen = [*story.pages.values(), *map(str, story.told)]
    for daemon in story.scene.daemons.values():
        paths = ("/", "/tokens/password-wrong", "/metrics", "/api/v1/status", "/-/ready?verbose")
        seen += [daemon.log.read_text(), *(daemon.get(path)[1] for path in paths)]
    for secret in story.scene.secrets():
        assert not [text for text in seen if secret in text]


def test_series_follow_a_reload(story: Story) -> None:
    """The series of a token that leaves are gone from Prometheus; those of one that comes are all there, and at 0."""
    scene, monitoring = story.scene, story.monitoring
    gone, come = 'token="reload-bad"', 'token="come"'
    scene.at_main("come", "hang")
    scene.rename_token("reload-bad", "come")
    wait_until(lambda: not series(monitoring, gone) and bool(series(monitoring, come)), "the series of another token")

    text = page(scene.daemons["reload-bad"], TEXT)
    assert gone not in text
    lines = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in text.splitlines() if come in line}
    counted = {name: float(value) for name, value in lines.items() if re.search('(rotated|adopted|written)"', name)}
    assert len(counted) == 3
    assert set(counted.values()) == {0.0}
    assert families(text, come) - {"aca_tokend_rotation_errors_total"} == families(story.pages[TEXT], 'token="well"')


def families(page: str, label: str) -> set[str]:
    """The names of the series that have a label."""
    return {line.partition("{")[0] for line in page.splitlines() if label in line}


def test_rehearsal_is_as_written(story: Story) -> None:
    """docs/rehearsal.md has the alert of each fault, and the reasons that it and `aca-tokend status` name."""
    told = {name: next(alert for alert in story.of(name) if alert.name == FAULTS[name].alerts[0]) for name in FAULTS}
    fresh = story.scene.directory / "rehearsal.md"
    fresh.write_text(written(told, story.statuses, story.scene), encoding="utf-8")

    assert telling(PAGE.read_text(encoding="utf-8")) == telling(fresh.read_text(encoding="utf-8")), f"see {fresh}"
