"""Checks of each `[acaengine.NAME]`: can it be reached, is it who it should be, does it know us, how is its clock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aca_tokend.core.condition import SKEW_SECONDS
from aca_tokend.core.errors import ReachError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.doctor import reach
from aca_tokend.doctor.examination import Check
from aca_tokend.doctor.findings import Area
from aca_tokend.net.opening import Origin
from aca_tokend.rotation.credentials import endpoint_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aca_tokend.acaengine.endpoint import HttpTokenEndpoint
    from aca_tokend.core.config import EndpointConfig
    from aca_tokend.doctor.examination import Notes
    from aca_tokend.parts import Parts

AUTHORITY, CLOCK = "authority", "clock"
WARN_SKEW_SECONDS = 5.0


def checks(parts: Parts, wall: Callable[[], float]) -> Iterator[Check]:
    """One for each endpoint. Its key is its pool: `acaengine.NAME`."""
    for name, config in parts.config.acaengine.items():
        tls = (reach.TLS,) if config.url.startswith("https:") else ()
        endpoint = parts.endpoints[name]
        yield Check(
            Area.ENDPOINT,
            f"acaengine.{name}",
            (reach.NAME, reach.CONNECTION, *tls, AUTHORITY, CLOCK),
            partial(_examine, config=config, endpoint=endpoint, wall=wall),
            key=endpoint_pool(endpoint),
        )


async def _examine(
    notes: Notes, config: EndpointConfig, endpoint: HttpTokenEndpoint, wall: Callable[[], float]
) -> None:
    pool = endpoint_pool(endpoint)
    # a proxy is what we connect to; it finds the server
    if not await reach.reach(notes, Origin.of(config.proxy or config.url), pool):
        return
    try:
        answer = await Call(pool, endpoint.authority)
    except ReachError as error:
        if error.reason is Reason.TLS_FAILED:
            reach.tell_tls_failure(notes, error)
            return
        if reach.TLS in notes.left:
            notes.skipped(reach.TLS, "no answer came from which to tell")
        notes.error(AUTHORITY, error)
        return
    if answer.certificate is not None and reach.TLS in notes.left:
        reach.tell_certificate(notes, answer.certificate, wall())
    if _authority(notes, answer.status, endpoint.host):
        _clock(notes, answer.skew_seconds)


def _authority(notes: Notes, status: int, host: str) -> bool:
    """Tells whether the server knows the Host; a grant would otherwise be refused as if by a wrong password."""
    if status == 200:  # noqa: PLR2004 -- OK
        notes.ok(AUTHORITY, f"it knows the Host {host}")
        return True
    if status == 404:  # noqa: PLR2004 -- Not Found
        fix = "set host to the domain of the tenant as Backoffice has it, or url to the server that has it"
        notes.failed(AUTHORITY, f"it does not know the Host {host}: GET /auth/authority says 404", fix)
    else:
        fix = "see what stands before the server, and whether it lets /auth/ through; check url and host"
        notes.failed(AUTHORITY, f"GET /auth/authority says {status} for the Host {host}", fix)
    return False


def _clock(notes: Notes, skew: float | None) -> None:
    if skew is None:
        notes.skipped(CLOCK, "its answer has no Date")
        return
    side = "ahead of" if skew > 0 else "behind"
    detail = f"{abs(skew):.0f} s {side} ours"
    fix = "let both machines take their time from NTP"
    if abs(skew) > SKEW_SECONDS:
        notes.failed(CLOCK, detail, fix)
    elif abs(skew) > WARN_SKEW_SECONDS:
        notes.warn(CLOCK, detail, fix)
    else:
        notes.ok(CLOCK, "as ours")
