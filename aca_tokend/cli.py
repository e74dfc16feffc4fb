"""The command line. Each command loads what it needs when it runs, so that `--help` answers at once.

Exit codes: 0 well, 1 something is not as it should be, 2 the configuration or the call is wrong.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_tokend.core.config import Config, TokenConfig

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


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    """Has the libraries that are loaded meanwhile believe that these modules are not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import fails
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


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
    from aca_tokend.core.errors import TokendError

    # structlog and httpx load them for terminals wherever they are installed: 6 MB of what runs for months
    with _without("rich", "httpx._main"):
        _log(loaded, log_format)
        from aca_tokend import service
    try:
        code = service.run_once(loaded) if once else service.run(loaded, config)
    except TokendError as error:
        _refuse(error.message)
    sys.exit(code)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, log_format: LogFormatOption = None) -> None:
    """Check the configuration without connecting to anything."""
    del log_format
    loaded = _load(config)
    count = len(loaded.tokens)
    shards = ""
    if loaded.shard is not None:
        from aca_tokend.core.shards import shard_of

        held = [0] * loaded.shard.count
        for token in loaded.tokens:
            held[shard_of(token.name, loaded.shard.count)] += 1
        shards = f" in {loaded.shard.count} shard{'s' * (loaded.shard.count != 1)} of {min(held)} to {max(held)}"
    typer.echo(f"{config}: well, {count} token{'s' * (count != 1)}{shards}")


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All of this token alone.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = None,
    *,
    watching: Annotated[bool, typer.Option("--watch", help="Ask again every 2 seconds until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the daemon answers.")] = False,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="The daemon's admin listener; else as configured.")
    ] = None,
    cert: Annotated[
        str, typer.Option("--cert", metavar="FILE", help="A client certificate (PEM), where the listener wants one.")
    ] = "",
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="Its key (PEM), where that is another file.")] = "",
) -> None:
    """Ask the running daemon how its tokens are; exits 1 if something needs a person."""
    del log_format
    if watching and (as_json or not sys.stdout.isatty()):
        _refuse("--watch: needs a terminal, and goes without --json; leave --watch out and call again")
    if key and not cert:
        _refuse("--key: is of no use without --cert; add --cert")
    from aca_tokend import terminal

    try:
        address = terminal.address(None if url else _load(config).admin, url or "", (cert, key))
        sys.exit(terminal.watch(address, name) if watching else terminal.show(address, name, as_json=as_json))
    except terminal.AskError as error:
        _refuse(terminal.plain(error.message))


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token that is suspended.")],
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = None,
) -> None:
    """Let a suspended token try again, and all others of its account, after the server's side was fixed."""
    loaded = _load(config)
    _log(loaded, log_format)
    from aca_tokend.resume import resume as clear

    cleared, problems = clear(loaded, _named(loaded, name))
    for line in cleared:
        typer.echo(line)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        sys.exit(1)
    typer.echo(f"{name}: a running daemon goes on with it within a minute")


@app.command()
def simulate(
    outage: Annotated[str, typer.Option("--outage", metavar="DURATION", help="How long the endpoint is out.")],
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = None,
    *,
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", metavar="NAME", help="The one that is out; all if left out.")
    ] = None,
    at: Annotated[
        str, typer.Option("--at", metavar="HH:MM", help="When the outage begins, on the first day.")
    ] = "02:00",
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long to simulate.")] = "1d",
    lifetime: Annotated[str, typer.Option("--lifetime", metavar="DURATION", help="How long tokens live.")] = "2h",
    replicas: Annotated[int, typer.Option("--replicas", min=1, max=100, help="How many daemons run.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Another course of events.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what an outage would do to the readers of this configuration, on a virtual clock."""
    loaded = _load(config)
    _log(loaded, log_format)
    from aca_tokend.simulation.run import Options, main

    names = tuple(endpoint or loaded.acaengine)
    unknown = [name for name in names if name not in loaded.acaengine]
    if unknown:
        _refuse(f"--endpoint: there is no [acaengine.{unknown[0]}]; there is {', '.join(loaded.acaengine)}")
    options = Options(
        outage=_duration("--outage", outage),
        endpoints=names,
        at=_time_of_day(at),
        duration=_duration("--for", duration),
        lifetime=_duration("--lifetime", lifetime),
        replicas=replicas,
        seed=seed,
        json=as_json,
    )
    sys.exit(main(loaded, options))


@app.command()
def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = None,
    *,
    grant: Annotated[
        bool, typer.Option("--grant", help="Also ask for a token for each account once, within the lockout guard.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Try everything that the configuration needs, and say how to mend what fails."""
    from aca_tokend.clock import SystemClock

    began = SystemClock().monotonic()
    loaded = _load(config)
    _log(loaded, log_format, "error")
    from aca_tokend.doctor import main as examine

    sys.exit(examine(loaded, began, grant=grant, as_json=as_json))


@app.command()
def policy(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = None,
    *,
    reader: Annotated[
        str | None, typer.Option("--reader", metavar="NAME", help="For a reader of this token, not the daemon.")
    ] = None,
    vault: Annotated[str | None, typer.Option("--vault", metavar="NAME", help="For this [vault.NAME] alone.")] = None,
) -> None:
    """Print the least Vault policy for this configuration."""
    del log_format
    loaded = _load(config)
    from aca_tokend.core.errors import TokendError
    from aca_tokend.core.vault_policy import policies

    try:
        of = None if reader is None else _named(loaded, reader, "--reader: ")
        typer.echo("\n".join(policies(loaded, vault, of)), nl=False)
    except TokendError as error:
        _refuse(error.message)


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
    seconds = None if duration is None else _duration("--for", duration)
    from aca_tokend.demo.show import show

    sys.exit(show(seconds))


def _duration(option: str, text: str) -> float:
    from aca_tokend.core.durations import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        _refuse(f"{option}: {text!r} {error}; write for instance 30s or 2m")
    if not seconds:
        _refuse(f"{option}: {text!r} is no time at all; write for instance 30s or 2m")
    return seconds


def _time_of_day(text: str) -> float:
    import re

    match = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text)
    if match is None:
        _refuse(f'--at: {text!r} is not a time of day; write for instance "02:00"')
    return int(match[1]) * 3600.0 + int(match[2]) * 60.0


def _load(path: Path) -> Config:
    from aca_tokend.config.files import load
    from aca_tokend.core.errors import ConfigError

    try:
        return load(path)
    except ConfigError as error:
        _refuse(error.message)


def _named(config: Config, name: str, option: str = "") -> TokenConfig:
    import difflib

    token = next((token for token in config.tokens if token.name == name), None)
    if token is None:
        near = difflib.get_close_matches(name, [token.name for token in config.tokens], 1)
        hint = f"did you mean {near[0]}?" if near else "`aca-tokend check` tells how many tokens there are"
        _refuse(f"{option}there is no token {name!r} in this configuration; {hint}")
    return token


def _log(config: Config, log_format: str | None, level: str | None = None) -> None:
    from aca_tokend import log

    formats = ("auto", "json", "console")
    if log_format is not None and log_format not in formats:
        _refuse(f"--log-format: {log_format!r} is none of {', '.join(formats)}")
    log.configure(level or config.log.level, log_format or config.log.format)


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(EXIT_WRONG)


def main() -> None:
    """The command that was called. It speaks UTF-8 whatever the locale: pictures and names would else end it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where there is no such descriptor
            stream.reconfigure(encoding="utf-8")
    app()
