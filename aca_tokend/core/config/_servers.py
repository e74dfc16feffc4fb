"""The tables of the daemon itself and of the servers it talks to. Keys stand in the order of the reference."""

from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from aca_tokend.core.config._addresses import Host, Listen, Nodes, OptionalUrl, RedirectHost, TokenPath, Url, plain_http
from aca_tokend.core.config._auth import Auth, CertAuth
from aca_tokend.core.config._kinds import Duration, Namespace, OptionalFile, written
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import refuse

Timeout = Annotated[float, Duration(0.01, 600)]
Concurrency = Annotated[int, Field(ge=1, le=256)]


def _beside_cert(value: str, info: ValidationInfo) -> str:
    """Validates what comes after `tls_cert` and means nothing without it."""
    if value and info.data.get("tls_cert") == "":
        refuse("does nothing without tls_cert", f"add tls_cert, or leave {info.field_name} out")
    return value


def _paired(value: str, info: ValidationInfo) -> str:
    """Validates `tls_key`."""
    if info.data.get("tls_cert") and not value:
        refuse("missing beside tls_cert", "add tls_key, or leave tls_cert out")
    return _beside_cert(value, info)


def _encrypted(value: bool, info: ValidationInfo, key: str, what: str) -> bool:
    """Validates `allow_plain_http`, which comes after the address, and blames the address or the proxy before it."""
    found = info.data.get(key, ())
    urls = (found,) if isinstance(found, str) else found
    # a proxy gets what is for an http:// server as it is, also where that is on this machine
    proxies = (info.data.get("proxy", ""),) if any(url.startswith("http:") for url in urls) else ()
    for at, asked in ((key, urls), ("proxy", proxies)):
        if not value and any(plain_http(url) for url in asked):
            refuse(
                f"would send {what} unencrypted to another machine",
                "use https://, or set allow_plain_http = true where the network itself encrypts",
                at=at,
            )
    return value


BesideCert = Annotated[OptionalFile, AfterValidator(_beside_cert)]
TlsKey = Annotated[OptionalFile, AfterValidator(_paired)]
PlainHttpToEndpoint = Annotated[bool, AfterValidator(partial(_encrypted, key="url", what="passwords"))]
PlainHttpToVault = Annotated[bool, AfterValidator(partial(_encrypted, key="address", what="tokens and secrets"))]


class AdminConfig(Table):
    """The pages for Prometheus, probes and people."""

    listen: Listen = Field(
        default="127.0.0.1:9464",
        description='Address and port of the pages; port 0 takes a free one, `""` turns them off.',
    )
    tls_cert: OptionalFile = Field(
        default="", description="Certificate chain (PEM). With it the pages are served over TLS."
    )
    tls_key: TlsKey = Field(default="", description="Private key (PEM) of `tls_cert`.")
    tls_client_ca: BesideCert = Field(
        default="",
        description="CA certificates (PEM). With them only clients with a certificate of these are served.",
    )
    show_usernames: bool = Field(default=True, description="Whether the pages show user names.")


class LogConfig(Table):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Less severe lines are not written."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto` means `console` on a terminal and `json` elsewhere."
    )


class EndpointConfig(Table):
    """A server that grants tokens."""

    url: Url = Field(description="Scheme, host and port of the server.", examples=["https://aca.example.com"])
    token_path: TokenPath = Field(default="/auth/oauth/token", description="Path that grants are asked for at.")
    host: Host = Field(
        default="",
        description="`Host` header and TLS name where they differ from `url`. The server takes the tenant from it.",
        examples=["aca.example.com"],
    )
    ca_file: OptionalFile = Field(default="", description="CA certificates (PEM) to trust instead of the system's.")
    proxy: OptionalUrl = Field(
        default="",
        description="Proxy between us and the server. Proxies of the environment are not used.",
        examples=["http://proxy.example.com:3128"],
    )
    timeout: Timeout = written(
        "10s", description="Limit of a whole request, from connecting to the last byte of the answer."
    )
    max_concurrency: Concurrency = Field(default=8, description="Most requests to this server at one time.")
    allow_plain_http: PlainHttpToEndpoint = Field(
        default=False,
        description="Allows `http://` to another machine, where everybody on the way can read passwords and tokens.",
    )


class VaultConfig(Table):
    """A HashiCorp Vault or an OpenBao."""

    address: Nodes = Field(
        description="Scheme, host and port of the server; an array where one cluster has several nodes.",
        examples=["https://vault.example.com:8200"],
    )
    namespace: Namespace = Field(
        default="", description="Namespace of the log-in and of all mounts.", examples=["team-a"]
    )
    redirect_hosts: Annotated[tuple[RedirectHost, ...], Field(strict=False)] = Field(
        default=(),
        description="Hosts beside `address` that a standby may redirect to: names, or `*.` and what they all end in.",
        examples=[["*.vault-internal"]],
    )
    ca_file: OptionalFile = Field(default="", description="CA certificates (PEM) to trust instead of the system's.")
    tls_cert: OptionalFile = Field(default="", description="Certificate chain (PEM) to show to the server.")
    tls_key: TlsKey = Field(default="", description="Private key (PEM) of `tls_cert`.")
    timeout: Timeout = written("5s", description="Limit of connecting, asking and the whole of an answer.")
    max_concurrency: Concurrency = Field(default=8, description="Most requests to this Vault at one time.")
    allow_plain_http: PlainHttpToVault = Field(
        default=False,
        description="Allows `http://` to another machine, where everybody on the way can read tokens and secrets.",
    )
    auth: Auth = Field(
        description="How to log in.", examples=[{"method": "token", "token": {"file": "/run/secrets/aca/vault-token"}}]
    )

    @field_validator("auth")
    @classmethod
    def _has_certificate(cls, value: Auth, info: ValidationInfo) -> Auth:
        if isinstance(value, CertAuth) and info.data.get("tls_cert") == "":
            refuse(
                "logs in by a client certificate, and there is none",
                'add tls_cert and tls_key to the table above, such as tls_cert = "/run/secrets/aca/tls.crt"',
            )
        return value

    @property
    def addresses(self) -> tuple[str, ...]:
        """The nodes of the cluster, of which there is mostly one."""
        return (self.address,) if isinstance(self.address, str) else self.address
