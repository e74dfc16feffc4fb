"""A secret that was pasted where it does not belong: whatever is said of the configuration does not repeat it."""

from __future__ import annotations

import copy
import json
import tomllib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import parse
from aca_tokend.core.errors import ConfigError
from tests.unit.test_cli import call

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLE: Mapping[str, Any] = tomllib.loads((Path(__file__).parents[2] / "config.example.toml").read_text())
CANARY = "Canary0Tr0ub4dor"
# What a token is called is shown wherever something is said of it.
NAMES = {("tokens", 0, "name")}
# As somebody in a hurry may write it: in place of any value, also inside an address, a reference, an array or a table.
PASTED: tuple[object, ...] = (
    *(form.format(CANARY) for form in ("{}", "{} x", "{}\n", "-{}", "/{}", "//{}@x", "user:{}@host", "{{{{ {} ")),
    *(form.format(CANARY) for form in ("https://user:{}@aca.example.com", "https://{}@host", "https://{}:x@[::1]")),
    *(
        form.format(CANARY)
        for form in ("http://user:{}@127.0.0.1:1", "https://host/{}", "https://host?x={}", "https://h:{}")
    ),
    *({"env": CANARY + tail} for tail in ("-x", " x")),
    {"file": CANARY},
    *({"vault": form.format(CANARY)} for form in ("{}", "{}/", "secret/data/{}#x", "secret/x#{}#")),
    {"vault": "secret/x#y", "vault_name": CANARY},
    {"secret": CANARY},
    {"env": CANARY, "file": CANARY},
    {"env": [CANARY]},
    [CANARY, 1],
    [[CANARY]],
    [{"to": CANARY}],
    {"method": CANARY},
    {"method": "token", "token": CANARY},
    {"format": CANARY},
)


def keys(table: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value of a document, tables and arrays among them."""
    if path:
        yield path
    inner = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for name, value in inner:
        yield from keys(value, (*path, name))


def pasted(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The example with another value at one place."""
    document: Any = copy.deepcopy(EXAMPLE)
    table = document
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = value
    return dict(document)


@pytest.mark.parametrize(
    "path", [path for path in keys(EXAMPLE) if path not in NAMES], ids=lambda path: ".".join(map(str, path))
)
def test_no_refusal_repeats_a_value(path: tuple[str | int, ...]) -> None:
    """In the place of any value of the whole example a secret is refused, if it is, by a message without it."""
    for value in PASTED:
        try:
            parse([("config.toml", pasted(path, value))])
        except ConfigError as error:
            shown = (error.message, repr(error), *traceback.format_exception(error))
            assert CANARY not in "".join(shown), f"{path} = {json.dumps(value)}"


@pytest.mark.parametrize(
    "path",
    [path for path in keys(EXAMPLE) if path[-1] in {"password", "client_secret", "token", "secret_id"}],
    ids=lambda path: ".".join(map(str, path)),
)
def test_every_literal_secret_is_refused(path: tuple[str | int, ...]) -> None:
    """No secret can be written into the configuration, so that it may lie in a ConfigMap or a repository."""
    if path[-2:] == ("files", "token"):
        return  # the name of a published file
    for value in (CANARY, f"{CANARY} x", [CANARY]):
        with pytest.raises(ConfigError, match="secret, which is never written here"):
            parse([("config.toml", pasted(path, value))])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", f'"{CANARY}"'),
        ("client_secret", f'"{CANARY}"'),
        ("client_secret", f"'{CANARY}"),
        ("client_secret", f'{{ value = "{CANARY}" }}'),
        ("scope", f'"{CANARY}\\n"'),
    ],
)
@pytest.mark.parametrize("command", [("check",), ("policy",), ("doctor",), ("run",), ("simulate", "--outage", "1h")])
def test_no_command_repeats_it(tmp_path: Path, command: tuple[str, ...], key: str, value: str) -> None:
    """Every command that reads the configuration refuses it, says which key it is, and shows nothing of the value."""
    config = tmp_path / "config.toml"
    known = {
        "name": '"bookings"',
        "authority": '"authority-1"',
        "username": '"svc"',
        "password": '{ env = "PASSWORD" }',
        "client_id": '"client-1"',
        "client_secret": '{ env = "CLIENT_SECRET" }',
        "publish": '[{ to = "file", path = "/run/aca/bookings.json" }]',
        key: value,
    }
    lines = "\n".join(f"{name} = {text}" for name, text in known.items())
    config.write_text(f'[acaengine.main]\nurl = "https://aca.example.com"\n[[tokens]]\n{lines}\n')

    result = call(*command, "--config", str(config))

    assert result.returncode == 2
    assert CANARY not in result.stdout + result.stderr
    assert f".{key}" in result.stderr or "is not valid TOML" in result.stderr
