"""Each fault of the look-alike does over real HTTP what its name says."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx
import pytest
from cheroot.wsgi import Server
from flask import Response

from aca_tokend.demo.child import wait_until
from aca_tokend.demo.connection import Connection, Player
from aca_tokend.demo.levers import ANSWER_KINDS, CONNECTION_KINDS, DELIVERY_KINDS, FAULT_KINDS, SPOILT_KINDS, Fault
from aca_tokend.demo.processes import LookAlike
from tests.lookalikes import FORM, LEVERS, ask, grant, read

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"


@pytest.fixture(scope="module")
def started() -> Iterator[LookAlike]:
    with LookAlike.start(LEVERS) as server:
        yield server


@pytest.fixture
def server(started: LookAlike) -> LookAlike:
    started.reset()
    return started


@pytest.fixture
def http_(server: LookAlike) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def line(server: LookAlike) -> Iterator[socket.socket]:
    """A bare connection to the look-alike."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        yield line


def send(line: socket.socket) -> None:
    """Sends a token request on a bare connection."""
    body = urlencode(FORM).encode()
    head = (
        "POST /auth/oauth/token HTTP/1.1\r\nHost: aca.example\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    line.sendall(head.encode() + body)


# the rows of the failure table: kind, status, content type, and a piece of the body ("" for an empty one)
TABLE = [
    ("invalid_grant", 400, JSON, '"invalid_grant"'),
    ("invalid_client", 401, JSON, '"invalid_client"'),
    ("unauthorized_client", 401, JSON, '"unauthorized_client"'),
    ("unauthorized_client_400", 400, JSON, '"unauthorized_client"'),
    ("invalid_scope", 400, JSON, '"invalid_scope"'),
    ("invalid_request", 400, JSON, '"invalid_request"'),
    ("unsupported_grant_type", 400, JSON, '"unsupported_grant_type"'),
    ("unprocessable_422", 422, "application/json", '"missing required parameter"'),
    ("server_error_500", 500, JSON, "Internal Server Error"),
    ("rate_limited", 429, "text/plain", "Retry later"),
    ("bad_gateway_html", 502, HTML, "502 Bad Gateway"),
    ("bad_gateway_empty", 502, HTML, ""),
    ("unavailable_html", 503, HTML, "nginx"),
    ("unavailable_empty", 503, HTML, ""),
    ("gateway_timeout_html", 504, HTML, "504"),
    ("gateway_timeout_empty", 504, HTML, ""),
    ("not_found", 404, HTML, ""),
    ("bad_request_html", 400, HTML, "400 Bad Request"),
    ("bad_request_json", 400, JSON, '{"status": 400, "error": "Bad Request"}'),
    ("html_200", 200, HTML, "Sign in"),
    ("empty_200", 200, HTML, ""),
    ("deep_json", 200, JSON, "[[[["),
]


@pytest.mark.parametrize(("kind", "status", "content_type", "piece"), TABLE, ids=[row[0] for row in TABLE])
def test_a_whole_answer_takes_the_place_of_the_natural_one(
    server: LookAlike, http_: httpx.Client, kind: str, status: int, content_type: str, piece: str
) -> None:
    """The row has its status, type and body, still with a request id and a date, and no token is minted."""
    server.fail(kind)

    answer = ask(http_)

    assert (answer.status_code, answer.headers["Content-Type"]) == (status, content_type)
    assert piece in answer.text if piece else answer.content == b""
    assert answer.headers["x-request-id"]
    assert answer.headers["Date"]
    counts = server.counts()
    assert (counts.grants, counts.faults) == (0, {kind: 1})
    assert counts.refused == ({"svc": 1} if status in {400, 401} else {})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_points_where_it_is_told(server: LookAlike, http_: httpx.Client, status: int) -> None:
    """Each redirect has its status and the location of the lever."""
    server.fail(f"redirect_{status}", location=f"{server.url}/elsewhere")

    answer = ask(http_)

    assert (answer.status_code, answer.headers["Location"]) == (status, f"{server.url}/elsewhere")


def test_retry_after_comes_in_both_forms(server: LookAlike, http_: httpx.Client) -> None:
    """`Retry-After` is any text, or an HTTP date counted from the server's clock."""
    server.fail("rate_limited", retry_after="30")
    assert ask(http_).headers["Retry-After"] == "30"

    server.levers(clock_stopped_at=1_800_000_000.0)
    server.fail("unavailable_empty", retry_after_date=60)
    assert ask(http_).headers["Retry-After"] == "Fri, 15 Jan 2027 08:01:00 GMT"


def test_any_answer_can_be_given(server: LookAlike, http_: httpx.Client) -> None:
    """`answer` has the status, body, type and headers of its details."""
    server.fail("answer", status=418, body="short", content_type="text/x-tea", headers={"X-Pot": "1"})

    answer = ask(http_)

    assert (answer.status_code, answer.text) == (418, "short")
    assert (answer.headers["Content-Type"], answer.headers["X-Pot"]) == ("text/x-tea", "1")


def test_a_gzip_bomb_is_small_until_it_is_unpacked(server: LookAlike, http_: httpx.Client) -> None:
    """The body is a thousandth of what it grows to."""
    server.fail("gzip_bomb", megabytes=20)

    with http_.stream("POST", "/auth/oauth/token", data=FORM) as answer:
        packed = b"".join(answer.iter_raw())

    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(packed) < 25_000
    assert len(gzip.decompress(packed)) == 20_000_000


def test_truncated_json_is_whole_to_http(server: LookAlike, http_: httpx.Client) -> None:
    """The length in the header is that of the cut text, which is no JSON."""
    server.fail("truncated_json")

    answer = ask(http_)

    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_bytes_that_are_no_utf8(server: LookAlike, http_: httpx.Client) -> None:
    """The JSON holds bytes that are not UTF-8."""
    server.fail("not_utf8")

    with pytest.raises(UnicodeDecodeError):
        ask(http_).content.decode()


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [("wrong_content_type", "text/plain"), ("wrong_charset", "application/json; charset=utf-16")],
)
def test_a_lying_header_over_a_good_body(server: LookAlike, http_: httpx.Client, kind: str, content_type: str) -> None:
    """The body is the natural JSON and its token works; only the header says otherwise."""
    server.fail(kind)

    answer = ask(http_)

    assert answer.headers["Content-Type"] == content_type
    token = json.loads(answer.content)["access_token"]
    assert read(http_, f"Bearer {token}") == 200


