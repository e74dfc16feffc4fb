"""The reference of the command line is what the program takes."""

from __future__ import annotations

import page
import pytest
from commands import EXIT_CODES, PROGRAM, WRONG, commands, root_options
from typer.testing import CliRunner

from aca_tokend.cli import app

COMMANDS = {command.name: command for command in commands()}


def test_page() -> None:
    """docs/cli.md is what `make manual` writes."""
    assert page.PAGE.read_text(encoding="utf-8") == page.text()


def test_exit_codes_of_every_command() -> None:
    """Each command says what its exit codes mean, and 0 and 2 are among them."""
    assert list(EXIT_CODES) == list(COMMANDS)
    assert all({0, 2} <= set(codes) <= {0, 1, 2} for codes in EXIT_CODES.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str) -> None:
    """The help of a command names every option of the page, and an unknown one ends with the code that is told."""
    command = COMMANDS[name]
    told = CliRunner().invoke(app, [name, "--help"], terminal_width=200).output
    assert all(name in told for option in command.parameters for name in option.names)
    assert command.usage.startswith(f"{PROGRAM} {name}")
    assert CliRunner().invoke(app, [name, "--no-such-option"]).exit_code == 2
    assert WRONG in EXIT_CODES[name][2] or "the call is wrong" in EXIT_CODES[name][2]


def test_before_a_command() -> None:
    """Only the version can be asked for without a command."""
    assert [option.names for option in root_options()] == [("--version",)]
