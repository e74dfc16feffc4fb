"""The command line as data, read out of the program: what `docs/cli.md` and the man page are written from.

What the program cannot tell by itself stands here: what the exit codes of each command mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer

from aca_tokend.cli import app

PROGRAM = "aca-tokend"

WRONG = "the configuration or the call is wrong"
EXIT_CODES: dict[str, dict[int, str]] = {
    "run": {
        0: "stopped by SIGTERM or SIGINT; with `--once`: each place of each token holds what the daemon holds",
        1: "ended by a bug or by a second signal; with `--once`: a place, or a hook, failed",
        2: f"{WRONG}, or the admin listener cannot listen",
    },
    "check": {0: "the configuration is right", 2: WRONG},
    "status": {
        0: "nobody is needed",
        1: "something needs a person; with NAME, that token does",
        2: "the call is wrong, or nobody answers: nothing is known",
    },
    "resume": {
        0: "the records are clear",
        1: "a record could not be cleared",
        2: f"{WRONG}, or there is no such token",
    },
    "simulate": {
        0: "no reader would be refused",
        1: "some would, in this phase of their tokens' lives or had it begun in another",
        2: WRONG,
    },
    "doctor": {0: "nothing failed; a warning is no failure", 1: "something failed", 2: WRONG},
    "policy": {0: "printed", 2: f"{WRONG}, or it has no such Vault or token"},
    "schema": {0: "printed", 2: "the call is wrong"},
    "demo": {0: "no reader was refused", 1: "one was, or something is missing or failed", 2: "the call is wrong"},
}


@dataclass(frozen=True, slots=True)
class Option:
    """An option or an argument. `names` is empty for an argument, `value` for an option that takes none."""

    names: tuple[str, ...]
    value: str
    help: str
    default: str = ""
    variable: str = ""
    required: bool = False
    repeatable: bool = False

    @property
    def meaning(self) -> str:
        """Its help, and what is needed or taken where it is left out."""
        told = [
            self.help,
            "Required." if self.required else "",
            "May be repeated." if self.repeatable else "",
            f"Else the variable `{self.variable}`, else `{self.default}`." if self.variable else "",
            f"Default: `{self.default}`." if self.default and not self.variable else "",
        ]
        return " ".join(part for part in told if part)


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, its help, how it is called, what it takes, and its exit codes."""

    name: str
    help: str
    usage: str
    parameters: tuple[Option, ...]
    exit_codes: dict[int, str]


def commands() -> list[Command]:
    """Every command, in the order of `--help`."""
    group: Any = typer.main.get_command(app)  # the types of typer's own click are private
    return [_command(name, command) for name, command in group.commands.items()]


def root_options() -> list[Option]:
    """The options before a command."""
    group: Any = typer.main.get_command(app)
    return [_option(parameter) for parameter in group.params]


def about() -> str:
    """What the program says of itself."""
    group: Any = typer.main.get_command(app)
    return str(group.help)


def _command(name: str, command: Any) -> Command:  # noqa: ANN401  # see above
    parameters = tuple(_option(parameter) for parameter in command.params)
    arguments = [each.value for each in parameters if not each.names]
    required = [f"{each.names[0]} {each.value}" for each in parameters if each.names and each.required]
    optional = ["[OPTIONS]"] if any(each.names and not each.required for each in parameters) else []
    usage = " ".join([PROGRAM, name, *required, *optional, *arguments])
    return Command(name, str(command.help), usage, parameters, EXIT_CODES[name])


def _option(parameter: Any) -> Option:  # noqa: ANN401  # see above
    named = parameter.param_type_name == "option"
    flag = named and parameter.is_flag
    return Option(
        names=tuple(parameter.opts) if named else (),
        value="" if flag else (parameter.metavar or "NUMBER"),
        help=str(parameter.help),
        default="" if flag or parameter.default in (None, "") else str(parameter.default),
        variable=str(parameter.envvar or ""),
        required=bool(parameter.required) and named,
        repeatable=named and bool(parameter.multiple),
    )
