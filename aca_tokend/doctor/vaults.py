"""Checks of each `[vault.NAME]`: its nodes, our log-in, and what we may do at every path in use."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.config import VaultPublish, VaultReference, references
from aca_tokend.core.durations import format_duration
from aca_tokend.core.errors import LookError, ReachError, VaultLoginError
from aca_tokend.core.steps import Call
from aca_tokend.core.vault_policy import daemon_rules
from aca_tokend.doctor import reach
from aca_tokend.doctor.examination import Check
from aca_tokend.doctor.findings import Area
from aca_tokend.net.opening import Origin
from aca_tokend.net.trust import Trust
from aca_tokend.vault.health import read_health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aca_tokend.core.config import Config, VaultConfig
    from aca_tokend.core.login import OwnToken
    from aca_tokend.core.vault_policy import Rule
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts
    from aca_tokend.vault.session import VaultSession

SEAL, STATE, LOG_IN, TOKEN, VERSION, POLICY = "seal", "state", "log-in", "our token", "kv version", "policy"
HOUR_SECONDS = 3600.0
# Vault refuses a request that asks about too many paths.
PATHS_AT_ONCE = 500


def checks(parts: Parts, wall: Callable[[], float]) -> Iterator[Check]:
    """For each Vault: each of its nodes, the log-in, whose key is `vault.NAME`, and the paths in use."""
    for name, config in parts.config.vault.items():
        subject, session = f"vault.{name}", parts.vaults[name]
        nodes = [subject if len(config.addresses) == 1 else f"{subject} {address}" for address in config.addresses]
        for node, address in zip(nodes, config.addresses, strict=True):
            tls = (reach.TLS,) if address.startswith("https:") else ()
            alone = config.model_copy(update={"address": address})
            examine = partial(_node, name=name, config=alone, wall=wall)
            yield Check(
                Area.VAULT, node, (reach.NAME, reach.CONNECTION, *tls, SEAL, STATE), examine, key=f"node {node}"
            )
        # of several nodes one may be down, and it need not be the one that we log in through
        after = (f"node {subject}",) if len(nodes) == 1 else ()
        log_in = partial(_log_in, session=session, method=config.auth.method)
        yield Check(Area.VAULT, subject, (LOG_IN, TOKEN), log_in, after, key=subject)
        used = mounts(parts.config, name)
        rules = daemon_rules(parts.config, name)
        if rules:
            places = partial(_places, session=session, used=used, rules=rules)
            steps = (*(f"{VERSION} of {mount}" for mount in used), POLICY)
            yield Check(Area.VAULT, subject, steps, places, after=(subject,))


def mounts(config: Config, vault: str) -> dict[str, int]:
    """The KV engines in use, each with the version it must have."""
    used: dict[str, int] = {}
    for token in config.tokens:
        for place in token.publish:
            if isinstance(place, VaultPublish) and place.vault_name == vault:
                used[place.mount] = place.kv_version
        for reference in references(token):
            if isinstance(reference, VaultReference) and reference.vault_name == vault:
                used.setdefault(reference.mount, 2)  # a reference can name no other version
    return used


def log_ins(*used: object) -> tuple[str, ...]:
    """The keys of the log-ins that these places and references need."""
    return tuple({f"vault.{it.vault_name}": None for it in used if isinstance(it, VaultPublish | VaultReference)})


async def _node(notes: Notes, name: str, config: VaultConfig, wall: Callable[[], float]) -> None:
    """One node: can it be reached, does its certificate hold, is it unsealed."""
    pool, address = f"vault.{name}", config.addresses[0]
    place = Origin.of(address)
    if not await reach.reach(notes, place, pool):
        return
    if reach.TLS in notes.left:
        try:
            trust = Trust(config.ca_file, config.tls_cert, config.tls_key)
            shown = await Call(pool, lambda: reach.certificate(place, trust))
        except ReachError as error:
            reach.tell_tls_failure(notes, error)
            return
        reach.tell_certificate(notes, shown, wall())
    try:
        health = await Call(pool, lambda: read_health(config))
    except ReachError as error:
        notes.error(SEAL, error)
        return
    if not health.initialised:
        notes.failed(SEAL, "it was never initialised", "initialise and unseal it")
    elif health.sealed:
        notes.failed(SEAL, "it is sealed", "unseal it")
    else:
        notes.ok(SEAL, "unsealed")
        notes.ok(STATE, "standby: it passes requests on" if health.standby else "active")


async def _log_in(notes: Notes, session: VaultSession, method: str) -> None:
    """Our log-in, and the token that we hold then."""
    try:
        token = await Call(session.pool, session.own_token)
    except VaultLoginError as error:
        if session.logged_in:
            notes.ok(LOG_IN, f"by {method}")
            notes.error(TOKEN, error)
        else:
            notes.error(LOG_IN, error)
        return
    notes.ok(LOG_IN, f"by {method}")
    _tell_token(notes, token, session.name)


def _tell_token(notes: Notes, token: OwnToken, vault: str) -> None:
    if token.ttl_seconds is None:
        life = "which never expires"
    else:
        exactness = 60 if token.ttl_seconds > HOUR_SECONDS else 1
        lives = format_duration(round(token.ttl_seconds / exactness) * exactness)
        life = f"which lives {lives}{' and can be renewed' * token.renewable}"
    detail = f"a {token.kind} token, {life}"
    if "root" in token.policies:
        fix = f"`aca-tokend policy --vault {vault}` prints the policy that a role for the daemon needs"
        notes.warn(TOKEN, f"{detail}; it is a root token, which may do everything", fix)
    else:
        notes.ok(TOKEN, detail)


async def _places(notes: Notes, session: VaultSession, used: Mapping[str, int], rules: Sequence[Rule]) -> None:
    """The KV version of each mount in use, and what our token may do at each path."""
    pool = session.pool
    for mount, configured in used.items():
        try:
            found = await Call(pool, lambda mount=mount: session.mount_version(mount))  # type: ignore[misc]  # bound now
        except LookError as error:
            notes.error(f"{VERSION} of {mount}", error)
            continue
        _tell_version(notes, mount, configured, found)
    held: dict[str, frozenset[str]] = {}
    try:
        for asked in _in_batches([rule.path for rule in rules]):
            held |= await Call(pool, lambda asked=asked: session.capabilities(asked))  # type: ignore[misc]  # bound now
    except LookError as error:
        notes.error(POLICY, error)
        return
    _tell_missing(notes, session.name, rules, held)


def _tell_version(notes: Notes, mount: str, configured: int, found: int | None) -> None:
    step = f"{VERSION} of {mount}"
    if found is None:
        detail = "no KV engine is mounted there, or our policy names no path of it, so that we may not know"
        notes.failed(
            step, detail, f"check mount and the policy; a new one: bao secrets enable -version=2 -path={mount} kv"
        )
    elif found != configured:
        fix = f"set kv_version = {found}, or publish to another mount"
        notes.failed(step, f"version {found}, and it must be {configured}", fix)
    elif found == 1:
        fix = "where it matters, publish to a KV version 2 mount"
        notes.warn(step, "version 1, which has no check-and-set: only the issue time fences writes", fix)
    else:
        notes.ok(step, f"version {found}: every write is a check-and-set")


def _tell_missing(notes: Notes, vault: str, rules: Sequence[Rule], held: Mapping[str, frozenset[str]]) -> None:
    """Names the paths where something needed is not allowed."""
    well = True
    for rule in rules:
        allowed = held[rule.path]
        missing = [] if "root" in allowed else [it for it in rule.capabilities if it not in allowed]
        if missing and not rule.optional:
            well = False
            fix = f"`aca-tokend policy --vault {vault}` prints the policy that is needed"
            notes.also(rule.path).failed(POLICY, f"not allowed: {', '.join(missing)}", fix)
    if well:
        notes.ok(POLICY, f"all that is needed at {sum(not rule.optional for rule in rules)} paths")
    else:
        notes.left.remove(POLICY)


def _in_batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), PATHS_AT_ONCE):
        yield paths[start : start + PATHS_AT_ONCE]
