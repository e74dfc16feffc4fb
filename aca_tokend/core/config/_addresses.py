"""Addresses: URLs of servers, paths on them, host names, the place to listen at."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, PlainValidator

from aca_tokend.core.config._wrong import refuse

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_LAST_PORT = 65_535
_PORTS = {"https": 443, "http": 80}


def plain_http(url: str) -> bool:
    """Whether what is sent there goes unencrypted to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost":
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    # spelled out: what `is_loopback` says of ::ffff:127.0.0.1 depends on the version of Python
    loopback = ipaddress.ip_network("127.0.0.0/8") if address.version == 4 else ipaddress.ip_network("::1/128")  # noqa: PLR2004 - IPv4
    return address not in loopback


def server(url: object) -> str | None:
    """The same text for all addresses of one server, or of all its nodes; None where it is not an address."""
    if isinstance(url, list):
        return " ".join(sorted(server(node) or "" for node in url)) or None
    try:
        parts = urlsplit(str(url).lower())
        return f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"
    except (ValueError, KeyError):
        return None


def origin(value: str) -> str:
    """Scheme, host and port, without the last slash. Raises PydanticCustomError."""
    fix = 'write it as "https://host.example.com", with :port where needed'
    if not re.match(r"https?://", value):
        refuse("does not begin with https:// or http://", fix)
    parts = _split(value)
    if "@" in value:
        refuse("holds a user name or password", "leave out everything up to the @")
    if "?" in value or "#" in value:
        refuse("has a query or fragment", "leave ? or # and all that follows out")
    if parts is None or not re.fullmatch(_HOST + "(:[0-9]+)?", parts.netloc):
        refuse("has no host, or a host or port that cannot be", fix)
    if parts.path not in {"", "/"}:
        refuse("has a path", "end it after host and port")
    return value.rstrip("/")


def _split(value: str) -> SplitResult | None:
    if not re.fullmatch(r"[\x21-\x7E]+", value):
        # urlsplit would drop some of these without a word
        return None
    try:
        parts = urlsplit(value)
        sound = parts.port != 0 and _can_be(parts.hostname or "")  # reading the port checks it
    except ValueError:
        return None
    return parts if sound else None


def _can_be(host: str) -> bool:
    """Whether there can be such a host: what looks like an address must be one."""
    if ":" not in host and not host.rpartition(".")[2].isdecimal():
        return bool(host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _nodes(value: object) -> str | tuple[str, ...]:
    """One server, or the nodes of one cluster."""
    if isinstance(value, str):
        return origin(value)
    if not isinstance(value, list | tuple) or not all(isinstance(node, str) for node in value):
        refuse("must be text or an array of text", 'write it as "https://host.example.com"')
    if not value:
        refuse("names no server", 'write it as "https://host.example.com"')
    nodes = tuple(origin(node) for node in value)
    for node in nodes:
        if sum(server(node) == server(other) for other in nodes) > 1:
            refuse(f"names {node} twice", "name each node once")
    return nodes


def _optional_url(value: str) -> str:
    return origin(value) if value else value


def _request_path(value: str) -> str:
    if not value.startswith("/") or value.startswith("//"):
        refuse("does not begin with one slash", "write what follows host and port, beginning with one slash")
    if not re.fullmatch(r"[\x21-\x7E]+", value) or "#" in value:
        refuse("has a character that a path cannot have", "percent-encode it")
    return value


def _token_path(value: str) -> str:
    if "?" in value:
        refuse("has a query", "leave ? and all that follows out: everything is sent in the body")
    return _request_path(value)


def _host(value: str) -> str:
    if value and (not re.fullmatch(_HOST + "(:[0-9]{1,5})?", value) or _split(f"//{value}") is None):
        refuse("is not a host name", 'write the name alone, such as "aca.example.com"')
    return value


def _redirect_host(value: str) -> str:
    if not re.fullmatch(r"(\*\.)?" + _HOST, value) or _split(f"//{value.removeprefix('*.')}") is None:
        refuse("is not a host name", 'write the name alone, such as "vault-1.example.com", or "*.example.com" for all')
    return value


def _listen(value: str) -> str:
    match = re.fullmatch(_HOST + ":([0-9]{1,5})", value)
    if value and (match is None or int(match[2]) > _LAST_PORT):
        refuse(
            "is not an address and port",
            'write "127.0.0.1:9464", "[::1]:9464", "0.0.0.0:9464" for every address, or "" to turn the pages off',
        )
    return value


Url = Annotated[str, AfterValidator(origin)]
Nodes = Annotated[str | tuple[str, ...], PlainValidator(_nodes, json_schema_input_type=str | tuple[str, ...])]
OptionalUrl = Annotated[str, AfterValidator(_optional_url)]
RequestPath = Annotated[str, AfterValidator(_request_path)]
TokenPath = Annotated[str, AfterValidator(_token_path)]
Host = Annotated[str, AfterValidator(_host)]
RedirectHost = Annotated[str, AfterValidator(_redirect_host)]
Listen = Annotated[str, AfterValidator(_listen)]
