"""The pages for people: the status page, a token's page, the runbooks. HTML from templates, without JavaScript.

They show what they are handed and decide nothing. Whatever a value holds is escaped, and the policy in the header lets
a browser load nothing but the one style sheet and the icons that are served here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from aca_tokend.core.status import ApiError, Query, QueryError, parse_query
from aca_tokend.pages.listing import Listing
from aca_tokend.pages.markdown import runbook
from aca_tokend.pages.render import REFRESH_SECONDS, html

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from aca_tokend.core.status import StatusPage, TokenPage

    Status = Callable[[Query], StatusPage]
    Token = Callable[[str], TokenPage | ApiError]

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FILES = {"status.css": "text/css", "well.svg": "image/svg+xml", "trouble.svg": "image/svg+xml"}


def site(status: Status, token: Token) -> Callable[[Flask], None]:
    """What adds the pages to the admin listener.

    Args:
        status: what the status page shows for a query.
        token: what the page of a token shows, or why there is no such token here.
    """
    routes = Blueprint("pages", __name__)
    rules: dict[str, Callable[..., Response]] = {
        "/": lambda: _overview(status),
        "/tokens/<name>": lambda name: _one(token, name),
        "/runbooks/<name>": _runbook,
        "/static/<name>": _static,
    }
    for path, view in rules.items():
        endpoint = path.strip("/").partition("/")[0] or "overview"
        routes.add_url_rule(path, endpoint, view, methods=["GET"], provide_automatic_options=False)

    @routes.after_request
    def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return lambda app: app.register_blueprint(routes)


def _overview(status: Status) -> Response:
    pairs = [(name, value) for name, value in request.args.items(multi=True) if value and name != "refresh"]
    try:
        query = parse_query(pairs)
    except QueryError as error:
        return _problem(400, "This address cannot be understood", str(error))
    page = status(query)
    # The verdict is on all tokens, whatever is asked for.
    everything = page if query == Query() else status(Query(per_page=1))
    first = everything.tokens[0] if everything.tokens else None
    return _live("status", view=Listing(page, first, query, _refreshing()))


def _one(token: Token, name: str) -> Response:
    page = token(name)
    if isinstance(page, ApiError):
        return _problem(404, "No such token here", f"“{name}” {page.problem}; {page.fix}")
    return _live("token", page=page, refreshes=_refreshing(), here=request.path)


def _runbook(name: str) -> Response:
    text = runbook(name)
    if text is None:
        return _problem(404, "No such runbook", f"“{name}” is the name of no runbook")
    return Response(html("runbook", name=name, text=text))


def _static(name: str) -> Response:
    kind = _FILES.get(name)
    if kind is None:
        return _problem(404, "Not found", "there is no such file")
    return Response((files(__name__) / "static" / name).read_bytes(), mimetype=kind)


def _refreshing() -> bool:
    return request.args.get("refresh") != "off"


def _live(template: str, **values: object) -> Response:
    """A page that loads itself again, with its query, unless asked not to."""
    headers = {"Refresh": str(REFRESH_SECONDS)} if _refreshing() else {}
    return Response(html(template, **values), headers=headers)


def _problem(code: int, headline: str, said: str) -> Response:
    return Response(html("problem", headline=headline, said=said), code)
