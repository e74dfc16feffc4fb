"""How one configuration differs from another, by tokens. Pure. What did not change for a token does not concern it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.config import VaultPublish, after_of, vaults_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.core.config import AnyPublish, Config, TokenConfig


@dataclass(frozen=True, slots=True)
class Change:
    """A token that changed.

    Attributes:
        previous: for each of its places the number of the place before that is the same one, None where it is new.
        alike: whether that place is also written in the same way.
        tried_anew: whether a server that it needs changed, or what it is asked or tried with: what failed may succeed.
    """

    config: TokenConfig
    previous: tuple[int | None, ...]
    alike: tuple[bool, ...]
    tried_anew: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed. `endpoints` and `vaults` are the names of those that came, changed or left."""

    added: tuple[TokenConfig, ...]
    changed: tuple[Change, ...]
    removed: tuple[str, ...]
    unchanged: int
    endpoints: frozenset[str] = frozenset()
    vaults: frozenset[str] = frozenset()


def compare(old: Config, new: Config) -> Changes:
    """Which tokens came, changed and left. One whose endpoint or Vault changed has changed too."""
    endpoints = _differing(old.acaengine, new.acaengine)
    vaults = _differing(old.vault, new.vault)
    before = {token.name: token for token in old.tokens}
    added, changed = [], []
    for token in new.tokens:
        known = before.pop(token.name, None)
        served_anew = token.acaengine in endpoints or not vaults.isdisjoint(vaults_of(token))
        if known is None:
            added.append(token)
        elif known != token or served_anew:
            tried_anew = served_anew or _asked_with(known) != _asked_with(token)
            changed.append(_change(known, old, token, new, tried_anew=tried_anew))
    unchanged = len(new.tokens) - len(added) - len(changed)
    return Changes(tuple(added), tuple(changed), tuple(before), unchanged, endpoints, vaults)


def _change(known: TokenConfig, old: Config, token: TokenConfig, new: Config, *, tried_anew: bool) -> Change:
    places = [_place(it, old) for it in known.publish]
    previous = tuple(places.index(place) if (place := _place(it, new)) in places else None for it in token.publish)
    alike = tuple(
        number is not None and _without_hook(known.publish[number]) == _without_hook(it)
        for number, it in zip(previous, token.publish, strict=True)
    )
    return Change(token, previous, alike, tried_anew)


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> frozenset[str]:
    return frozenset(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _asked_with(token: TokenConfig) -> tuple[object, ...]:
    credential = (token.authority, token.username, token.password, token.client_id, token.client_secret)
    return (token.acaengine, *credential, token.scope, token.verify)


def _without_hook(sink: AnyPublish) -> AnyPublish:
    """What is run after a write changes nothing of what is written."""
    return sink if after_of(sink) is None else sink.model_copy(update={"after": None})


def _place(sink: AnyPublish, config: Config) -> tuple[str, ...]:
    if not isinstance(sink, VaultPublish):
        return (sink.to, sink.path)
    vault = config.vault[sink.vault_name]
    return ("vault", " ".join(vault.addresses), vault.namespace, sink.mount, sink.path)
