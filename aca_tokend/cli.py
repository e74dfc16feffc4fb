"""The command line. Each command loads what it needs when it runs, so that `--help` answers at once.

Exit codes: 0 well, 1 something is not as it should be, 2 the configuration or the call is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from aca_tokend.core.config import Config

app = typer.Typer(
    name="aca-tokend",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print local variables, passwords among them
)

ConfigOption = Annotated[
    Path,
    typer.Option("--config", envvar="ACA_TOKEND_CONFIG", metavar="FILE", help="The configuration file."),
]
LogFormatOption = Annotated[
    str | None, typer.Option("--log-format", metavar="FORMAT", help="auto, json or console; else as configured.")
]
DEFAULT_CONFIG = Path("/etc/aca-tokend/config.toml")
EXIT_WRONG = 2


def _show_version(asked: bool) -> None:
    if asked:
        from aca_tokend import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keeps OAuth2 access tokens for ACAEngine (PlaceOS) fresh in Vault or a file."""


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Rotate what is due, publish, and exit.")] = False,
) -> None:
    """Keep every configured token fresh until stopped."""
    loaded = _load(config)
    _log(loaded, log_format)
    from aca_tokend import daemon
    from aca_tokend.core.errors import TokendError

    try:
        code = daemon.run_once(loaded) if once else daemon.run(loaded)
    except TokendError as error:
        _refuse(error.message)
    sys.exit(code)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, log_format: LogFormatOption = None) -> None:
    """Check the configuration without connecting to anything."""
    del log_format
    loaded = _load(config)
    count = len(loaded.tokens)
    typer.echo(f"{config}: well, {count} token{'s' * (count != 1)}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    import json

    from aca_tokend.core.config import schema as config_schema

    typer.echo(json.dumps(config_schema(), indent=2))


@app.command()
def demo(
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="End by itself after, for instance, 30s.")
    ] = None,
) -> None:
    """Show the whole job on real parts: a look-alike of ACAEngine, OpenBao, the daemon and a reader."""
    from aca_tokend.core.durations import parse_duration

    seconds = None
    if duration is not None:
        try:
            seconds = parse_duration(duration)
        except ValueError as error:
            _refuse(f"--for: {duration!r} {error}; write for instance 30s or 2m")
        if not seconds:
            _refuse(f"--for: {duration!r} is no time at all; write for instance 30s or 2m")
    from aca_tokend.demo.show import show

    sys.exit(show(seconds))


def _load(path: Path) -> Config:
    from aca_tokend.config_files import load
    from aca_tokend.core.errors import ConfigError

    try:
        return load(path)
    except ConfigError as error:
        _refuse(error.message)


def _log(config: Config, log_format: str | None) -> None:
    from aca_tokend import log

    formats = ("auto", "json", "console")
    if log_format is not None and log_format not in formats:
        _refuse(f"--log-format: {log_format!r} is none of {', '.join(formats)}")
    log.configure(config.log.level, log_format or config.log.format)


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(EXIT_WRONG)


def main() -> None:
    """The console script."""
    app()
