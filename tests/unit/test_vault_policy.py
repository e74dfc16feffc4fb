"""The least Vault policy: what a configuration needs of each Vault, and how it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import parse
from aca_tokend.core.vault_policy import NoSuchPolicyError, Purpose, daemon_rules, policies

if TYPE_CHECKING:
    from aca_tokend.core.config import Config

CANARY = "canary-user-3f1d"


def token(name: str, *publish: dict[str, Any], **changes: object) -> dict[str, Any]:
    """A `[[tokens]]` entry, published where told."""
    return {
        "name": name,
        "authority": "authority-1",
        "username": CANARY,
        "password": {"env": "PASSWORD"},
        "client_id": "client-1",
        "client_secret": {"env": "CLIENT_SECRET"},
        "publish": list(publish),
        **changes,
    }


def vault(path: str, **changes: object) -> dict[str, Any]:
    """A place in Vault."""
    return {"to": "vault", "mount": "secret", "path": path, **changes}


FILE = {"to": "file", "path": "/run/aca/x.json"}


def config(*tokens: dict[str, Any], **vaults: dict[str, Any]) -> Config:
    """A configuration of these tokens, with a Vault named main and these others."""
    auth = {"method": "token", "token": {"env": "VAULT_TOKEN"}}
    tables = {"main": {}, **vaults}
    return parse(
        [
            (
                "config.toml",
                {
                    "acaengine": {"main": {"url": "https://aca.example.com"}},
                    "vault": {
                        name: {"address": f"https://{name}.example.com", "auth": auth, **table}
                        for name, table in tables.items()
                    },
                    "tokens": list(tokens),
                },
            )
        ]
    )


def needed(config: Config, name: str = "main") -> dict[str, str]:
    """What the daemon cannot do without, by path."""
    return {rule.path: " ".join(rule.capabilities) for rule in daemon_rules(config, name) if not rule.optional}


def test_a_token_in_vault() -> None:
    """A token needs its secret and its record, to be created, read and updated, and nothing else."""
    assert needed(config(token("bookings", vault("aca/bookings")))) == {
        "secret/data/aca/bookings": "create read update",
        "secret/data/aca/bookings.attempts": "create read update",
    }


def test_a_record_lies_beside_each_place() -> None:
    """A record is written beside each place of a token in Vault, also where its first place is a file."""
    found = needed(
        config(
            token("one", FILE, vault("one")),
            token("two", vault("two"), vault("copy")),
        )
    )
    places = {"secret/data/one", "secret/data/two", "secret/data/copy"}
    assert set(found) == places | {f"{place}.attempts" for place in places}


def test_kv_version_1() -> None:
    """In KV version 1 the paths have no data/, and there is no metadata."""
    rules = daemon_rules(config(token("bookings", vault("aca/bookings", mount="old", kv_version=1))), "main")
    assert [rule.path for rule in rules] == ["old/aca/bookings", "old/aca/bookings.attempts"]


def test_secrets_are_only_read() -> None:
    """What references name may be read, in the Vault they name; what is also published keeps all its capabilities."""
    both = config(
        token(
            "bookings",
            vault("aca/bookings"),
            password={"vault": "secret/aca/password#value"},
            client_id={"vault": "secret/aca/bookings#scope"},
            client_secret={"vault": "team/client#secret", "vault_name": "other"},
        ),
        other={},
    )
    assert needed(both)["secret/data/aca/password"] == "read"
    assert needed(both)["secret/data/aca/bookings"] == "create read update"
    assert needed(both, "other") == {"team/data/client": "read"}


def test_metadata_is_optional() -> None:
    """The note in the metadata is printed as a comment: the daemon does without."""
    (policy,) = policies(config(token("bookings", vault("aca/bookings"))))
    lines = [line for line in policy.splitlines() if "metadata/aca" in line]
    assert len(lines) == 1
    assert lines[0].startswith('# path "secret/metadata/aca/bookings"')


def test_order_is_that_of_paths() -> None:
    """The same tokens in another order have the same policy."""
    tokens = [token(name, vault(name)) for name in ("c", "a", "b")]
    assert policies(config(*tokens)) == policies(config(*reversed(tokens)))


def test_one_for_each_vault() -> None:
    """Each Vault has a policy of its own, headed by its name and namespace; one that nothing needs says so."""
    main, team, idle = policies(
        config(
            token("bookings", vault("aca/bookings", vault_name="main"), vault("x", vault_name="team")),
            team={"namespace": "team-a"},
            idle={},
        )
    )
    assert main.startswith("# [vault.main]: what the daemon needs")
    assert "aca/x" not in main
    assert "# [vault.team], namespace team-a" in team
    assert "bao policy write -namespace=team-a aca-tokend FILE" in team
    assert "nothing" in idle
    assert "path" not in idle.replace("paths", "")


def test_policy_for_a_reader() -> None:
    """A reader of a token may read it where it is published, and neither its records nor another token."""
    everything = config(token("bookings", vault("aca/bookings"), FILE), token("rooms", vault("aca/rooms")), other={})
    (policy,) = policies(everything, reader=everything.tokens[0])
    paths = [line for line in policy.splitlines() if not line.startswith("#") and line]
    assert paths == ['path "secret/data/aca/bookings" { capabilities = ["read"] }']


@pytest.mark.parametrize(
    ("vault_name", "reader", "said"),
    [
        ("mian", None, "--vault: there is no [vault.mian]; there is main, other"),
        ("other", 0, "--reader: bookings is not published to [vault.other]"),
        (None, 1, "--reader: files is not published to any Vault"),
    ],
)
def test_what_there_is_no_policy_for(vault_name: str | None, reader: int | None, said: str) -> None:
    """An unknown name, or a token that no Vault has, is refused with what there is."""
    everything = config(token("bookings", vault("aca/bookings", vault_name="main")), token("files", FILE), other={})
    with pytest.raises(NoSuchPolicyError) as refused:
        policies(everything, vault_name, None if reader is None else everything.tokens[reader])
    assert said in refused.value.message


def test_no_vault_at_all() -> None:
    """Without any Vault there is no policy."""
    document = {"acaengine": {"main": {"url": "https://aca.example.com"}}, "tokens": [token("files", FILE)]}
    with pytest.raises(NoSuchPolicyError, match=r"has no \[vault\.NAME\]"):
        policies(parse([("config.toml", document)]))


def test_nothing_but_paths_is_shown() -> None:
    """A policy names paths: neither a user nor an address."""
    (policy,) = policies(config(token("bookings", vault("aca/bookings"))))
    assert CANARY not in policy
    assert "example.com" not in policy


def test_purposes_are_told_in_order() -> None:
    """Tokens come first, then records, secrets, and what is optional."""
    rules = daemon_rules(config(token("b", vault("b"), password={"vault": "secret/a#x"})), "main")
    assert [rule.purpose for rule in rules] == [
        Purpose.TOKEN,
        Purpose.RECORD,
        Purpose.SECRET,
        Purpose.METADATA,
    ]
