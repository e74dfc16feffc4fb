"""The faults of the look-alike that are answers: whole wrong ones, and natural ones that are spoilt.

Each row of the failure table has its kind here; those that need the bare connection are in `connection.py`.
"""

from __future__ import annotations

import functools
import json
import zlib
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response

from aca_tokend.demo.authorization import oauth_error, unprocessable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.demo.levers import Fault

HTML = "text/html; charset=utf-8"
JSON = "application/json; charset=utf-8"
LOGIN_PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form method=post></form></body></html>"


def answer(fault: Fault, now: float) -> Response:
    """The whole answer of a fault, in place of the natural one. `now` is the server's clock."""
    response = _ANSWERS[fault.kind](fault)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = fault.retry_after
    elif fault.retry_after_date is not None:
        response.headers["Retry-After"] = formatdate(now + fault.retry_after_date, usegmt=True)
    return response


def spoil(fault: Fault, response: Response) -> Response:
    """The natural answer, spoilt."""
    return _SPOILERS[fault.kind](response)


def _page(status: int) -> Callable[[Fault], Response]:
    """A page as nginx writes it."""
    title = f"{status} {HTTPStatus(status).phrase}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return lambda _: Response(page, status, content_type=HTML)


def _empty(status: int) -> Callable[[Fault], Response]:
    return lambda _: Response(b"", status)


def _json(status: int) -> Callable[[Fault], Response]:
    body = json.dumps({"status": status, "error": HTTPStatus(status).phrase})
    return lambda _: Response(body, status, content_type=JSON)


def _oauth(code: str, status: int | None = None) -> Callable[[Fault], Response]:
    return lambda _: oauth_error(code, status)


def _redirect(status: int) -> Callable[[Fault], Response]:
    return lambda fault: Response(b"", status, {"Location": fault.location})


def _gzip_bomb(fault: Fault) -> Response:
    return Response(_bomb(fault.megabytes), 200, {"Content-Encoding": "gzip"}, content_type=JSON)


@functools.lru_cache(maxsize=2)
def _bomb(megabytes: int) -> bytes:
    """A small gzip stream of that many megabytes of white space, which is what may stand before any JSON."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    megabyte = b" " * 1_000_000
    return b"".join([*(packer.compress(megabyte) for _ in range(megabytes)), packer.flush()])


_ANSWERS: dict[str, Callable[[Fault], Response]] = {
    "invalid_grant": _oauth("invalid_grant"),
    "invalid_client": _oauth("invalid_client"),
    "unauthorized_client": _oauth("unauthorized_client"),
    "unauthorized_client_400": _oauth("unauthorized_client", 400),
    "invalid_scope": _oauth("invalid_scope"),
    "invalid_request": _oauth("invalid_request"),
    "unsupported_grant_type": _oauth("unsupported_grant_type"),
    "unprocessable_422": lambda _: unprocessable("username"),
    "server_error_500": _json(500),
    "rate_limited": lambda _: Response("Retry later\n", 429, content_type="text/plain"),
    "bad_gateway_html": _page(502),
    "bad_gateway_empty": _empty(502),
    "unavailable_html": _page(503),
    "unavailable_empty": _empty(503),
    "gateway_timeout_html": _page(504),
    "gateway_timeout_empty": _empty(504),
    "not_found": _empty(404),
    "bad_request_html": _page(400),
    "bad_request_json": _json(400),
    "redirect_301": _redirect(301),
    "redirect_302": _redirect(302),
    "redirect_307": _redirect(307),
    "redirect_308": _redirect(308),
    "html_200": lambda _: Response(LOGIN_PAGE, 200, content_type=HTML),
    "empty_200": _empty(200),
    "deep_json": lambda _: Response(b"[" * 200_000, 200, content_type=JSON),
    "gzip_bomb": _gzip_bomb,
    "answer": lambda fault: Response(fault.body, fault.status, fault.headers, content_type=fault.content_type),
}


def _truncated_json(response: Response) -> Response:
    response.set_data(response.get_data()[: len(response.get_data()) // 2])
    return response


def _not_utf8(response: Response) -> Response:
    response.set_data(response.get_data().replace(b'"access_token": "', b'"access_token": "\xff\xfe', 1))
    return response


def _wrong_content_type(response: Response) -> Response:
    response.headers["Content-Type"] = "text/plain"
    return response


def _wrong_charset(response: Response) -> Response:
    response.headers["Content-Type"] = "application/json; charset=utf-16"
    return response


def _duplicate_keys(response: Response) -> Response:
    response.set_data(response.get_data().replace(b"{", b'{"access_token": "the-first-of-two", "expires_in": 1, ', 1))
    return response


def _set_cookie(response: Response) -> Response:
    response.set_cookie("user", "a-cookie-that-must-not-come-back", path="/", httponly=True)
    return response


_SPOILERS: dict[str, Callable[[Response], Response]] = {
    "truncated_json": _truncated_json,
    "not_utf8": _not_utf8,
    "wrong_content_type": _wrong_content_type,
    "wrong_charset": _wrong_charset,
    "duplicate_keys": _duplicate_keys,
    "set_cookie": _set_cookie,
    "delay": lambda response: response,  # the wait comes before the answer is made
}
