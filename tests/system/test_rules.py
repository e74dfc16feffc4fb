"""deploy/prometheus and docs/runbooks: the rules fire as they should, and every word that leads on leads somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from aca_tokend.cli import app
from tests.blocks import PAGES as ALL_PAGES
from tests.blocks import blocks as blocks_of
from tests.blocks import blocks_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNBOOKS = DOCS / "runbooks"
RULES = ROOT / "deploy" / "prometheus" / "aca-tokend.rules.yaml"
CASES = sorted((RULES.parent / "tests").glob("*.yaml"))
TEXTS = RULES.parent / "tests" / "texts.yaml"
# The pages with PromQL, the runbooks first.
PAGES = [*sorted(RUNBOOKS.glob("*.md")), DOCS / "alerts.md", DOCS / "metrics.md", DOCS / "slo.md"]

SEVERITIES = {
    "ACATokenExpired": "critical",
    "ACATokenExpiringSoon": "warning",
    "ACATokenPublishStale": "critical",
    "ACACredentialsRejected": "critical",
    "ACAPasswordGrantDisabled": "critical",
    "ACATokenRotationFailing": "warning",
    "ACAEndpointDown": "warning",
    "ACAVaultLoginFailing": "warning",
    "ACAConfigReloadFailed": "warning",
    "ACAInternalError": "warning",
    "ACAClockSkew": "warning",
    "ACATokendAbsent": "critical",
    "ACATokenSLOBurnFast": "critical",
    "ACATokenSLOBurnSlow": "warning",
}
HEADINGS = ["What it means", "What readers feel now", "What to look at", "What to do", "How to know that it is over"]

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
METRIC = re.compile(r"(?<![:\w])aca_tokend_\w+")
RECORDED = re.compile(r"\b\w+:aca_tokend_\w+:\w+")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def rules() -> list[dict[str, Any]]:
    """All rules, of all groups."""
    return [rule for group in yaml.safe_load(read(RULES))["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [found["content"] for found in FENCE.finditer(read(page)) if found["language"] == language]


def succeeds(*command: str | Path, given: str = "") -> str:
    """What a program prints that must end well."""
    done = subprocess.run(list(map(str, command)), input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented() -> set[str]:
    """Every series that docs/metrics.md has, also those of histograms."""
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \|", read(DOCS / "metrics.md"), re.MULTILINE)
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {f"aca_tokend_{name}{suffix}" for name, kind in rows for suffix in suffixes.get(kind, ("",))}


# ── the rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lint() -> None:
    """The rules are well as promtool sees them, and there is nothing in them to be tidied."""
    assert "SUCCESS" in succeeds("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_unit_tests(case: Path) -> None:
    """Each rule fires when it should, does not when it should not, and says what it should."""
    succeeds("promtool", "test", "rules", case)


def test_alerts() -> None:
    """There is each alert once, with its severity, its texts and the address of its runbook."""
    assert [rule["alert"] for rule in alerts()] == list(SEVERITIES)
    for rule in alerts():
        name, annotations = rule["alert"], rule["annotations"]
        assert rule["labels"] == {"severity": SEVERITIES[name]}
        assert set(annotations) == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"] == f"https://runbooks.example.com/aca-tokend/{name}.md"
        assert "First: " in annotations["description"], name


def test_every_alert_is_tested() -> None:
    """Of each alert the unit tests have a case where it fires, one where it does not, and its whole text."""
    tests = [test for case in CASES for test in yaml.safe_load(read(case))["tests"]]
    fires, silent = set(), set()
    for asked in (asked for test in tests for asked in test.get("promql_expr_test", [])):
        for label in re.findall(r'alertname=~?"([^"]+)"', asked["expr"]):
            named = {name for name in SEVERITIES if re.fullmatch(label, name)}
            told = json.dumps(asked["exp_samples"])
            # a count has one sample without labels
            fires |= {name for name in named if name in told or (len(named) == 1 and told != "[]")}
            silent |= set() if asked["exp_samples"] else named
    texts = {asked["alertname"] for test in tests for asked in test.get("alert_rule_test", [])}

    assert fires == set(SEVERITIES)
    assert silent == set(SEVERITIES)
    assert texts == set(SEVERITIES)


def test_texts_are_whole() -> None:
    """No text that is expected of an alert has an error of its template, a number that is none, or a hole."""
    told = [
        (alert["exp_labels"], text)
        for test in yaml.safe_load(read(TEXTS))["tests"]
        for asked in test["alert_rule_test"]
        for alert in asked["exp_alerts"]
        for text in alert["exp_annotations"].values()
    ]
    assert len(told) >= 3 * len(SEVERITIES)
    for _, text in told:
        assert not re.search(r"<error|<no value>|NaN|Inf|  | [.,;:]|\(\)", text), text
    # what an alert is about stands in its text
    texts: dict[str, list[str]] = {}
    for labels, text in told:
        texts.setdefault(json.dumps(labels), []).append(text)
    for labels_text, lines in texts.items():
        labels = json.loads(labels_text)
        for label in ("token", "endpoint", "vault", "instance", "sink"):
            assert labels.get(label, "") in "\n".join(lines), (label, lines)


def test_metrics_are_documented() -> None:
    """Every series in rules and pages is one that docs/metrics.md has, or that the rules record."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [rule["expr"] for rule in rules()]
    annotations = [text for rule in alerts() for text in rule["annotations"].values()]
    snippets = [block for page in PAGES for block in blocks(page, "promql")]

    for text in (*expressions, *annotations, *snippets):
        assert set(METRIC.findall(text)) <= documented(), text
        assert set(RECORDED.findall(text)) <= recorded, text


