"""The application of Flask: the pages for people, and the status API. Imported once one of them is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from aca_tokend.wsgi import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    Pages = Callable[[Flask], None]
    OnError = Callable[[str, BaseException], None]


class _Application(Flask):
    """Flask, but for how it tells that a page failed, before it answers 500."""

    on_error: OnError

    def log_exception(self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]) -> None:
        """Names the page as we do, since the client's words for it could be anything."""
        if exc_info[1] is not None:
            self.on_error(str(request.url_rule), exc_info[1])


def application(pages: Sequence[Pages], on_error: OnError) -> Flask:
    """The application with these pages."""
    app = _Application(__name__, static_folder=None, template_folder=None)
    app.on_error = on_error
    app.debug = False  # whatever FLASK_DEBUG says
    app.url_map.merge_slashes = False

    @app.errorhandler(HTTPException)
    def error(problem: HTTPException) -> Response:
        return Response(f"{problem.name}\n", problem.code, mimetype="text/plain")

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    for add in pages:
        add(app)
    return app
