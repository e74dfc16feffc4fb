"""The look-alike's own behaviour over real HTTP: whom it gives tokens, what they look like, and how long they work."""

from __future__ import annotations

import base64
import json
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from aca_tokend.demo.processes import LookAlike
from tests.lookalikes import FORM, LEVERS, ask, grant, read, self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = 1_800_000_000.25


@pytest.fixture(scope="module")
def started() -> Iterator[LookAlike]:
    with LookAlike.start(LEVERS) as server:
        yield server


@pytest.fixture
def server(started: LookAlike) -> LookAlike:
    started.reset()
    return started


@pytest.fixture
def http(server: LookAlike) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


def test_a_right_request_gets_the_token_answer_of_a_newer_server(server: LookAlike, http: httpx.Client) -> None:
    """The answer has the documented fields, forbids caching and carries a request id and a date."""
    server.levers(clock_stopped_at=NOON)

    answer = ask(http)

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
    assert answer.headers["x-request-id"] != ask(http).headers["x-request-id"]
    body = answer.json()
    token = body.pop("access_token")
    assert len(token) == 43
    assert body == {"token_type": "bearer", "expires_in": 7200, "scope": "public", "created_at": 1_800_000_000}


def test_a_plain_answer_has_the_fields_of_the_seed_document_alone(server: LookAlike, http: httpx.Client) -> None:
    """With `plain_answer` there is neither scope nor created_at."""
    server.levers(plain_answer=True, token_kind="hex", token_type="Bearer")

    body = grant(http)

    assert set(body) == {"access_token", "token_type", "expires_in"}
    assert len(bytes.fromhex(body["access_token"])) == 32
    assert body["token_type"] == "Bearer"


def test_a_jwt_carries_its_times_and_may_be_large(server: LookAlike, http: httpx.Client) -> None:
    """A JWT is signed with RS256, tells whole seconds, and is padded to the size asked for."""
    server.levers(token_kind="jwt", lifetime=60, jwt_padding=3000, clock_stopped_at=NOON)

    body = grant(http)
    token = body["access_token"]

    header, payload = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    assert header["alg"] == "RS256"
    assert (payload["iat"], payload["exp"]) == (1_800_000_000, 1_800_000_060)
    assert body["expires_in"] == 60
    assert len(token) > 4000
    assert read(http, f"Bearer {token}") == 200
    server.levers(clock_stopped_at=1_800_000_060.0)
    assert read(http, f"Bearer {token}") == 401


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        pytest.param({"password": "wrong"}, 400, "invalid_grant", id="wrong password"),
        pytest.param({"username": "nobody"}, 400, "invalid_grant", id="unknown user"),
        pytest.param({"username": "locked"}, 400, "invalid_grant", id="locked user"),
        pytest.param({"client_id": "other"}, 401, "invalid_client", id="unknown client"),
        pytest.param({"client_id": None}, 401, "invalid_client", id="no client"),
        pytest.param({"client_secret": "wrong"}, 401, "invalid_client", id="wrong secret"),
        pytest.param({"client_secret": None}, 401, "invalid_client", id="no secret"),
        pytest.param({"client_id": "no-grant"}, 401, "unauthorized_client", id="client without the grant"),
        pytest.param({"scope": "public root"}, 400, "invalid_scope", id="scope of another"),
        pytest.param({"password": None}, 400, "invalid_request", id="no password"),
        pytest.param({"grant_type": None}, 400, "invalid_request", id="no grant type"),
        pytest.param({"grant_type": "refresh_token"}, 400, "unsupported_grant_type", id="another grant type"),
        pytest.param({"username": None}, 500, "Internal Server Error", id="no username"),
    ],
)
def test_a_wrong_request_is_refused_as_the_real_server_does(
    http: httpx.Client, changes: dict[str, str | None], status: int, error: str
) -> None:
    """Each row of the failure table that a request can cause has its status and its code, and no token."""
    answer = ask(http, **changes)

    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "access_token" not in answer.text
    if status != 500:
        assert f'error="{error}"' in answer.headers["WWW-Authenticate"]


