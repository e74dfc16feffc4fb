"""The status API: JSON for programs. It shows what it is handed and decides nothing; docs/status.md is its contract."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from flask import Response, request

from aca_tokend.core.status import ERROR, STATUS, TOKEN, ApiError, ErrorPage, QueryError, parse_query, schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from aca_tokend.core.status import Query, StatusPage, TokenPage

ROOT = "/api/v1"


def api(status: Callable[[Query], StatusPage], token: Callable[[str], TokenPage | ApiError]) -> Callable[[Flask], None]:
    """What adds the API to the admin listener.

    Args:
        status: the page that a query asks for.
        token: what there is to tell of a token, or why there is no such token here.
    """

    def page() -> Response:
        try:
            query = parse_query(request.args.items(multi=True))
        except QueryError as error:
            return _refused(error.error, 400)
        return _json(STATUS.dump_json(status(query)))

    def one(name: str) -> Response:
        if request.args:
            return _refused(ApiError("query", "has a parameter", "ask for one token without any"), 400)
        found = token(name)
        return _refused(found, 404) if isinstance(found, ApiError) else _json(TOKEN.dump_json(found))

    def add(app: Flask) -> None:
        rules: dict[str, Callable[..., Response]] = {
            "/status": page,
            "/status/<name>": one,
            "/schema": lambda: _json(_schema(), "application/schema+json"),
        }
        for path, view in rules.items():
            where = ROOT + path
            app.add_url_rule(where, where, view, methods=["GET"], provide_automatic_options=False)

    return add


def _json(body: bytes, mimetype: str = "application/json") -> Response:
    return Response(body + b"\n", mimetype=mimetype)


def _refused(error: ApiError, code: int) -> Response:
    response = _json(ERROR.dump_json(ErrorPage(error)))
    response.status_code = code
    return response


@cache
def _schema() -> bytes:
    return json.dumps(schema(), indent=2).encode()
