"""The token endpoint of the look-alike: Authlib's password grant, with the texts and statuses of a Doorkeeper provider.

It decides who gets a token and mints it. It never tells a wrong password from an unknown user, a locked one or an
unknown Host: the real servers do not either.
"""

from __future__ import annotations

import functools
import hmac
import json
import secrets
import uuid
from typing import TYPE_CHECKING, Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidScopeError,
    ResourceOwnerPasswordCredentialsGrant,
)
from flask import Response, request
from joserfc import jwt
from joserfc.jwk import RSAKey

from aca_tokend.demo.records import Issued

if TYPE_CHECKING:
    from flask import Flask

    from aca_tokend.demo.levers import Client, Levers
    from aca_tokend.demo.state import State

DESCRIPTIONS = {
    "invalid_grant": (
        "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the "
        "authorization request, or was issued to another client."
    ),
    "invalid_client": (
        "Client authentication failed due to unknown client, no client authentication included, or unsupported "
        "authentication method."
    ),
    "unauthorized_client": "The client is not authorized to perform this request using this method.",
    "invalid_scope": "The requested scope is invalid, unknown, or malformed.",
    "invalid_request": "The request is missing a required parameter, or is otherwise malformed.",
    "unsupported_grant_type": "The authorization grant type is not supported by the authorization server.",
}
STATUSES = {"invalid_client": 401, "unauthorized_client": 401}
INTERNAL_ERROR = json.dumps({"status": 500, "error": "Internal Server Error"})
CREDENTIALS = ("username", "password", "client_id", "client_secret")


