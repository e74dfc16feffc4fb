"""Values that cannot work are refused before anything is installed, with the place, the problem and the fix."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CASES, CHART, HELMS, HERE, RefusedError, template

CANARY = "canary-literal-password-77aa"
(LEAST,) = [case for case in CASES if case.name == "kubernetes"]
REFUSED: list[dict[str, Any]] = yaml.safe_load((HERE / "refused.yaml").read_text(encoding="utf-8"))

# In Helm's own words, which differ between 3 and 4; each is brought into the form `place: words`.
HELM_4 = re.compile(r"^ *- at '(?P<place>[^']*)': (?P<words>.*)$", re.MULTILINE)
HELM_3 = re.compile(r"^ *- (?P<place>[^:]+): (?P<words>.*)$", re.MULTILINE)
OURS = re.compile(r"execution error at \([^)]*\): (?P<words>.*)$", re.MULTILINE)


def refusal(helm: str, values: dict[str, Any]) -> set[str]:
    """What Helm says of values; it must refuse them."""
    with pytest.raises(RefusedError) as refused:
        template(helm, CHART, "aca-tokend", ("-f", "-"), json.dumps(values))
    text = str(refused.value)
    assert CANARY not in text
    if ours := OURS.search(text):
        return {ours["words"]}
    if helm == "4":
        return {f"{found['place'].strip('/').replace('/', '.')}: {found['words']}" for found in HELM_4.finditer(text)}
    places = HELM_3.finditer(text)
    return {f"{found['place'].replace('(root)', '')}: {found['words']}" for found in places}


def changed(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The values with another value at a path such as `config.tokens.0.name`; nothing there if it is None."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    *way, last = path.split(".")
    at: Any = copy
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    if isinstance(at, list):
        at[int(last)] = value
    elif value is None:
        at.pop(last, None)
    else:
        at[last] = value
    return copy


def with_changes(entry: dict[str, Any]) -> dict[str, Any]:
    """The least values with the changes of an entry."""
    values = LEAST.values
    for path, value in entry["set"].items():
        values = changed(values, path, value)
    return values


def named(entry: dict[str, Any]) -> str:
    """What a test of an entry is called."""
    return " ".join(entry["set"])


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("entry", [entry for entry in REFUSED if "says" in entry], ids=named)
def test_templates(helm: str, entry: dict[str, Any]) -> None:
    """What the templates refuse is said in our words, the same by both Helms."""
    assert refusal(helm, with_changes(entry)) == {entry["says"]}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("entry", [entry for entry in REFUSED if "says" not in entry], ids=named)
def test_schema(helm: str, entry: dict[str, Any]) -> None:
    """What the schema refuses names the place and what may be there, and shows no secret that was put there."""
    assert entry[f"helm{helm}"] in refusal(helm, with_changes(entry))


@pytest.mark.parametrize("helm", HELMS)
def test_control_characters(helm: str) -> None:
    """A text that no ConfigMap can hold is refused: by the template, or by Helm 3 before it gets there."""
    values = json.dumps(changed(LEAST.values, "config.tokens.0.name", "a\x7fb"))
    with pytest.raises(RefusedError, match="control characters"):
        template(helm, CHART, "aca-tokend", ("-f", "-"), values)


@pytest.mark.parametrize("helm", HELMS)
def test_too_large_for_a_configmap(helm: str) -> None:
    """More tokens than one ConfigMap can hold are refused by Helm, with what to do, and not by the cluster."""
    (token,) = LEAST.values["config"]["tokens"]
    many = [token | {"name": f"room-{number}", "scope": "x" * 1000} for number in range(1000)]
    (words,) = refusal(helm, changed(LEAST.values, "config.tokens", many))
    assert re.fullmatch(r"config: is \d{7} bytes of TOML, and a ConfigMap holds a million; put tokens into .*", words)
