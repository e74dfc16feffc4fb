"""The look-alike as the tests set it up, and what they send to it."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

PASSWORD = "canary-p&ss+w%rd=ü-71c2"
SECRET = "canary-client-secret-9d40"
LEVERS = {
    "accounts": {"svc": {"password": PASSWORD}, "locked": {"password": PASSWORD, "locked": True}},
    "clients": {
        "app": {"secret": SECRET, "scopes": ["public", "admin"]},
        "no-grant": {"secret": SECRET, "password_grant": False},
    },
}
FORM = {
    "grant_type": "password",
    "username": "svc",
    "password": PASSWORD,
    "authority": "authority-1",
    "client_id": "app",
    "client_secret": SECRET,
}


def ask(http: httpx.Client, host: str | None = None, **changes: str | None) -> httpx.Response:
    """A token request like the daemon's, with some parameters changed or, where None, left out."""
    form = {name: value for name, value in (FORM | changes).items() if value is not None}
    return http.post("/auth/oauth/token", data=form, headers={} if host is None else {"Host": host})


def grant(http: httpx.Client, host: str | None = None) -> dict[str, Any]:
    """The answer to a token request that must succeed."""
    answer = ask(http, host)
    assert answer.status_code == 200, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


def read(http: httpx.Client, authorization: str, path: str = "/api/engine/v2/users/current", host: str = "x") -> int:
    """The status of an API read with this Authorization header."""
    return http.get(path, headers={"Authorization": authorization, "Host": host}).status_code


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "cert.pem", directory / "key.pem"
