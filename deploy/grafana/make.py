"""Writes `aca-tokend.json` of what `panels.py` describes. `make dashboard` calls it; it needs Python alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panels import ROWS, VARIABLES

if TYPE_CHECKING:
    from parts import Panel, Query, Steps, Variable

FILE = Path(__file__).with_name("aca-tokend.json")
UID = "aca-tokend"
# The oldest schema that has all we use: Grafana 10 and later read it, and bring it up to theirs.
SCHEMA_VERSION = 36
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# A fleet has thousands of tokens: more points than this would only cost.
POINTS = 200
# So that a rate has two scrapes also where Prometheus scrapes once a minute, and its data source does not say so.
LEAST_INTERVAL = "2m"
STATUS_PAGE = "http://127.0.0.1:9464"

KINDS = {"stat": "stat", "table": "table", "bars": "bargauge", "lines": "timeseries", "states": "state-timeline"}
OF_THE_PRESENT = ("stat", "table", "bars")


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": UID,
        "title": "aca-tokend",
        "description": "Whether every token is fresh; which is not, and why; how long readers are still safe.",
        "tags": ["aca-tokend"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "links": [
            _link("Status page", "${status_page:raw}/"),
            _link("Runbooks", _runbook("README")),
        ],
        "templating": {"list": _variables()},
        "annotations": {"list": [_reloads()]},
        "panels": _panels(),
    }


def _link(title: str, url: str) -> dict[str, Any]:
    return {"title": title, "type": "link", "icon": "external link", "url": url, "targetBlank": True}


def _runbook(name: str) -> str:
    """A runbook as the daemon itself serves it."""
    return f"${{status_page:raw}}/runbooks/{name}"


def _reloads() -> dict[str, Any]:
    """A line in every panel where a daemon was started or took up a new configuration."""
    return {
        "name": "Configuration taken up",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": "changes(aca_tokend_config_last_reload_timestamp_seconds"
        '{job=~"$job", namespace=~"$namespace"}[$__rate_interval]) > 0',
    }


def _variables() -> list[dict[str, Any]]:
    """What can be chosen at the top: where the data is, which of it, and where the status page is."""
    datasource = {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes aca-tokend.",
        "query": "prometheus",
        "current": {},
    }
    status_page = {
        "type": "textbox",
        "name": "status_page",
        "label": "Status page",
        "description": "Where your browser reaches [admin] listen; for the links alone.",
        "query": STATUS_PAGE,
        "current": {"text": STATUS_PAGE, "value": STATUS_PAGE},
        "options": [{"text": STATUS_PAGE, "value": STATUS_PAGE, "selected": True}],
    }
    return [datasource, *map(_variable, VARIABLES), status_page]


def _variable(variable: Variable) -> dict[str, Any]:
    several: dict[str, Any] = {}
    if variable.all_values:
        everything = {"text": "All", "value": "$__all"}
        several = {"multi": True, "includeAll": True, "allValue": variable.all_values, "current": everything}
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.title,
        "description": variable.told,
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({variable.metric}, {variable.name})", "refId": "StandardVariableQuery"},
        "refresh": 2,  # whenever the time that is shown changes: tokens come and go
        "sort": 1,  # by the alphabet
        **several,
    }


def _panels() -> list[dict[str, Any]]:
    """All panels with their headings: from left to right, in lines as high as their highest panel."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        position = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []})
        panels[-1]["gridPos"] = position
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, height = 0, top + height, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    queries = zip("ABCDEFGH", panel.queries, strict=False)
    return {
        "type": KINDS[panel.kind],
        "title": panel.title,
        "description": panel.told,
        "datasource": DATASOURCE,
        "maxDataPoints": POINTS,
        "interval": LEAST_INTERVAL,
        "links": [_link(f"Runbook {panel.runbook}", _runbook(panel.runbook))] if panel.runbook else [],
        "targets": [_target(panel, letter, query) for letter, query in queries],
        "fieldConfig": {"defaults": _field(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        "transformations": _transformations(panel),
    }


def _target(panel: Panel, letter: str, query: Query) -> dict[str, Any]:
    now = panel.kind in OF_THE_PRESENT
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "instant": now,
        "range": not now,
        "format": "table" if panel.kind == "table" else "time_series",
        "editorMode": "code",
    }


def _thresholds(steps: Steps) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}


