"""The configuration that the chart writes is the one in the values, and our own parser takes it."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aca_tokend.config.files import load
from tests.chart.rendering import CASES, CHART, HELMS, objects, template

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chart.rendering import Case

WITH_CONFIG = [case for case in CASES if "config" in case.values]
(LEAST,) = [case for case in CASES if case.name == "kubernetes"]


def written(text: str) -> str:
    """The configuration among the objects that were rendered."""
    (found,) = [item for item in objects(text) if item["kind"] == "ConfigMap" and "config.toml" in item.get("data", ())]
    return str(found["data"]["config.toml"])


def expected(values: dict[str, Any]) -> dict[str, Any]:
    """What the values say, with the two things that the chart adds."""
    config: dict[str, Any] = dict(values["config"])
    config["admin"] = {"listen": "0.0.0.0:9464"} | config.get("admin", {})
    if values.get("shards", 1) > 1:
        config["shard"] = {"count": values["shards"], "index": {"env": "ACA_TOKEND_SHARD"}}
    return config


@pytest.mark.parametrize("case", WITH_CONFIG, ids=lambda case: case.name)
def test_meaning(case: Case) -> None:
    """The TOML says what the values say, no more and no less."""
    assert tomllib.loads(written(case.text())) == expected(case.values)


@pytest.mark.parametrize("case", WITH_CONFIG, ids=lambda case: case.name)
def test_it_is_accepted(case: Case, tmp_path: Path) -> None:
    """Our own parser takes it, and finds the tokens in their order."""
    path = tmp_path / "config.toml"
    path.write_text(written(case.text()), encoding="utf-8")
    config = load(path)
    assert [token.name for token in config.tokens] == [token["name"] for token in case.values["config"]["tokens"]]
    assert config.admin.listen.endswith(":9464")


@pytest.mark.parametrize("helm", HELMS)
def test_numbers(helm: str) -> None:
    """Whole numbers stay whole, others keep their digits, and a fraction that is whole is still taken."""
    rotation = {"fraction": 0.123456789, "jitter": 0, "max_rejections": 10}
    values = LEAST.values
    values["config"]["rotation"] = rotation
    values["config"]["tokens"][0]["rotation"] = {"max_rejections": 3}

    text = written(template(helm, CHART, "aca-tokend", ("-f", "-"), json.dumps(values)))

    told = tomllib.loads(text)
    assert told["rotation"] == rotation
    assert type(told["rotation"]["max_rejections"]) is int
    assert type(told["tokens"][0]["rotation"]["max_rejections"]) is int


# what YAML, a ConfigMap and TOML can all hold; what they cannot is refused (test_refusals.py)
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="\ufeff", include_characters="\t\n"),
    min_size=1,
    max_size=40,
)
HARD = [
    '"',
    "\\",
    "'''",
    '"""',
    "#",
    "a: b",
    "- a",
    "{{ x }}",
    "é\u2028\u2029",
    "\U0001d518",
    "\t\n\n",
    " ",
    "true",
    "1e3",
    "~",
    "a\\u0041",
]


class Quoted(yaml.SafeDumper):
    """Every text in quotes: what looks like a number differs between YAML 1.1 and 1.2."""


Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(names=st.lists(TEXT, min_size=25, max_size=25), keys=st.lists(TEXT, min_size=5, max_size=5, unique=True))
def test_texts(names: list[str], keys: list[str]) -> None:
    """Whatever text stands in the values is the text in the TOML, as a value and as a key."""
    values = LEAST.values
    texts = [*names, *HARD, *keys]
    token = values["config"]["tokens"][0]
    values["config"]["tokens"] = [
        token | {"name": f"token-{n}", "username": username} for n, username in enumerate(texts)
    ]
    values["config"]["tokens"][0]["publish"] = [
        {"to": "vault", "mount": "secret", "path": "aca/x", "fields": dict.fromkeys([*keys, *HARD], "access_token")}
    ]

    text = yaml.dump(values, Dumper=Quoted, allow_unicode=False, width=10**6)
    told = tomllib.loads(written(template("4", CHART, "aca-tokend", ("-f", "-"), text)))

    assert [token["username"] for token in told["tokens"]] == texts
    assert told["tokens"][0]["publish"][0]["fields"].keys() == {*keys, *HARD}