def oauth_error(code: str, status: int | None = None) -> Response:
    """An OAuth error as Doorkeeper words it, `WWW-Authenticate` included, which comes with a 400 too."""
    description = DESCRIPTIONS[code]
    response = Response(
        json.dumps({"error": code, "error_description": description}),
        status or STATUSES.get(code, 400),
        content_type="application/json; charset=utf-8",
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers["WWW-Authenticate"] = (
        f'Bearer realm="Doorkeeper", error="{code}", error_description="{description}"'
    )
    return response


def unprocessable(parameter: str) -> Response:
    """The answer of the newer server to a form that lacks a parameter, or is none."""
    problem = {"error": "missing required parameter", "parameter": parameter, "restriction": "String"}
    return Response(json.dumps(problem), 422, content_type="application/json")


class KnownClient:
    """An application in the form that Authlib asks for."""

    def __init__(self, client_id: str, client: Client) -> None:
        self.client_id = client_id
        self._client = client

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether this is the secret."""
        return _same(client_secret, self._client.secret.get_secret_value())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Only a secret in the form will do."""
        return (method, endpoint) == ("client_secret_post", "token")

    def check_grant_type(self, _grant_type: str) -> bool:
        """Whether the application may use the password grant, the only one there is."""
        return self._client.password_grant

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """The scope to grant, None where the application may not have it."""
        if not scope:
            return self._client.scopes[0]
        return scope if set(scope.split()) <= set(self._client.scopes) else None


class PasswordGrant(ResourceOwnerPasswordCredentialsGrant):  # type: ignore[misc]  # Authlib publishes no types
    """The password grant, with the client's secret in the form."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

    def authenticate_user(self, username: str, password: str) -> str:
        """The user, if everything about it is right."""
        state: State = self.server.state
        account = state.levers.accounts.get(username)
        if account is None or account.locked or not _same(password, account.password.get_secret_value()):
            raise InvalidGrantError
        if not state.knows_host(request.host):
            raise InvalidGrantError
        return username

    def validate_requested_scope(self) -> None:
        """Refuses a scope that the application does not have."""
        if self.request.client.get_allowed_scope(self.request.payload.scope) is None:
            raise InvalidScopeError


class TokenEndpoint(AuthorizationServer):  # type: ignore[misc]  # Authlib publishes no types
    """Authlib's authorization server over the look-alike's state."""

    def __init__(self, app: Flask, state: State) -> None:
        super().__init__(app)
        self.state = state
        self.register_grant(PasswordGrant)
        self.register_token_generator("default", functools.partial(_mint, state))

    def answer(self) -> Response:
        """Answers a token request: what Authlib has no say in first."""
        if request.is_json:
            return unprocessable("grant_type")
        if any(name in request.args for name in CREDENTIALS) or "grant_type" not in request.form:
            return oauth_error("invalid_request")
        if request.form["grant_type"] == "password" and "username" not in request.form:
            # the real server looks the user up before it looks at the parameters, and stumbles
            return Response(INTERNAL_ERROR, 500, content_type="application/json; charset=utf-8")
        response: Response = self.create_token_response()
        return response

    def query_client(self, client_id: str) -> KnownClient | None:
        """The application of this id."""
        client = self.state.levers.clients.get(client_id)
        return None if client is None else KnownClient(client_id, client)

    def save_token(self, token: object, request: object) -> None:
        """Nothing is left to do: the mint has noted the token."""

    def handle_error_response(self, request: object, error: Any) -> Response:  # noqa: ANN401, ARG002 - Authlib's own
        """Every error in the words of Doorkeeper."""
        return oauth_error(error.error)


def _mint(state: State, *, client: KnownClient, user: str, scope: str | None, **_: object) -> dict[str, object]:
    """A token with the answer that goes with it, in the order of the real one."""
    levers, now, host = state.levers, state.now(), state.tenant(request.host)
    scope = client.get_allowed_scope(scope) or ""
    owner = (host, user, client.client_id, scope)
    kept = state.tokens.reusable(owner, now) if levers.reuse_access_token else None
    if kept is None:
        token, issued = _new_token(levers, owner, now)
        state.tokens.remember(token, issued, now)
        if levers.reuse_access_token:
            state.tokens.keep_for_reuse(owner, token, issued)
    else:
        token, issued = kept
    state.traffic.granted(user)
    answer: dict[str, object] = {"access_token": token, "token_type": levers.token_type}
    if levers.expires_in is None:
        answer["expires_in"] = round(issued.issued_at + issued.lifetime - now)
    elif "value" in levers.expires_in:
        answer["expires_in"] = levers.expires_in["value"]
    if levers.refresh_token:
        answer["refresh_token"] = secrets.token_urlsafe(32)
    if not levers.plain_answer:
        answer |= {"scope": scope, "created_at": int(issued.issued_at)}
    return answer


def _new_token(levers: Levers, owner: tuple[str, str, str, str], now: float) -> tuple[str, Issued]:
    host, username, client_id, scope = owner
    match levers.token_kind:
        case "opaque":
            return secrets.token_urlsafe(32), Issued(username, host, now, levers.lifetime, now + levers.lifetime)
        case "hex":
            return secrets.token_hex(32), Issued(username, host, now, levers.lifetime, now + levers.lifetime)
        case "jwt":
            # the API goes by what the JWT says, which is in whole seconds
            issued = Issued(username, host, now, levers.lifetime, int(now + levers.lifetime))
            return _signed(issued, client_id, scope, levers.jwt_padding), issued


def _signed(issued: Issued, client_id: str, scope: str, padding: int) -> str:
    """An RS256 JWT with the claims of a PlaceOS token, and as many further characters as wanted."""
    claims = {
        "iss": "POS",
        "iat": int(issued.issued_at),
        "exp": issued.expires_at,
        "jti": str(uuid.uuid4()),
        "aud": issued.host,
        "scope": scope.split(),
        "sub": f"user-{issued.username}",
        "azp": client_id,
        "u": {"n": issued.username, "e": f"{issued.username}@example.com", "p": 0, "r": ["services"]},
    }
    if padding:
        claims["padding"] = secrets.token_hex(padding // 2 + 1)[:padding]
    return jwt.encode({"alg": "RS256", "typ": "JWT"}, claims, _signing_key())


@functools.cache
def _signing_key() -> RSAKey:
    """Made when the first JWT is minted: it takes a moment, and most tests need none."""
    return RSAKey.generate_key(2048)


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(), known.encode())
