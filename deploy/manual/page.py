"""Writes the commands into docs/cli.md, below what stands there by hand. `make manual` calls it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from commands import commands, root_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from commands import Command, Option

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
MARKER = "<!-- what follows is written by make manual -->\n"
# which page tells more of a command
MORE = {
    "run": "[How it works](how-it-works.md); [signals and reloads](reload.md).",
    "check": "[Configuration](configuration.md).",
    "status": "[Status](status.md).",
    "resume": "[What resumes](guard.md#what-resumes).",
    "doctor": "[The doctor](doctor.md).",
    "policy": "[The Vault policy](vault-policy.md).",
    "schema": "[Configuration](configuration.md).",
    "demo": "It needs what `pip install 'aca-tokend[demo]'` brings.",
}


def text() -> str:
    """The whole page as it should be."""
    by_hand, marker, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
    options = "\n".join(["## Before a command", "", *_table(root_options())])
    return by_hand + marker + "\n" + "\n\n".join([options, *map(_section, commands())]) + "\n"


def _section(command: Command) -> str:
    codes = [f"| {code} | {meaning} |" for code, meaning in command.exit_codes.items()]
    parts = [
        [f"## {command.name}", "", f"{command.help} {MORE.get(command.name, '')}".rstrip()],
        [f"`{command.usage}`"],
        _table(command.parameters),
        ["| exit code | meaning |", "|---|---|", *codes],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _table(options: Iterable[Option]) -> list[str]:
    rows = [f"| {_name(option)} | {option.meaning} |" for option in options]
    return ["| option | meaning |", "|---|---|", *rows] if rows else []


def _name(option: Option) -> str:
    return f"`{' '.join([*option.names[:1], *([option.value] if option.value else [])])}`"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