def _field(panel: Panel) -> dict[str, Any]:
    """How values are shown."""
    plain = ((None, "green" if panel.kind == "stat" else "text"),)
    field: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": _thresholds(panel.steps or plain),
        "color": {"mode": "palette-classic" if panel.kind == "lines" else "thresholds"},
    }
    if panel.words:
        texts = {
            str(number): {"text": word, "color": colour, "index": index}
            for index, (number, word, colour) in enumerate(panel.words)
        }
        field["mappings"] = [{"type": "value", "options": texts}]
    if panel.unit == "percentunit":
        field["min"] = 0
    if panel.decimals is not None:
        field["decimals"] = panel.decimals
    if panel.most is not None:
        field["max"] = panel.most
    if panel.none:
        field["noValue"] = panel.none
    if panel.kind == "lines":
        field["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 8,
            "showPoints": "auto",
            "spanNulls": False,
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    if panel.kind == "states":
        field["custom"] = {"lineWidth": 0, "fillOpacity": 80}
    return field


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    """Colours of single series that are not 0, and where a click on the token of a table leads."""
    overrides = [
        _override(query.legend, "thresholds", _thresholds(((None, "text"), (1, query.colour))))
        for query in panel.queries
        if query.colour
    ]
    if panel.kind == "table":
        chosen = "${datasource:queryparam}&${job:queryparam}&${namespace:queryparam}&${__url_time_range}"
        links = [
            {"title": "Its row", "url": f"/d/{UID}?var-token=${{__value.text}}&{chosen}"},
            {"title": "Its status page", "url": "${status_page:raw}/tokens/${__value.text}", "targetBlank": True},
        ]
        overrides.append(_override("token", "links", links))
    if panel.kind == "table" and panel.words:
        overrides.append(_override(panel.queries[0].legend, "custom.cellOptions", {"type": "color-text"}))
    return overrides


def _override(name: str, what: str, value: object) -> dict[str, Any]:
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": what, "value": value}]}


def _options(panel: Panel) -> dict[str, Any]:
    """What is particular to a kind of panel."""
    of_all = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    tooltip = {"mode": "multi", "sort": "desc"}
    match panel.kind:
        case "stat":
            text = "name" if panel.by_name else "auto"
            return {
                "reduceOptions": of_all,
                "colorMode": "value",
                "graphMode": "none",
                "textMode": text,
                "justifyMode": "auto",
                "orientation": "auto",
            }
        case "bars":
            return {
                "reduceOptions": of_all,
                "displayMode": "basic",
                "valueMode": "color",
                "orientation": "horizontal",
                "showUnfilled": True,
            }
        case "table":
            worst_first = [{"displayName": panel.queries[0].legend, "desc": True}]
            return {"showHeader": True, "cellHeight": "sm", "sortBy": worst_first}
        case "states":
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []}
            return {"mergeValues": True, "showValue": "auto", "rowHeight": 0.9, "legend": legend, "tooltip": tooltip}
        case _:
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
            return {"legend": legend, "tooltip": tooltip}


def _transformations(panel: Panel) -> list[dict[str, Any]]:
    """A table has a column for each label; its value gets the name that the query gives it, the time is left out."""
    if panel.kind != "table":
        return []
    names = {"Value": panel.queries[0].legend}
    order = {name: index for index, name in enumerate(("token", "sink", "step", "reason", "Value"))}
    options = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    return [{"id": "organize", "options": options}]


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