def test_every_reason_to_refuse_a_user_has_the_same_text(server: LookAlike, http: httpx.Client) -> None:
    """Nothing tells a wrong password from an unknown user, a locked one or an unknown Host."""
    server.levers(tenants=["aca.example.com"])

    texts = {
        ask(http, "aca.example.com", password="wrong").text,
        ask(http, "aca.example.com", username="nobody").text,
        ask(http, "aca.example.com", username="locked").text,
        ask(http, "other.example.com").text,
    }

    assert len(texts) == 1


def test_a_scope_of_the_application_is_granted(http: httpx.Client) -> None:
    """An allowed scope comes back in the answer."""
    assert ask(http, scope="admin public").json()["scope"] == "admin public"


def test_json_and_credentials_in_the_query_are_refused(http: httpx.Client) -> None:
    """Only a form will do: JSON gets the newer server's 422, and a query string is an invalid request."""
    as_json = http.post("/auth/oauth/token", json=FORM)
    in_query = http.post("/auth/oauth/token", params=FORM)

    assert as_json.status_code == 422
    assert set(as_json.json()) == {"error", "parameter", "restriction"}
    assert (in_query.status_code, in_query.json()["error"]) == (400, "invalid_request")


def test_get_and_unknown_paths_are_an_empty_404(http: httpx.Client) -> None:
    """A wrong path or method gets 404 without a body."""
    answers = [http.get("/auth/oauth/token"), http.get("/nowhere"), http.post("/")]

    assert [(answer.status_code, answer.content) for answer in answers] == [(404, b"")] * 3


@pytest.mark.parametrize(
    ("lever", "expected"),
    [
        pytest.param({"value": 0}, 0, id="zero"),
        pytest.param({"value": -5}, -5, id="negative"),
        pytest.param({"value": 10**30}, 10**30, id="huge"),
        pytest.param({"value": "3600"}, "3600", id="text"),
        pytest.param({"value": True}, True, id="true"),
        pytest.param({"value": None}, None, id="null"),
        pytest.param({"value": 1.5}, 1.5, id="fraction"),
        pytest.param({"value": [1]}, [1], id="list"),
    ],
)
def test_expires_in_can_be_any_json_value(
    server: LookAlike, http: httpx.Client, lever: object, expected: object
) -> None:
    """`expires_in` says what the lever says, whatever the lifetime is."""
    server.levers(expires_in=lever)

    assert grant(http)["expires_in"] == expected


def test_expires_in_can_be_left_out(server: LookAlike, http: httpx.Client) -> None:
    """An empty lever leaves `expires_in` out, and None brings the natural one back."""
    server.levers(expires_in={})
    assert "expires_in" not in grant(http)

    server.levers(expires_in=None)
    assert grant(http)["expires_in"] == 7200


def test_a_token_works_until_exactly_its_lifetime_is_over(server: LookAlike, http: httpx.Client) -> None:
    """`expires_in` is rounded while the API refuses the token from issue plus lifetime on, to the fraction."""
    server.levers(lifetime=2.5625, clock_stopped_at=1000.25)
    body = grant(http)
    bearer = f"Bearer {body['access_token']}"
    assert body["expires_in"] == 3

    server.levers(clock_stopped_at=1000.25 + 2.5)
    assert read(http, bearer) == 200
    server.levers(clock_stopped_at=1000.25 + 2.5625)
    assert read(http, bearer) == 401
    assert server.counts().reads_refused_because == {"expired": 1}


def test_the_clock_can_be_ahead(server: LookAlike, http: httpx.Client) -> None:
    """`clock_offset` moves the server's date and the times of its tokens."""
    server.levers(clock_stopped_at=1000.0, clock_offset=120.0)

    answer = ask(http)

    assert answer.headers["Date"] == "Thu, 01 Jan 1970 00:18:40 GMT"
    assert answer.json()["created_at"] == 1120


