"""`parse`: what a file means, and that every problem of it is told at once without telling a secret."""

from __future__ import annotations

import re
import tomllib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.config.files import load
from aca_tokend.core.config import (
    AppRoleAuth,
    Config,
    EnvReference,
    FilePublish,
    FileReference,
    RotationConfig,
    TokenAuth,
    TokenConfig,
    VaultPublish,
    VaultReference,
    VerifyConfig,
    parse,
)
from aca_tokend.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

BAD = Path(__file__).parent / "bad_config"
CANARY = "canary-Tr0ub4dor"
EXPECT = re.compile(r"^# expect: (.*)$", re.MULTILINE)

GOOD = """
[acaengine.main]
url = "https://aca.example.com/"

[vault.main]
address = "https://vault.example.com:8200"
auth = { method = "token", token = { file = "/run/secrets/vault-token" } }

[[tokens]]
name = "bookings"
authority = "authority-1"
username = "svc-bookings"
password = { env = "PASSWORD" }
client_id = "client-1"
client_secret = { vault = "secret/aca/bookings#client_secret" }

[[tokens.publish]]
to = "vault"
mount = "secret"
path = "aca/bookings"
"""


def document(text: str = GOOD, **sections: object) -> dict[str, Any]:
    """The good document with sections replaced."""
    return {**tomllib.loads(text), **sections}


def read(text: str = GOOD, **sections: object) -> Config:
    """The configuration of the good document with sections replaced."""
    return parse([("config.toml", document(text, **sections))])


def shown(error: BaseException) -> str:
    """Everything that could be printed or logged of an error."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])


def bad_files() -> Iterable[Path]:
    """The main file of each bad configuration."""
    return sorted([*BAD.glob("*.toml"), *BAD.glob("*/main.toml")])


@pytest.mark.parametrize("path", bad_files(), ids=lambda path: str(path.relative_to(BAD).with_suffix("")))
def test_bad_file(path: Path) -> None:
    """A bad file is refused with exactly the problems that it says itself, and the canary is nowhere to be seen."""
    files = [path] if path.parent == BAD else [path, *sorted(set(path.parent.rglob("*.toml")) - {path})]
    expected = [f"{file}: {line}" for file in files for line in EXPECT.findall(file.read_text(encoding="utf-8"))]
    with pytest.raises(ConfigError) as caught:
        load(path)
    here = f"{path.parent}/"
    assert [str(problem).replace(here, "") for problem in caught.value.problems] == [
        line.replace(here, "") for line in expected
    ]
    assert caught.value.message.splitlines() == [str(problem) for problem in caught.value.problems]
    assert CANARY not in shown(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_there_are_bad_files() -> None:
    """The table of bad files is not lost, and the canary is in it."""
    assert len(list(bad_files())) >= 100
    assert sum(CANARY in path.read_text(encoding="utf-8") for path in BAD.rglob("*.toml")) >= 10


def leaves(value: object, way: tuple[str | int, ...] = ()) -> Iterable[tuple[str | int, ...]]:
    """The ways to all values in a document that are neither tables nor arrays."""
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield way
    for part, inner in items:
        yield from leaves(inner, (*way, part))


EXAMPLE = (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("way", list(leaves(tomllib.loads(EXAMPLE))), ids=lambda way: ".".join(map(str, way)))
@pytest.mark.parametrize("wrong", [CANARY, f"{CANARY} \n", [CANARY], {"env": f"{CANARY}!"}, {"file": CANARY}], ids=repr)
def test_no_value_is_repeated(way: tuple[str | int, ...], wrong: object) -> None:
    """A secret written in place of any value of the example is not shown, whatever is said of it."""
    if way[-1] == "name" and wrong == CANARY:
        wrong = f"{CANARY}\n"  # what looks like a name of a token is shown as one
    data = tomllib.loads(EXAMPLE)
    place: Any = data
    for part in way[:-1]:
        place = place[part]
    place[way[-1]] = wrong
    try:
        parse([("config.toml", data)])
    except ConfigError as error:
        assert CANARY not in shown(error)  # noqa: PT017 - some of these values are good ones


def test_least_configuration() -> None:
    """What may be left out has its default, and names that are clear are filled in."""
    config = read()
    assert config.acaengine["main"].url == "https://aca.example.com"
    assert config.acaengine["main"].timeout == 10.0
    assert config.vault["main"].timeout == 5.0
    assert config.vault["main"].auth == TokenAuth(token=FileReference(file="/run/secrets/vault-token"))
    assert config.tokens == (
        TokenConfig(
            name="bookings",
            acaengine="main",
            authority="authority-1",
            username="svc-bookings",
            password=EnvReference(env="PASSWORD"),
            client_id="client-1",
            client_secret=VaultReference(vault="secret/aca/bookings#client_secret"),
            rotation=RotationConfig(),
            publish=(VaultPublish(vault_name="main", mount="secret", path="aca/bookings"),),
        ),
    )


def test_everything_given() -> None:
    """What is given is taken, durations as seconds and the mode as a number."""
    text = GOOD.replace(
        'username = "svc-bookings"', 'username = { file = "/run/secrets/user" }\nscope = "public admin"'
    )
    text += """
[[tokens.publish]]
to = "file"
path = "/run/aca/bookings.json"
mode = "0600"
owner = "aca"
group = "1000"
replace_foreign = true