def test_duplicate_keys_come_twice(server: LookAlike, http_: httpx.Client) -> None:
    """Two keys stand twice with different values; the later ones are the true ones."""
    server.fail("duplicate_keys")

    answer = ask(http_)

    assert answer.text.count('"access_token"') == answer.text.count('"expires_in"') == 2
    assert read(http_, f"Bearer {answer.json()['access_token']}") == 200


def test_a_cookie_is_set_beside_the_token(server: LookAlike, http_: httpx.Client) -> None:
    """The natural answer comes with a cookie."""
    server.fail("set_cookie")

    answer = ask(http_)

    assert "user=" in answer.headers["Set-Cookie"]
    assert answer.json()["access_token"]


def test_a_delay_comes_before_the_natural_answer(server: LookAlike, http_: httpx.Client) -> None:
    """`delay` changes nothing about the answer; it is counted and may be on any part of the server."""
    server.fail("delay", seconds=0, on="any")

    assert read(http_, f"Bearer {grant(http_)['access_token']}") == 200
    assert server.counts().faults == {"delay": 2}


def test_a_hanging_request_gets_no_answer(server: LookAlike, line: socket.socket) -> None:
    """`hang` accepts, counts the request as in flight, and answers nothing until a reset closes the connection."""
    server.fail("hang")
    send(line)
    wait_until(lambda: server.counts().in_flight == 1, "the hanging request")

    server.reset()

    assert line.recv(100) == b""


def test_a_request_on_its_way_to_its_fault_is_ended_by_a_reset() -> None:
    """A request that came in before all plays were ended, and hangs only afterwards, is ended as they were."""
    player = Player()
    came_in, ended = player.round, threading.Event()
    ours, theirs = socket.socketpair()
    connection = Connection(Server(("127.0.0.1", 0), None), theirs)

    player.release_all()
    with ours:
        ours.settimeout(60)
        player.play(connection, Fault(kind="hang"), Response(), came_in, at_end=ended.set)

        assert ours.recv(100) == b""
        assert ended.wait(60)


def test_hanging_requests_take_no_thread_of_the_others(server: LookAlike, http_: httpx.Client) -> None:
    """With more requests hanging than the server has threads it still answers, and forgets them when they leave."""
    server.fail("hang", username="svc")
    lines = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(100)]
    for line in lines:
        send(line)
    wait_until(lambda: server.counts().in_flight == 100, "100 hanging requests")

    assert ask(http_, username="another").status_code == 400

    for line in lines:
        line.close()
    wait_until(lambda: server.counts().in_flight == 0, "the end of all requests")
    assert server.counts().max_in_flight == 101


def test_a_reset_is_a_reset(server: LookAlike, line: socket.socket) -> None:
    """`reset` breaks the connection with an RST, without a byte."""
    server.fail("reset")
    send(line)

    with pytest.raises(ConnectionResetError):
        line.recv(100)


def test_a_close_is_without_a_word(server: LookAlike, line: socket.socket) -> None:
    """`close` ends the connection in order, without a byte."""
    server.fail("close")
    send(line)

    assert line.recv(100) == b""


def test_a_cut_body_is_shorter_than_promised(server: LookAlike) -> None:
    """`cut_body` closes the connection in the middle of the natural body."""
    server.fail("cut_body")
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request(
            "POST", "/auth/oauth/token", urlencode(FORM), {"Content-Type": "application/x-www-form-urlencoded"}
        )
        answer = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()

    assert answer.status == 200
    assert cut.value.partial.startswith(b'{"access_token": "')
    assert server.counts().grants == 1, "the server believes that it granted a token"


@pytest.mark.parametrize("kind", ["drip_headers", "drip_body"])
def test_a_drip_gives_the_whole_answer_in_the_end(server: LookAlike, http_: httpx.Client, kind: str) -> None:
    """A drip is the natural answer, byte by byte."""
    server.fail(kind, seconds=0)

    assert ask(http_).json()["token_type"] == "bearer"