def test_the_api_wants_the_exact_prefix(http: httpx.Client) -> None:
    """`Bearer TOKEN` is accepted by both generations' paths; `bearer`, none and a made-up token are refused."""
    token = grant(http)["access_token"]

    for path in ("/api/engine/v2/users/current", "/api/control/systems"):
        assert read(http, f"Bearer {token}", path) == 200
        assert read(http, f"bearer {token}", path) == 401
        assert read(http, "Bearer made-up", path) == 401
        assert http.get(path).status_code == 401


def test_a_log_out_kills_the_tokens_of_its_second(server: LookAlike, http: httpx.Client) -> None:
    """Tokens issued up to the end of the log-out's second are refused as logged out, a later one works."""
    server.levers(clock_stopped_at=1000.0)
    before = grant(http)["access_token"]
    server.log_out("svc")
    server.levers(clock_stopped_at=1000.75)
    same_second = grant(http)["access_token"]
    server.levers(clock_stopped_at=1001.0)
    after = grant(http)["access_token"]

    refused = [
        http.get("/api/engine/v2/users/current", headers={"Authorization": f"Bearer {token}"})
        for token in (before, same_second)
    ]

    assert [(answer.status_code, answer.json()) for answer in refused] == [(401, {"error": "logged out"})] * 2
    assert read(http, f"Bearer {after}") == 200


def test_a_token_can_be_handed_out_again(server: LookAlike, http: httpx.Client) -> None:
    """With `reuse_access_token` the same token comes with what is left of it, and a new one once it is over."""
    server.levers(reuse_access_token=True, lifetime=100, clock_stopped_at=1000.0)
    first = grant(http)
    server.levers(clock_stopped_at=1099.0)
    second = grant(http)
    server.levers(clock_stopped_at=1100.0)
    third = grant(http)

    assert second["access_token"] == first["access_token"] != third["access_token"]
    assert [answer["expires_in"] for answer in (first, second, third)] == [100, 1, 100]


def test_two_grants_leave_both_tokens_valid(http: httpx.Client) -> None:
    """A password grant does not revoke the token before it."""
    tokens = [grant(http)["access_token"] for _ in range(2)]

    assert [read(http, f"Bearer {token}") for token in tokens] == [200, 200]


def test_a_refresh_token_comes_when_asked_for(server: LookAlike, http: httpx.Client) -> None:
    """`refresh_token` is in the answer only with its lever."""
    assert "refresh_token" not in grant(http)

    server.levers(refresh_token=True)
    assert len(grant(http)["refresh_token"]) == 43


def test_the_tenant_is_taken_from_the_host(server: LookAlike, http: httpx.Client) -> None:
    """Only known Hosts have an authority and get tokens, whatever port they name, and a token works on its own."""
    server.levers(tenants=["aca.example.com", "b.example.com"])

    token = grant(http, "ACA.example.com:8443")["access_token"]

    assert read(http, f"Bearer {token}", host="aca.example.com") == 200
    assert read(http, f"Bearer {token}", host="b.example.com") == 401
    authority = http.get("/auth/authority", headers={"Host": "aca.example.com"})
    assert (authority.status_code, authority.json()["domain"]) == (200, "aca.example.com")
    unknown = http.get("/auth/authority", headers={"Host": "c.example.com"})
    assert (unknown.status_code, unknown.content) == (404, b"")


def test_a_changed_password_does_not_kill_tokens(server: LookAlike, http: httpx.Client) -> None:
    """After a change of the password the old one is refused while its token goes on working."""
    token = grant(http)["access_token"]
    server.levers(accounts={"svc": {"password": "another"}})

    assert ask(http).status_code == 400
    assert ask(http, password="another").status_code == 200
    assert read(http, f"Bearer {token}") == 200


def test_it_serves_https(tmp_path: Path) -> None:
    """With a certificate and its key everything goes over TLS, the levers too."""
    certificate, key = self_signed(tmp_path)
    with LookAlike.start(LEVERS, tls=(certificate, key)) as server:
        server.levers(token_type="Bearer")
        trust = ssl.create_default_context(cafile=certificate)
        answer = httpx.post(f"{server.url}/auth/oauth/token", data=FORM, verify=trust, trust_env=False, timeout=60)

    assert server.url.startswith("https://")
    assert answer.json()["token_type"] == "Bearer"
