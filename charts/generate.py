"""Writes what the chart holds of other files.

The README and the descriptions in the schema come from the comments of values.yaml, the schema of the configuration
from our own, alerts and dashboard from deploy/, since no chart can hold files from outside. `make chart` calls it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from config_schema import definitions

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARTS = Path(__file__).parent
CHART = CHARTS / "aca-tokend"
DEPLOY = CHARTS.parent / "deploy"
COPIES = {
    CHART / "files/aca-tokend.rules.yaml": DEPLOY / "prometheus/aca-tokend.rules.yaml",
    CHART / "files/aca-tokend.json": DEPLOY / "grafana/aca-tokend.json",
}

HEAD = """# The chart aca-tokend

Version {version}, for Helm 3.17 or newer and Kubernetes 1.29 or newer. [Kubernetes in ten
minutes](../../docs/kubernetes.md) goes from an empty namespace to a rotating token, [the chart in
use](../../docs/helm.md) tells of upgrades, shards, monitoring, the network policy and sizes.

`make chart` makes this page of the comments in [values.yaml](values.yaml). What is wrong is refused before anything is
installed, by [values.schema.json](values.schema.json) or by the templates, with its place and how to mend it.
"""


@dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml with the comment above it."""

    section: str
    path: tuple[str, ...]
    told: str
    default: Any


def generated() -> dict[Path, str]:
    """Each file that is made, and what it must hold."""
    values = list(read((CHART / "values.yaml").read_text(encoding="utf-8")))
    made = {copy: source.read_text(encoding="utf-8") for copy, source in COPIES.items()}
    made[CHART / "README.md"] = readme(values)
    made[CHART / "values.schema.json"] = schema(values)
    return made


def read(text: str) -> Iterator[Value]:
    """The values with a comment above them, in the order of the file. Raises ValueError where a value has none."""
    lines = text.splitlines()
    root = yaml.compose(text)
    section = ""
    defaults = yaml.safe_load(text)
    told_of: set[tuple[str, ...]] = set()
    for line, path in _keys(root, ()):
        above = line
        while above and lines[above - 1].lstrip().startswith("# "):
            above -= 1
        told = " ".join(row.strip().removeprefix("# ") for row in lines[above:line])
        section = next((row.removeprefix("## ") for row in reversed(lines[:line]) if row.startswith("## ")), section)
        default = defaults
        for key in path:
            default = default[key]
        if told:
            told_of.add(path)
            yield Value(section, path, told, default)
        elif not (_is_table(default) or told_of & {path[:depth] for depth in range(len(path))}):
            message = f"values.yaml: {'.'.join(path)} has no comment"
            raise ValueError(message)


def _is_table(value: object) -> bool:
    """Whether it is only there for what is in it."""
    return isinstance(value, dict) and bool(value)


def _keys(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each key below a node, with the number of its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.start_mark.line, (*path, key.value)
            yield from _keys(value, (*path, key.value))


def readme(values: list[Value]) -> str:
    """The page about the chart."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]
    parts = [HEAD.format(version=version)]
    section = ""
    for value in values:
        if value.section != section:
            section = value.section
            parts.append(f"\n## {section}\n\n| value | type | default | meaning |\n|---|---|---|---|\n")
        default = json.dumps(value.default, ensure_ascii=False)
        shown = default if len(default) <= 80 else "[its own](values.yaml)"  # noqa: PLR2004 -- what a table has room for
        shown = f"`{shown}`" if shown == default else shown
        parts.append(f"| `{'.'.join(value.path)}` | {_kind(value.default)} | {shown} | {value.told} |\n")
    return "".join(parts)


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "`true` or `false`", int: "number", list: "list", dict: "table"}
    return kinds[type(value)]


def schema(values: list[Value]) -> str:
    """values.schema.json: what is written there by hand, with all that is known from elsewhere."""
    document = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    document["definitions"] = definitions()
    for value in values:
        rule = document
        for key in value.path:
            rule = rule["properties"][key]
        rule["description"] = value.told
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
