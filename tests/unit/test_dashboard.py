"""The Grafana dashboard: its file is the one that its description makes, and Grafana would understand all of it."""

from __future__ import annotations

import enum
import json
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import make
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "grafana" / "aca-tokend.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAMES = [panel["title"] for panel in PANELS]

# Grafana's own; `__value` is what was clicked on.
BUILT_IN = {"__all", "__rate_interval", "__range", "__value", "__url_time_range"}
VARIABLE = re.compile(r"\$\{?(\w+)")
METRIC = re.compile(r"\baca_tokend_(\w+)")
SERIES_OF = re.compile(r"_(?:bucket|count|sum)$")


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def lost(before: object, after: object, where: str) -> Iterator[str]:
    """What of `before` is not in `after`. None and what is left out are the same to Grafana."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if value is not None:
                yield from lost(value, after.get(key), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{where}[{index}]")
    elif before != after:
        yield f"{where}: {before!r} came back as {after!r}"


def wrong_words(value: object, where: str) -> Iterator[str]:
    """The values below that are no member of the enumeration that Grafana's model has there."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from wrong_words(each, f"{where}[{index}]")
    if not type(value).__module__.startswith("grafana_foundation_sdk"):
        return
    for name, hint in typing.get_type_hints(type(value)).items():
        field = getattr(value, name)
        kinds = [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type)]
        for kind in kinds:
            if issubclass(kind, enum.Enum) and field is not None and field not in list(kind):
                yield f"{where}.{name}: {field!r} is none of {[member.value for member in kind]}"
        yield from wrong_words(field, f"{where}.{name}")


def test_file_is_made_of_its_description() -> None:
    """The committed file is what `make dashboard` writes."""
    assert FILE.read_text(encoding="utf-8") == make.text()


def test_grafana_understands_all_of_it() -> None:
    """Read and written by the models that Grafana publishes, nothing of it is lost: no key of ours is unknown there."""
    register_default_plugins()
    model = Dashboard.from_json(DASHBOARD)

    written = json.loads(json.dumps(model, cls=JSONEncoder))

    assert not list(lost(DASHBOARD, written, "dashboard"))
    assert not list(wrong_words(model, "dashboard"))


def test_mistakes_are_noticed() -> None:
    """The reading by Grafana's models would tell of a mistyped key and of a mistyped word."""
    register_default_plugins()
    panel = {**PANELS[0], "titel": "x", "options": {**PANELS[0]["options"], "colorMode": "colourful"}}
    model = Dashboard.from_json({"panels": [panel]})

    assert any(
        ".titel" in each for each in lost(panel, json.loads(json.dumps(model, cls=JSONEncoder))["panels"][0], "")
    )
    assert any("colourful" in each for each in wrong_words(model.panels, ""))


def test_panels_do_not_overlap() -> None:
    """Each panel has a number and a place of its own, within the 24 columns."""
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= make.COLUMNS
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_no_gaps() -> None:
    """Each line of panels fills the whole width, and all of a line are equally high."""
    lines: dict[int, list[dict[str, int]]] = {}
    for panel in DASHBOARD["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    for line in lines.values():
        assert sum(place["w"] for place in line) == make.COLUMNS
        assert len({place["h"] for place in line}) == 1


@pytest.mark.parametrize("panel", PANELS, ids=NAMES)
def test_panel(panel: dict[str, Any]) -> None:
    """Each panel says in words what it shows, has a unit, and asks the chosen Prometheus about the chosen job."""
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for asked in (panel, *panel["targets"]):
        assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for expression in expressions(panel):
        selectors = re.findall(r"aca_tokend_\w+\{([^}]*)\}", expression)
        assert len(selectors) == len(METRIC.findall(expression)), "a metric without a selector"
        assert all(selector.startswith('job=~"$job", namespace=~"$namespace"') for selector in selectors)


def test_variables_exist() -> None:
    """Every variable that is used can be chosen at the top or is one of Grafana's own."""
    told = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(VARIABLE.findall(json.dumps(DASHBOARD))) - BUILT_IN == told


def test_metrics_are_those_of_the_documentation() -> None:
    """The dashboard asks for no metric that docs/metrics.md does not have."""
    told = re.findall(
        r"^\| `(\w+)` \| \w+ \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    used = {SERIES_OF.sub("", name) for name in METRIC.findall(json.dumps(DASHBOARD))}

    assert not used - set(told)


def test_links_lead_to_runbooks() -> None:
    """The runbook of each panel is one that there is."""
    runbooks = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    links = {link["url"] for panel in PANELS for link in panel["links"]}

    assert links
    assert {link.partition("/runbooks/")[2] for link in links} < runbooks