def test_what_may_be_changed_is_there() -> None:
    """What the head of the rules and docs/alerts.md say may be changed stands in the rules: job, runbooks, budget."""
    text = read(RULES)
    head, _, rest = text.partition("groups:")
    for changed in ('job="aca-tokend"', "https://runbooks.example.com/aca-tokend/", "vector(0.001)"):
        assert changed in head
        assert changed in rest
        assert changed in read(DOCS / "alerts.md")
    naming = [rule["alert"] for rule in alerts() if re.search(r'\{job="', rule["expr"])]
    assert naming == ["ACATokendAbsent"]


# ── the runbooks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_runbooks() -> None:
    """Each alert has a runbook, the index names it with its severity, and no runbook is without an alert."""
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md") if page.stem != "README") == sorted(SEVERITIES)
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", read(RUNBOOKS / "README.md"), re.MULTILINE)
    assert rows == [(name, name, severity) for name, severity in SEVERITIES.items()]


@pytest.mark.parametrize("name", SEVERITIES)
def test_form_of_a_runbook(name: str) -> None:
    """A runbook has its five parts, none of them empty, a command or a query to look with, and is short."""
    text = read(RUNBOOKS / f"{name}.md")
    title, *parts = re.split(r"^#{1,2} ", text, flags=re.MULTILINE)[1:]
    assert title.strip() == name
    assert [part.splitlines()[0] for part in parts] == HEADINGS
    assert all(part.splitlines()[2].strip() for part in parts)
    assert "```promql\n" in parts[2]
    assert len(text.splitlines()) <= 100


def test_promql(tmp_path: Path) -> None:
    """Every PromQL of any page can be parsed."""
    snippets = [block.content for page in ALL_PAGES for block in blocks_of(page) if block.language == "promql"]
    assert len(snippets) > len(SEVERITIES)
    wrapped = [{"record": f"page:snippet:{number}", "expr": snippet} for number, snippet in enumerate(snippets)]
    file = tmp_path / "snippets.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "pages", "rules": wrapped}]}))
    succeeds("promtool", "check", "rules", "--lint=none", file)


def commands(text: str) -> Iterator[list[str]]:
    """The calls of aca-tokend in a text, as their arguments. An ellipsis stands for any."""
    calls = [
        line for found in FENCE.finditer(text) if found["language"] == "sh" for line in found["content"].splitlines()
    ]
    calls += CODE.findall(FENCE.sub("", text))
    for call in calls:
        # not a unit of systemd, a Deployment or a file of this name
        if found := re.search(r"(?:^|-- )aca-tokend ([a-z].*)$", call):
            yield shlex.split(found[1])


def test_commands() -> None:
    """Every call of aca-tokend in the runbooks and in the texts of the alerts is one that the program takes."""
    texts = [read(page) for page in PAGES]
    texts += [re.sub(r"{{.*?}}", "bookings", rule["annotations"]["description"], flags=re.DOTALL) for rule in alerts()]
    called = set()
    for call in (call for text in texts for call in commands(text)):
        done = CliRunner().invoke(app, [*call, "--help"])  # it is refused where an option is unknown
        assert done.exit_code == 0, (call, done.output)
        called.add(call[0])
    assert {"check", "doctor", "policy", "resume", "simulate", "status"} <= called