[tokens.verify]
path = "/api/engine/v2/users/current"
"""
    config = read(
        text,
        rotation={"retry_rejected": "0s", "min_interval": "500ms", "jitter": 0},
        vault={
            "prod": {
                "address": "http://[::1]:8200",
                "timeout": "1m1s",
                "auth": {"method": "approle", "role_id": {"env": "ROLE"}, "secret_id": {"env": "SECRET_ID"}},
            },
            "main": {
                "address": "http://10.0.0.1",
                "allow_plain_http": True,
                "auth": {"method": "token", "token": {"env": "T"}},
            },
        },
    )
    (token,) = config.tokens
    assert config.vault["prod"].timeout == 61.0
    assert config.vault["prod"].auth == AppRoleAuth(
        role_id=EnvReference(env="ROLE"), secret_id=EnvReference(env="SECRET_ID")
    )
    assert token.username == FileReference(file="/run/secrets/user")
    assert token.rotation == RotationConfig(retry_rejected=0.0, min_interval=0.5, jitter=0.0)
    assert token.verify == VerifyConfig(path="/api/engine/v2/users/current")
    assert token.publish[1] == FilePublish(
        path="/run/aca/bookings.json", mode=0o600, owner="aca", group="1000", replace_foreign=True
    )


def test_rotation_is_merged() -> None:
    """A token's own rotation keys go over those of [rotation], inside backoff too, and the others stay."""
    data = document(rotation={"fraction": 0.5, "backoff": {"initial": "2s", "cap": "10s"}})
    data["tokens"][0]["rotation"] = {"max_rejections": 1, "backoff": {"cap": "20s"}}
    rotation = parse([("config.toml", data)]).tokens[0].rotation
    assert (rotation.fraction, rotation.max_rejections) == (0.5, 1)
    assert (rotation.backoff.initial, rotation.backoff.cap) == (2.0, 20.0)


def test_the_only_vault_is_meant() -> None:
    """A sink that names no Vault goes to the only one, whatever its name."""
    vault = document()["vault"]["main"]
    text = GOOD.replace('"secret/aca/bookings#client_secret"', '"secret/x#y", vault_name = "prod"')
    (sink,) = read(text, vault={"prod": vault}).tokens[0].publish
    assert isinstance(sink, VaultPublish)
    assert sink.vault_name == "prod"


def test_main_vault_is_meant() -> None:
    """A sink that names no Vault goes to the one named main where there are several."""
    vault = document()["vault"]["main"]
    (sink,) = read(vault={"prod": vault, "main": vault}).tokens[0].publish
    assert isinstance(sink, VaultPublish)
    assert sink.vault_name == "main"


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "127.8.9.1", "[::1]:3000", "localhost", "LOCALHOST:3000"])
def test_plain_http_on_loopback(host: str) -> None:
    """http:// is accepted where it does not leave the machine."""
    assert read(acaengine={"main": {"url": f"http://{host}"}}).acaengine["main"].url == f"http://{host}"


@pytest.mark.parametrize("listen", ["", "127.0.0.1:0", "[::]:9464", "0.0.0.0:9464", "localhost:65535"])
def test_listen(listen: str) -> None:
    """The pages may be anywhere, or nowhere."""
    assert read(admin={"listen": listen}).admin.listen == listen


def test_tls() -> None:
    """A certificate with its key, and with CAs of clients, is accepted."""
    files = {"tls_cert": "/tls/cert.pem", "tls_key": "/tls/key.pem", "tls_client_ca": "/tls/ca.pem"}
    assert read(admin=files).admin.model_dump(include=set(files)) == files


def test_same_path_in_another_vault() -> None:
    """The same mount and path in two Vaults, or in two namespaces of one, are two places."""
    vault = document()["vault"]["main"]
    vaults = {
        "main": vault,
        "north": {**vault, "address": "https://north.example.com"},
        "team": {**vault, "namespace": "team"},
    }
    sinks = [{"to": "vault", "mount": "secret", "path": "aca/bookings", "vault_name": name} for name in vaults]
    data = document(vault=vaults)
    data["tokens"][0]["publish"] = sinks
    assert len(parse([("config.toml", data)]).tokens[0].publish) == 3


def test_references_are_shown_by_their_place() -> None:
    """A reference says where its value is, which is no secret."""
    references = (EnvReference(env="NAME"), FileReference(file="/a/b"), VaultReference(vault="kv/a/b#c"))
    assert [str(reference) for reference in references] == ["env NAME", "file /a/b", "vault kv/a/b#c"]
    assert (references[2].mount, references[2].path, references[2].field) == ("kv", "a/b", "c")


def test_frozen() -> None:
    """A configuration that was read never changes."""
    config = read()
    with pytest.raises(ValueError, match="frozen"):
        config.log.level = "debug"


def test_thousands_of_tokens() -> None:
    """Ten thousand tokens are read, each compared with all others, and a clash among them is found."""
    (one,) = document()["tokens"]
    tokens = [{**one, "name": f"t{n}", "publish": [{**one["publish"][0], "path": f"aca/{n}"}]} for n in range(10_000)]
    assert len(read(tokens=tokens).tokens) == 10_000
    tokens[9_999]["publish"][0]["path"] = "aca/0"
    with pytest.raises(ConfigError) as caught:
        read(tokens=tokens)
    assert [problem.path for problem in caught.value.problems] == ['tokens[9999] "t9999".publish[0]']
