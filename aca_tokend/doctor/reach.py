"""Whether a server can be reached, step by step: its name, a connection, its certificate.

It sends nothing over a connection but a TLS handshake, verifies as the adapters do, and knows no secret.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aca_tokend.core.errors import ReachError, TransportError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.steps import Call
from aca_tokend.doctor.examination import advice
from aca_tokend.net.opening import Opener
from aca_tokend.net.streams import Deadline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aca_tokend.doctor.examination import Notes
    from aca_tokend.net.opening import Origin
    from aca_tokend.net.trust import Trust

NAME, CONNECTION, TLS = "name", "connection", "tls"
# A step that takes longer than this would leave too little of the doctor's time to the others.
STEP_SECONDS = 4.0
# A certificate that ends sooner than this is told of.
WARN_DAYS = 14.0
DAY_SECONDS = 86_400.0
# By what OpenSSL says of a certificate that does not hold.
_TLS_FIXES = (
    ("expired", "renew the certificate of the server"),
    ("not yet valid", "set the clocks of both machines, or wait until the certificate begins"),
    ("mismatch", "use a name that stands on the certificate, or put the name used on it"),
    ("self-signed", "name the certificate, or the CA that signed it, in ca_file"),
    ("unable to get", "name the CA that signed the certificate in ca_file; the server should send intermediate ones"),
    ("ca_file", "let ca_file name a file with the CA's certificates (PEM) that the daemon may read"),
    ("wrong version number", "the server speaks plain HTTP there; use its TLS port, or http:// if that is meant"),
)


async def reach(notes: Notes, place: Origin, pool: str) -> bool:
    """Tries the name and a connection. Returns whether both are well."""
    try:
        found = await Call(pool, lambda: addresses(place))
        notes.ok(NAME, found)
    except ReachError as error:
        notes.error(NAME, error)
        return False
    try:
        peer = await Call(pool, lambda: connect(place))
        notes.ok(CONNECTION, peer)
    except ReachError as error:
        notes.error(CONNECTION, error)
        return False
    return True


def addresses(place: Origin) -> str:
    """The addresses of its name. Raises ReachError."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise ReachError(Reason.NAME_NOT_RESOLVED, f"{place.host} does not resolve") from exc
    unique = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    return f"{place.host} is {', '.join(unique)}" if unique != (place.host,) else f"{place.host} is an address"


def connect(place: Origin) -> str:
    """Connects and closes. Raises ReachError."""
    with closing(_connected(place)) as connection:
        peer = connection.getpeername()
    return f"{peer[0]} port {peer[1]} answers"


def certificate(place: Origin, trust: Trust) -> Mapping[str, Any]:
    """The certificate that the server shows, verified as the adapters do. Raises ReachError."""
    try:
        with closing(Opener(trust).open(place, place.host, Deadline.after(STEP_SECONDS))) as stream:
            return stream.certificate or {}
    except TransportError as exc:
        raise ReachError(exc.reason, exc.message) from exc


def tell_certificate(notes: Notes, shown: Mapping[str, Any], now: float) -> None:
    """Tells of a certificate that holds: its name, who issued it, and how long it lasts."""
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    issuer = {key: value for part in shown.get("issuer", ()) for key, value in part}
    by = issuer.get("commonName") or issuer.get("organizationName") or "an issuer without a name"
    ends = ssl.cert_time_to_seconds(shown["notAfter"])
    days = (ends - now) / DAY_SECONDS
    detail = f"for {', '.join(names[:3])} by {by}, {days:.0f} days left (until {_day(ends)})"
    if days < WARN_DAYS:
        notes.warn(TLS, detail, "have the certificate renewed; after that day every connection fails")
    else:
        notes.ok(TLS, detail)


def tell_tls_failure(notes: Notes, error: ReachError) -> None:
    """Tells of a certificate that does not hold, with the fix for what OpenSSL says of it."""
    fix = next((fix for sign, fix in _TLS_FIXES if sign in error.message), advice(error.reason))
    notes.failed(TLS, error.message, fix)


def _connected(place: Origin) -> socket.socket:
    try:
        return socket.create_connection((place.host, place.port), STEP_SECONDS)
    except TimeoutError as exc:
        raise ReachError(Reason.TIMEOUT, f"no connection to port {place.port} within {STEP_SECONDS:g} s") from exc
    except OSError as exc:
        problem = f": {exc.strerror.lower()}" if exc.strerror else ""
        raise ReachError(Reason.CONNECT_FAILED, f"no connection to port {place.port}{problem}") from exc


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