def documented_lines() -> str:
    """A line of the log for each event of docs/logs.md, with all keys that it may have, and one that is no JSON."""
    lines = ["Traceback (most recent call last):"]
    for event, keys in re.findall(r"^\| `(\w+)` \| [A-Z, ]+ \| ([^|]*) \|", read(DOCS / "logs.md"), re.MULTILINE):
        values: dict[str, object] = dict.fromkeys(CODE.findall(keys), "x")
        values |= {"timestamp": "2026-11-24T03:00:00Z", "event": event, "problems": ["x"]}
        values |= {"token": "bookings"} if "token" in values else {}
        lines += [json.dumps({**values, "step": step} if "step" in values else values) for step in ("grant", "publish")]
    return "\n".join(lines)


def test_log_filters() -> None:
    """Every filter of the log in the runbooks finds events of docs/logs.md, and asks for keys that they have."""
    filters = [
        (str(block), found)
        for block in blocks_for("tests/system/test_rules.py::test_log_filters")
        for found in re.findall(r"\| (jq .*)$", block.content, re.MULTILINE)
    ]
    assert len(filters) >= 6
    lines = documented_lines()
    for name, call in filters:
        found = succeeds(*shlex.split(call), given=lines)
        assert found, (name, call)
        for key in re.findall(r"\{([\w, ]+)\}", call):
            empty = set(re.findall(r"\w+", key))
            for line in found.splitlines():
                empty -= {known for known, value in json.loads(line).items() if value is not None}
            assert not empty, (name, empty)


# ── docs/alerts.md ────────────────────────────────────────────────────────────────────────────────────────────────────


def snippet(beginning: str) -> str:
    """The YAML of docs/alerts.md that begins with these words."""
    (found,) = [block for block in blocks(DOCS / "alerts.md", "yaml") if block.startswith(beginning)]
    return found


def test_changing_the_rules(tmp_path: Path) -> None:
    """The commands that change the rules change them, and the rules stay well."""
    for block in blocks_for("tests/system/test_rules.py::test_changing_the_rules"):
        file = tmp_path / RULES.name
        file.write_text(read(RULES))
        succeeds("sh", "-euc", f"cd {tmp_path}\n{block.content}")
        assert read(file) != read(RULES), block
        succeeds("promtool", "check", "rules", "--lint=none", file)


def test_prometheus_snippets(tmp_path: Path) -> None:
    """The parts of a Prometheus configuration on the page make one that promtool takes, with the shipped rules."""
    config = tmp_path / "prometheus.yaml"
    rule_files = snippet("rule_files:").replace("/etc/prometheus/aca-tokend.rules.yaml", str(RULES))
    assert str(RULES) in rule_files
    config.write_text(rule_files + snippet("scrape_configs:"))
    succeeds("promtool", "check", "config", config)
    (scrape,) = yaml.safe_load(snippet("scrape_configs:"))["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in read(RULES)


def test_alertmanager_snippet(tmp_path: Path) -> None:
    """The Alertmanager configuration of the page is valid, and wakes somebody for what is critical alone."""
    config = tmp_path / "alertmanager.yaml"
    config.write_text(snippet("route:"))
    succeeds("amtool", "check-config", config)
    for name, severity in SEVERITIES.items():
        labels = [f"alertname={name}", f"severity={severity}", "job=aca-tokend"]
        receiver = succeeds("amtool", "config", "routes", "test", f"--config.file={config}", *labels)
        assert receiver.strip() == {"critical": "pager", "warning": "office"}[severity]


def test_table_of_alerts() -> None:
    """The table of docs/alerts.md has each alert with its duration and severity."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line, after in pairwise([*read(DOCS / "alerts.md").splitlines(), ""])
        if line.startswith("| ACA") and not after.startswith("|--")
    ]
    told = {name: (row[2], row[3]) for row in rows for name in row[0].split(", ")}
    assert set(told) == set(SEVERITIES)
    for rule in alerts():
        duration, severity = told[rule["alert"]]
        assert duration == rule.get("for", "at once").replace("m", " min"), rule["alert"]
        assert rule["labels"]["severity"] in severity.split(", ")
