"""How two configurations differ: which tokens came, changed and left, and which of their places are the same."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.config import Config, parse
from aca_tokend.rotation.changes import Change, Changes, compare

if TYPE_CHECKING:
    from collections.abc import Callable

Document = dict[str, Any]


def document(tokens: int = 1) -> Document:
    """A configuration as it is written: two endpoints, two Vaults, tokens that use the first of each."""
    auth = {"method": "token", "token": {"env": "VAULT_TOKEN"}}
    return {
        "acaengine": {"main": {"url": "https://aca.example.com"}, "other": {"url": "https://other.example.com"}},
        "vault": {
            "main": {"address": "https://vault.example.com:8200", "auth": auth},
            "other": {"address": "https://other.example.com:8200", "auth": auth},
        },
        "tokens": [
            {
                "name": f"t{number}",
                "acaengine": "main",
                "authority": "authority-1",
                "username": f"svc-{number}",
                "password": {"env": "PASSWORD"},
                "client_id": "client-1",
                "client_secret": {"env": "CLIENT_SECRET"},
                "scope": "public",
                "publish": [
                    {"to": "vault", "mount": "secret", "path": f"aca/t{number}"},
                    {"to": "file", "path": f"/run/aca/t{number}.json"},
                ],
            }
            for number in range(tokens)
        ],
    }


def config(written: Document) -> Config:
    return parse([("config.toml", written)])


def changes(tokens: int, edit: Callable[[Document], object]) -> Changes:
    """What an edit of a configuration of so many tokens changes."""
    before = document(tokens)
    after = deepcopy(before)
    edit(after)
    return compare(config(before), config(after))


def names(found: Changes) -> tuple[list[str], list[str], list[str], int]:
    return [t.name for t in found.added], [t.config.name for t in found.changed], list(found.removed), found.unchanged


def test_same_content_is_no_change() -> None:
    """Two configurations that say the same differ in nothing."""
    assert names(changes(3, lambda it: it)) == ([], [], [], 3)


def test_order_is_no_change() -> None:
    """The order of tokens changes none of them."""
    assert names(changes(3, lambda it: it["tokens"].reverse())) == ([], [], [], 3)


def test_added_changed_removed() -> None:
    """Each token is counted once, by what happened to it."""

    def edit(it: Document) -> None:
        it["tokens"][0]["scope"] = "admin"
        it["tokens"][1]["name"] = "new"

    assert names(changes(3, edit)) == (["new"], ["t0"], ["t1"], 1)


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (lambda it: it["acaengine"]["main"].update(timeout="7s"), ["t0", "t1"]),
        (lambda it: it["acaengine"]["other"].update(timeout="7s"), []),
        (lambda it: it["vault"]["main"].update(timeout="7s"), ["t0", "t1"]),
        (lambda it: it["vault"]["other"].update(timeout="7s"), ["t1"]),
        (lambda it: it.update(rotation={"fraction": 0.5}), ["t0", "t1"]),
        (lambda it: it["acaengine"].update(third={"url": "https://third.example.com"}), []),
        (lambda it: it.update(admin={"listen": ""}), []),
    ],
    ids=["its endpoint", "another endpoint", "its vault", "vault of a secret", "defaults", "new endpoint", "pages"],
)
def test_what_a_token_uses_is_part_of_it(edit: Callable[[Document], object], changed: list[str]) -> None:
    """A token whose endpoint or Vault changed has changed, be it that only a secret comes from that Vault."""
    before = document(2)
    before["tokens"][1]["password"] = {"vault": "secret/aca#password", "vault_name": "other"}
    after = deepcopy(before)
    edit(after)

    assert names(compare(config(before), config(after)))[1] == changed


def only_change(edit: Callable[[Document], object]) -> Change:
    """What an edit changes of the only token."""
    (change,) = changes(1, edit).changed
    return change


def test_places_are_the_same_by_where_they_are() -> None:
    """A place is the one that was published to before, wherever it stands in the list and in whichever form."""

    def edit(it: Document) -> None:
        vault, file = it["tokens"][0]["publish"]
        new = {"to": "file", "path": "/run/aca/new.json"}
        it["tokens"][0]["publish"] = [file | {"mode": "0600"}, new, vault]

    change = only_change(edit)

    assert (change.previous, change.alike) == ((1, None, 0), (False, False, True))


def test_hook_is_no_part_of_how_a_place_is_written() -> None:
    """A place with another hook is written as before."""
    after = {"command": ["/bin/true"]}

    change = only_change(lambda it: it["tokens"][0]["publish"][1].update(after=after))

    assert (change.previous, change.alike) == ((0, 1), (True, True))


def test_same_path_in_another_vault_is_another_place() -> None:
    """Where the Vault has another address, its places are new; with another log-in they are what they were."""
    moved = only_change(lambda it: it["vault"]["main"].update(address="https://v2.example.com:8200"))
    logged_in = only_change(lambda it: it["vault"]["main"]["auth"].update(token={"env": "OTHER"}))

    assert (moved.previous, moved.alike) == ((None, 1), (False, True))
    assert (logged_in.previous, logged_in.alike) == ((0, 1), (True, True))


@pytest.mark.parametrize(
    ("edit", "tried_anew"),
    [
        (lambda it: it["acaengine"]["main"].update(timeout="7s"), True),
        (lambda it: it["tokens"][0].update(acaengine="other"), True),
        (lambda it: it["tokens"][0].update(password={"env": "NEW"}), True),
        (lambda it: it["tokens"][0].update(client_secret={"env": "NEW"}), True),
        (lambda it: it["tokens"][0].update(client_id="client-2"), True),
        (lambda it: it["tokens"][0].update(username="svc-other"), True),
        (lambda it: it["tokens"][0].update(authority="authority-2"), True),
        (lambda it: it["tokens"][0].update(scope="admin"), True),
        (lambda it: it["tokens"][0].update(rotation={"fraction": 0.5}), False),
        (lambda it: it["tokens"][0].update(verify={"path": "/api/me"}), True),
        (lambda it: it["tokens"][0]["publish"].pop(), False),
        (lambda it: it["vault"]["main"].update(timeout="7s"), True),
    ],
)
def test_what_failed_is_tried_anew(edit: Callable[[Document], object], tried_anew: bool) -> None:
    """What failed may succeed once a server changed, or what it is asked or tried with; nothing else says so."""
    assert only_change(edit).tried_anew is tried_anew
