"""How to log in to a Vault: for each method what is sent, what its answers mean, and what a person can do about them.

One request a function. Secrets are resolved anew for each log-in. Nothing here is sent twice, and nobody is told: when
to log in, renew and give up is token.py.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.config import (
    AppRoleAuth,
    CertAuth,
    JwtAuth,
    KubernetesAuth,
    LdapAuth,
    PublicFileReference,
    TokenAuth,
    UserpassAuth,
)
from aca_tokend.core.login import TokenLife, Verdict
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.vault_answers import login_of, own_token_of, renewal_of
from aca_tokend.vault.client import RequestFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import hvac

    from aca_tokend.core.config import Reference, VaultConfig
    from aca_tokend.core.login import OwnToken

    Connect = Callable[[Secret | None], hvac.Client]
    Resolve = Callable[[Reference], Secret]

# How Vault answers, in one way or another, to a log-in that it refuses.
REFUSED = frozenset(
    {Reason.REQUEST_REFUSED, Reason.PERMISSION_DENIED, Reason.MOUNT_MISSING, Reason.NOT_FOUND, Reason.NOT_JSON}
)
_NOTHING_THERE = frozenset({Reason.MOUNT_MISSING, Reason.NOT_FOUND})

# What to look at when Vault refuses; its own words stay in its log, because they may repeat what was sent.
_CHECK = {
    "token": "it is expired, revoked or of another Vault or namespace; put a valid one where the reference points",
    "approle": "check role_id, and whether secret_id is expired, used up or bound to other addresses",
    "kubernetes": (
        "check that the role is there and bound to this service account, its namespace and the audience of its token, "
        "and that Vault may review tokens"
    ),
    "jwt": "check that the role is there, and which issuer, audience, subject and claims it asks for",
    "cert": "check that the role is there and trusts the certificate in tls_cert, and that TLS ends at Vault itself",
    "userpass": "check username and password",
    "ldap": "check username and password, and that Vault can reach the directory",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a log-in sends: `fields` to `path`, or for the method token just a token.

    `public` are values that are no secrets, `secret` those that are.
    """

    path: str
    public: dict[str, str] = field(default_factory=dict)
    secret: dict[str, Secret] = field(default_factory=dict, repr=False)

    @property
    def credential(self) -> tuple[Secret, ...]:
        """What tells this log-in from another."""
        return (Secret(self.path), *(Secret(value) for value in self.public.values()), *self.secret.values())


@dataclass(slots=True, eq=False)
class Login:
    """A log-in that succeeded. Threads ask whether it is still the latest: one equals only itself.

    Attributes:
        client: carries its token.
        life: how long it lives, as Vault last said.
        credential: the fingerprint of what it was made with.
        revocable: whether the token is ours to revoke.
    """

    client: hvac.Client
    life: TokenLife
    credential: str
    revocable: bool


def prepare(config: VaultConfig, resolve: Resolve) -> Request:
    """What the next log-in will send. Raises SecretError."""
    match config.auth:
        case TokenAuth() as auth:
            return Request("", secret={"token": resolve(auth.token)})
        case AppRoleAuth() as auth:
            role = {"role_id": _text(auth.role_id, resolve)}
            return Request(_path(auth.mount), role, {"secret_id": resolve(auth.secret_id)})
        case KubernetesAuth() | JwtAuth() as auth:
            jwt = resolve(PublicFileReference(file=auth.jwt_file))
            return Request(_path(auth.mount), {"role": auth.role} if auth.role else {}, {"jwt": jwt})
        case CertAuth() as auth:
            # it is the connection that shows it; it is read here to notice another one
            certificate = resolve(PublicFileReference(file=config.tls_cert)).reveal()
            return Request(_path(auth.mount), {"name": auth.role} if auth.role else {}, {"": Secret(certificate)})
        case UserpassAuth() | LdapAuth() as auth:
            user = urllib.parse.quote(_text(auth.username, resolve), safe="")
            return Request(f"{_path(auth.mount)}/{user}", secret={"password": resolve(auth.password)})


def _path(mount: str) -> str:
    return f"/v1/auth/{mount}/login"


def _text(value: str | Reference, resolve: Resolve) -> str:
    return value if isinstance(value, str) else resolve(value).reveal()


def log_in(request: Request, credential: str, connect: Connect, now: Callable[[], float]) -> Login:
    """Asks Vault for a token, or what it says of the one that we were given. Raises RequestFailedError."""
    asked_at = now()
    if not request.path:
        client = connect(request.secret["token"])
        return Login(client, _life_of_given(client, asked_at), credential, revocable=False)
    secrets = {name: secret.reveal() for name, secret in request.secret.items() if name}
    gave = login_of(connect(None).adapter.post(request.path, json=request.public | secrets))
    if gave is None:
        raise RequestFailedError(Reason.NOT_JSON, "the answer holds no token")
    life = TokenLife(asked_at, gave.seconds or None, gave.renewable)
    return Login(connect(gave.token), life, credential, revocable=not gave.batch)


def renew(login: Login, now: Callable[[], float]) -> TokenLife:
    """Asks for more life. Raises RequestFailedError."""
    asked_at = now()
    renewal = renewal_of(login.client.adapter.post("/v1/auth/token/renew-self"))
    if renewal is None:
        raise RequestFailedError(Reason.NOT_JSON, "the answer tells nothing of the token")
    return login.life.renewed(TokenLife(asked_at, *renewal))


def revoke(login: Login) -> None:
    """Ends our token. Raises RequestFailedError."""
    login.client.auth.token.revoke_self()


def own_token(client: hvac.Client, wall: Callable[[], float]) -> OwnToken:
    """What Vault says of our token. Raises RequestFailedError."""
    asked_at = wall()
    token = own_token_of(client.auth.token.lookup_self(), asked_at)
    if token is None:
        raise RequestFailedError(Reason.NOT_JSON, "the answer tells nothing of the token")
    return token


def _life_of_given(client: hvac.Client, asked_at: float) -> TokenLife:
    token = own_token(client, lambda: 0.0)
    return TokenLife(asked_at, token.ttl_seconds, token.renewable)


def verdict(config: VaultConfig, failed: RequestFailedError) -> Verdict:
    """What a failed log-in says of its credential."""
    if failed.reason not in REFUSED:
        return Verdict.UNAVAILABLE
    # a 403 comes before the credential is looked at: nothing is mounted there, or the user is locked out already
    looked_at = failed.reason is Reason.REQUEST_REFUSED
    can_be_locked_out = isinstance(config.auth, AppRoleAuth | UserpassAuth | LdapAuth)
    return Verdict.REJECTED if looked_at and can_be_locked_out else Verdict.REFUSED


def explained(config: VaultConfig, failed: RequestFailedError) -> str:
    """What happened, and what to look at where Vault refused."""
    if failed.reason in _NOTHING_THERE:
        return f"{failed.message}; check mount and namespace, and that the method is enabled there"
    if failed.reason in REFUSED:
        return f"{failed.message}; {_CHECK[config.auth.method]}"
    return failed.message


def place(config: VaultConfig) -> str:
    """The log-in as messages call it."""
    auth = config.auth
    return auth.method if isinstance(auth, TokenAuth) else f"{auth.method} at auth/{auth.mount}"
