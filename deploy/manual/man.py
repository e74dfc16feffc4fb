"""Writes the man page, deploy/man/aca-tokend.1, out of the commands and what stands here. `make manual` calls it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from commands import PROGRAM, about, commands, root_options

from aca_tokend import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from commands import Command, Option

PAGE = Path(__file__).parents[1] / "man" / f"{PROGRAM}.1"

DESCRIPTION = """\
For each configured account *aca-tokend* asks ACAEngine for a new access token before the current one expires, and
publishes it where applications read it: a KV secret in HashiCorp Vault or OpenBao, or a file. Applications never see
the password.

`run` goes on until it is stopped; a service manager starts it. All other commands end by themselves. `check`, `policy`,
`schema` and `simulate` connect to nothing.
"""
FILES = {
    "/etc/aca-tokend/config.toml": "The configuration, unless `--config` or `ACA_TOKEND_CONFIG` names another.",
    "/etc/aca-tokend/secrets/": (
        "Secrets that the unit hands to the service by `LoadCredential=`. A reference to one is "
        '`{ file = "$CREDENTIALS_DIRECTORY/secret_FILE" }`.'
    ),
    "/run/aca-tokend/": "Where the unit lets the service publish files.",
}
ENVIRONMENT = {
    "ACA_TOKEND_CONFIG": "The configuration file, where `--config` is not given.",
    "CREDENTIALS_DIRECTORY": "Where references to credentials are looked for; systemd sets it.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": "How `run` tells systemd that it is ready and lives.",
    "NO_COLOR": "No colours on a terminal.",
}
SIGNALS = {
    "SIGTERM, SIGINT": (
        "Nothing new starts, rotations under way finish, and `run` ends with 0 within 15 seconds. "
        "A second signal ends it at once, with 1."
    ),
    "SIGHUP": (
        "The configuration is read again, and a log-in to Vault that was refused is tried again. "
        "A wrong configuration changes nothing and is told."
    ),
}
EXAMPLES = {
    "aca-tokend doctor --grant": "Try all that the configuration needs, and a grant for each account.",
    "aca-tokend policy | bao policy write aca-tokend -": "Give the daemon the least policy that it needs.",
    "aca-tokend simulate --outage 3h": "What an outage of three hours in the night would do to readers.",
    "aca-tokend status bookings": "How one token is, and what to do.",
}


def text() -> str:
    """The whole page as it should be."""
    lines = [
        '.\\" Written by make manual.',
        f'.TH {_plain(PROGRAM).upper()} 1 "" "{PROGRAM} {__version__}" "User commands"',
        *_section("NAME", [f"{_plain(PROGRAM)} \\- keeps OAuth2 access tokens for ACAEngine fresh"]),
        *_section("SYNOPSIS", [f".B {_plain(PROGRAM)}", r"\fICOMMAND\fR [\fIOPTIONS\fR]"]),
        *_section("DESCRIPTION", [_roff(about()), *_paragraphs(DESCRIPTION)]),
        *_section("COMMANDS", [line for command in commands() for line in _command(command)]),
        *_section("OPTIONS BEFORE A COMMAND", [line for option in root_options() for line in _option(option)]),
        *_section("EXIT STATUS", _exit_status()),
        *_section("FILES", _list(FILES, "I")),
        *_section("ENVIRONMENT", _list(ENVIRONMENT)),
        *_section("SIGNALS", _list(SIGNALS)),
        *_section("EXAMPLES", _list(EXAMPLES)),
        *_section("SEE ALSO", [".BR systemctl (1),", ".BR systemd.exec (5),", ".BR systemd\\-creds (1)"]),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f'.SH "{title}"'
    yield from lines


def _paragraphs(prose: str) -> Iterator[str]:
    for paragraph in prose.split("\n\n"):
        yield ".PP"
        yield _roff(" ".join(paragraph.split()))


def _command(command: Command) -> Iterator[str]:
    yield f".SS {_plain(command.usage.removeprefix(PROGRAM).strip())}"
    yield _roff(command.help)
    for option in command.parameters:
        yield from _option(option)


def _option(option: Option) -> Iterator[str]:
    names = ", ".join(f"\\fB{_plain(name)}\\fR" for name in option.names)
    value = f"\\fI{_plain(option.value.strip('[]'))}\\fR" if option.value else ""
    yield ".TP"
    yield " ".join(part for part in (names, value) if part)
    yield _roff(option.meaning)


def _exit_status() -> Iterator[str]:
    yield "0: well. 1: something is not as it should be. 2: the configuration or the call is wrong."
    for command in commands():
        yield ".TP"
        yield f"\\fB{_plain(command.name)}\\fR"
        codes = [f"\\fB{code}\\fR {_roff(meaning)}" for code, meaning in command.exit_codes.items()]
        yield "\n.br\n".join(codes)


def _list(entries: dict[str, str], font: str = "B") -> list[str]:
    return [line for name, what in entries.items() for line in (".TP", f"\\f{font}{_plain(name)}\\fR", _roff(what))]


def _roff(prose: str) -> str:
    """A paragraph, in which `code` and *names* are bold; each sentence on a line of its own."""
    marked = re.sub(r"`([^`]+)`|\*([^*]+)\*", lambda found: f"\\fB{found[1] or found[2]}\\fR", _plain(prose))
    return re.sub(r"(?<=[a-z0-9R)])([.:;]) (?=[A-Z\\`])", r"\1\n", marked)


def _plain(text: str) -> str:
    """Text in which nothing is taken for a command of roff, and a hyphen stays one when it is copied."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text(), encoding="utf-8")
