"""The status of what many tokens depend on: endpoints and Vaults, with what is wrong with each as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from aca_tokend.core import saying
from aca_tokend.core.condition import PASSING, SKEW_SECONDS, VAULT_WIDE
from aca_tokend.core.demand import TOO_SLOW
from aca_tokend.core.login import LoginFailed, RenewalFailed
from aca_tokend.core.outcome import ADVICE, Reason
from aca_tokend.core.status import Circuit, EndpointStatus, VaultStatus
from aca_tokend.core.token import moment

if TYPE_CHECKING:
    from aca_tokend.core.breaker import Breaker
    from aca_tokend.survey import Overview, Subject

T = TypeVar("T", EndpointStatus, VaultStatus)

SKEW_ADVICE = "set both clocks by NTP; a wrong clock makes tokens look older or younger than they are"


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What is wrong with a server."""

    said: str
    runbook: str
    advice: str
    reason: Reason | None = None
    message: str | None = None
    needs_a_person: bool = True


def endpoint_status(subject: Subject, seen: Overview, name: str) -> EndpointStatus:
    """One endpoint."""
    watched, load = subject.watched, subject.watched.loads.get(name)
    gate = subject.parts.shared.known_gate(name)
    breaker = gate.breaker if gate else None
    held = breaker is not None and breaker.open
    waiting = breaker.waiting if breaker is not None and held else 0
    status = EndpointStatus(
        name=name,
        url=subject.config.acaengine[name].url,
        up=watched.up.get(name),
        breaker=_circuit(breaker),
        held_until=subject.at(breaker.probe_at) if breaker and held and breaker.probe_at > subject.monotonic else None,
        waiting=waiting,
        tokens=seen.endpoints[name],
        clock_skew_seconds=watched.skew.get(name),
        demand_ratio=load.ratio if load else None,
    )
    return _told(status, _endpoint_trouble(subject, name), [f"{_tokens(waiting)} for it"] if waiting else [])


def _circuit(breaker: Breaker | None) -> Circuit:
    if breaker is None or not breaker.open:
        return Circuit.CLOSED
    return Circuit.PROBING if breaker.probing else Circuit.OPEN


def _endpoint_trouble(subject: Subject, name: str) -> _Trouble | None:
    """The worst that is wrong with an endpoint."""
    watched = subject.watched
    failure, load, skew = watched.failures.get(name), watched.loads.get(name), watched.skew.get(name, 0.0)
    if failure is not None:
        return _Trouble(
            saying.clause(failure),
            "ACAEndpointDown",
            ADVICE[failure.reason],
            failure.reason,
            failure.message,
            failure.reason not in PASSING,
        )
    if abs(skew) > SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        return _Trouble(f"its clock is {saying.span(abs(skew))} {way} ours", "ACAClockSkew", SKEW_ADVICE)
    if load is not None and load.too_slow:
        said = f"it gives {load.given_per_second:.1f} tokens a second, and {load.due_per_second:.1f} are due"
        return _Trouble(said, "ACATokenExpiringSoon", TOO_SLOW)
    return None


def vault_status(subject: Subject, seen: Overview, name: str) -> VaultStatus:
    """One Vault."""
    session = subject.parts.vaults.get(name)
    failed = seen.failed_sinks.get(f"vault.{name}", {})
    trouble = _login_trouble(subject, name)
    if trouble is None:
        wide = next((failure for failure in failed.values() if failure.reason in VAULT_WIDE), None)
        if wide is not None:
            said = saying.CLAUSES[wide.reason].format(who="Vault")
            passing = wide.reason in PASSING
            trouble = _Trouble(
                said, "ACATokenPublishStale", ADVICE[wide.reason], wide.reason, wide.message, not passing
            )
    status = VaultStatus(
        name=name,
        logged_in=session.logged_in if session else False,
        method=subject.config.vault[name].auth.method,
        token_expires_at=moment(session.expires_at) if session else None,
        failing=len(failed),
    )
    return _told(status, trouble, [f"{saying.tokens(len(failed))} cannot be published there"] if failed else [])


def _login_trouble(subject: Subject, name: str) -> _Trouble | None:
    """What is wrong with our own token in a Vault."""
    event = subject.watched.logins.get(name)
    match event:
        case LoginFailed(reason=reason):
            said = saying.CLAUSES[reason].format(who="Vault")
            needs = event.suspended or reason not in PASSING
        case RenewalFailed(reason=reason):
            said = "our own token was not renewed"
            if (ends := moment(event.expires_at)) is not None:
                said += f", and expires at {saying.clock(ends, subject.now)}"
            needs = reason not in PASSING
        case _:
            return None
    return _Trouble(said, "ACAVaultLoginFailing", ADVICE[reason], reason, event.message, needs)


def _told(status: T, trouble: _Trouble | None, comes_of_it: list[str]) -> T:
    """The status with what is wrong, if anything is."""
    if trouble is None:
        return status
    return replace(
        status,
        needs_a_person=trouble.needs_a_person,
        summary=saying.sentence(trouble.said, *comes_of_it),
        reason=trouble.reason,
        message=trouble.message,
        advice=trouble.advice,
        runbook=trouble.runbook,
    )


def _tokens(count: int) -> str:
    return "1 token waits" if count == 1 else f"{count} tokens wait"