def test_a_header_drips_byte_by_byte(server: LookAlike, line: socket.socket) -> None:
    """`drip_headers` begins with the first byte of the status line and has more to come."""
    server.fail("drip_headers", seconds=0.2)
    send(line)

    assert b"HTTP/1.1 200 OK\r\n".startswith(line.recv(16)[:1])
    assert server.counts().in_flight == 1
    server.reset()


def test_a_body_drips_byte_by_byte(server: LookAlike, line: socket.socket) -> None:
    """`drip_body` sends the whole header at once and keeps the body back."""
    server.fail("drip_body", seconds=60)
    send(line)

    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += line.recv(1000)

    assert b"Content-Type: application/json" in received
    assert server.counts().in_flight == 1
    server.reset()


def test_a_body_that_never_ends(server: LookAlike, http_: httpx.Client) -> None:
    """`endless_body` sends on until the client leaves."""
    server.fail("endless_body")

    received = 0
    with http_.stream("POST", "/auth/oauth/token", data=FORM) as answer:
        for chunk in answer.iter_raw():
            received += len(chunk)
            if received > 5_000_000:
                break

    assert received > 5_000_000
    wait_until(lambda: server.counts().in_flight == 0, "the end of the request")


def test_a_huge_body_has_the_promised_length(server: LookAlike, http_: httpx.Client) -> None:
    """`huge_body` is as long as its header says."""
    server.fail("huge_body", megabytes=3)

    answer = ask(http_)

    assert len(answer.content) == int(answer.headers["Content-Length"]) == 3_000_000


def test_a_fault_is_over_after_its_count(server: LookAlike, http_: httpx.Client) -> None:
    """A `count` of two happens twice, other levers moved meanwhile notwithstanding."""
    server.fail("unavailable_empty", count=2)
    first = ask(http_).status_code
    server.levers(token_type="Bearer")

    assert [first, ask(http_).status_code, ask(http_).status_code] == [503, 503, 200]


def test_a_fault_may_be_for_one_user(server: LookAlike, http_: httpx.Client) -> None:
    """A fault with a username happens to that user's token requests, and to reads with its tokens."""
    server.levers(accounts={"other": LEVERS["accounts"]["svc"]})
    tokens = [ask(http_, username=name).json()["access_token"] for name in ("svc", "other")]
    server.fail("server_error_500", username="svc", on="any")

    assert [ask(http_, username=name).status_code for name in ("svc", "other")] == [500, 200]
    assert [read(http_, f"Bearer {token}") for token in tokens] == [500, 200]


def test_a_fault_may_happen_now_and_then(server: LookAlike, http_: httpx.Client) -> None:
    """A `share` of one half happens to some requests and not to others."""
    server.fail("not_found", share=0.5)

    statuses = {ask(http_).status_code for _ in range(64)}

    assert statuses == {200, 404}


@pytest.mark.parametrize(
    ("area", "expected"), [("token", [404, 200, 200]), ("authority", [200, 404, 200]), ("api", [200, 200, 404])]
)
def test_a_fault_stays_in_its_part_of_the_server(
    server: LookAlike, http_: httpx.Client, area: str, expected: list[int]
) -> None:
    """`on` names the part of the server that fails."""
    token = grant(http_)["access_token"]
    server.fail("not_found", on=area)

    found = [ask(http_).status_code, http_.get("/auth/authority").status_code, read(http_, f"Bearer {token}")]

    assert found == expected


def test_several_faults_follow_each_other(server: LookAlike, http_: httpx.Client) -> None:
    """Of several faults the first that fits happens, and `heal` takes all away."""
    server.levers(
        faults=[
            {"kind": "not_found", "count": 1},
            {"kind": "bad_gateway_empty", "count": 1},
            {"kind": "server_error_500"},
        ]
    )
    statuses = [ask(http_).status_code for _ in range(4)]
    server.heal()

    assert statuses == [404, 502, 500, 500]
    assert ask(http_).status_code == 200


def test_requests_at_once_do_not_disturb_each_other(server: LookAlike) -> None:
    """Grants from several threads are all answered, each with a token of its own, and all counted."""
    tokens: list[str] = []

    def run() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            tokens.extend([grant(client)["access_token"] for _ in range(20)])

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counts = server.counts()
    assert len(set(tokens)) == counts.grants == counts.tokens_held == 120
    assert counts.in_flight == 0


def test_every_kind_of_fault_is_tested_here() -> None:
    """The kinds of the levers are those of this file, and no kind is of two sorts."""
    tested = {row[0] for row in TABLE} | {f"redirect_{status}" for status in (301, 302, 307, 308)}
    tested |= {"answer", "gzip_bomb"} | SPOILT_KINDS | DELIVERY_KINDS | CONNECTION_KINDS

    assert tested == FAULT_KINDS
    assert sum(map(len, (ANSWER_KINDS, SPOILT_KINDS, DELIVERY_KINDS, CONNECTION_KINDS))) == len(FAULT_KINDS)
