"""An ACAEngine look-alike: mints tokens by the password grant over real HTTP, and its API takes them until they expire.

A process of its own: `python -m aca_tokend.demo.lookalike [--listen HOST:PORT] [--tls-cert FILE --tls-key FILE]`. Its
standard input begins with a line of JSON, the levers to start with; `down` and `up` may follow. It ends when its input
closes, so it outlives nobody. Its output begins with a line of JSON with its port. No argument is a secret.

A request goes: noted → a fault instead of an answer? → the natural answer → spoilt or badly delivered? → counted. The
paths that begin with `/_` move the levers and read the counts; they are no part of ACAEngine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from flask import Flask, Response, g, jsonify, request
from pydantic import ValidationError

from aca_tokend.demo import faults
from aca_tokend.demo.authorization import TokenEndpoint
from aca_tokend.demo.connection import ENVIRON_KEY, Connection, Gateway, Player
from aca_tokend.demo.levers import (
    ANSWER_KINDS,
    CONNECTION_KINDS,
    DELIVERY_KINDS,
    SPOILT_KINDS,
    Area,
    Levers,
)
from aca_tokend.demo.records import SeenRequest, Verdict
from aca_tokend.demo.state import State
from aca_tokend.demo.websocket import speak

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN_PATH = "/auth/oauth/token"  # noqa: S105 - a path
AUTHORITY_PATH = "/auth/authority"
USER_PATH = "/api/engine/v2/users/current"  # PlaceOS
SYSTEMS_PATH = "/api/control/systems"  # ACAEngine
WEBSOCKET_PATHS = ("/control/websocket", "/api/engine/v2/systems/control")  # ACAEngine, PlaceOS
THREADS = 64

logger = logging.getLogger(__name__)


def create_app(state: State, player: Player) -> Flask:
    """The web application: the server's own paths, and the levers under `/_`."""
    app = Flask("aca_tokend.demo.lookalike", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it

    app.before_request(partial(_before, state, player))
    app.after_request(partial(_after, state, player))
    for status in (404, 405):
        app.register_error_handler(status, _nothing_there)

    app.add_url_rule(TOKEN_PATH, "token", TokenEndpoint(app, state).answer, methods=["POST"])
    app.add_url_rule(AUTHORITY_PATH, "authority", partial(_authority, state))
    app.add_url_rule(USER_PATH, "user", partial(_current_user, state))
    app.add_url_rule(SYSTEMS_PATH, "systems", partial(_systems, state))
    for path in WEBSOCKET_PATHS:
        app.add_url_rule(path, path, partial(_realtime, state), websocket=True)
    _add_levers(app, state, player)
    return app


def _before(state: State, player: Player) -> Response | None:
    """Notes the request and answers it with a fault, if one is set for it that is a whole answer."""
    if request.path.startswith("/_"):
        return None
    area = _area(request.path)
    username = request.form.get("username", "") or _owner(state)
    g.came_in, traffic = player.round, state.traffic
    g.closed = partial(traffic.closed, traffic.opened(_seen(), area, username))
    g.fault = fault = state.fault_for(area, username)
    if area == "token":
        time.sleep(state.levers.latency)
    if fault is None:
        return None
    traffic.faulted(fault.kind)
    if fault.kind == "delay":
        time.sleep(fault.seconds)
    if fault.kind in ANSWER_KINDS:
        return faults.answer(fault, state.now())
    return Response() if fault.kind in CONNECTION_KINDS else None


def _after(state: State, player: Player, response: Response) -> Response:
    """Spoils or misdelivers the answer, if a fault is set for it, and counts it."""
    if "closed" not in g:
        return response
    fault = g.fault
    if fault is not None and fault.kind in SPOILT_KINDS:
        response = faults.spoil(fault, response)
    response.headers["x-request-id"] = str(uuid.uuid4())
    response.headers["Date"] = formatdate(state.now(), usegmt=True)
    if fault is not None and fault.kind in CONNECTION_KINDS | DELIVERY_KINDS:
        status = response.status_code if fault.kind in DELIVERY_KINDS else None
        player.play(request.environ[ENVIRON_KEY], fault, response, g.came_in, at_end=partial(g.closed, status))
    else:
        g.closed(response.status_code)
    return response


def _area(path: str) -> Area:
    if path == TOKEN_PATH:
        return "token"
    if path == AUTHORITY_PATH:
        return "authority"
    return "api" if path.startswith("/api/") else "elsewhere"


def _seen() -> SeenRequest:
    return SeenRequest.model_construct(
        time=time.time(),
        method=request.method,
        path=request.path,
        host=request.headers.get("Host", ""),
        port=int(request.environ.get("REMOTE_PORT") or 0),
        headers=tuple(name.lower() for name in request.headers.keys()),  # noqa: SIM118 - it is no mapping
        form_keys=tuple(request.form),
        query_keys=tuple(request.args),
    )


def _bearer() -> str | None:
    """The token of the request. PlaceOS knows the prefix in this one spelling."""
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ") if header.startswith("Bearer ") else None


def _owner(state: State) -> str:
    """The user whose token the request carries, "" where it carries none that is known."""
    token = _bearer()
    issued = state.tokens.find(token) if token else None
    return issued.username if issued else ""


def _nothing_there(_error: Exception) -> Response:
    return Response(b"", 404)


def _authority(state: State) -> Response:
    if not state.knows_host(request.host):
        return Response(b"", 404)
    domain = state.tenant(request.host)
    return jsonify(
        {"id": "authority-1", "name": domain, "domain": domain, "login_url": "/auth/login", "session": False}
    )


def _judge(state: State, token: str | None) -> Verdict:
    """Whether the token that came with the request works, counted."""
    host = None if state.levers.tenants is None else state.tenant(request.host)
    verdict = state.tokens.verdict(token, host, state.now()) if token else Verdict.MISSING
    state.traffic.read(verdict)
    return verdict


def _current_user(state: State) -> Response:
    verdict = _judge(state, _bearer())
    if verdict is Verdict.ACCEPTED:
        return jsonify({"id": f"user-{_owner(state)}", "name": _owner(state)})
    problem = "logged out" if verdict is Verdict.LOGGED_OUT else "unauthorized"
    response = jsonify({"error": problem})
    response.status_code = 401
    return response


def _systems(state: State) -> Response:
    if _judge(state, _bearer()) is Verdict.ACCEPTED:
        return jsonify({"total": 0, "results": []})
    return Response(b"", 401)


def _realtime(state: State) -> Response:
    if _judge(state, request.args.get("bearer_token")) is not Verdict.ACCEPTED:
        return Response(b"", 401)
    answer = partial(speak, request.environ[ENVIRON_KEY].take(), request.path, list(request.headers))
    response = Response(b"", 101)  # into the void: the connection is taken
    response.call_on_close(answer)  # once it is noted: the client may ask at once what was
    return response


def _add_levers(app: Flask, state: State, player: Player) -> None:
    """The paths that are no part of ACAEngine."""

    @app.post("/_levers")
    def change_levers() -> Response:
        try:
            state.change(request.get_data())
        except ValidationError as error:
            return Response(json.dumps({"problems": _problems(error)}), 400, content_type="application/json")
        return Response(b"", 204)

    @app.get("/_levers")
    def show_levers() -> Response:
        return Response(state.levers.model_dump_json(), content_type="application/json")

    @app.post("/_log_out")
    def log_out() -> Response:
        state.tokens.log_out(request.args["username"], state.now())
        return Response(b"", 204)

    @app.get("/_counts")
    def counts() -> Response:
        counted = state.traffic.counts(tokens_held=len(state.tokens))
        return Response(counted.model_dump_json(), content_type="application/json")

    @app.get("/_requests")
    def requests() -> Response:
        seen = state.traffic.recent(request.args.get("last", 100, type=int))
        return jsonify([entry.model_dump() for entry in seen])

    @app.post("/_reset")
    def reset() -> Response:
        state.reset()
        player.release_all()
        return Response(b"", 204)


def _problems(error: ValidationError) -> list[str]:
    """What is wrong with the levers, without the wrong values: one may be a password."""
    return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors(include_input=False)]


def serve(app: Flask, listen: tuple[str, int], tls: tuple[str, str] | None) -> Server:
    """Serves the application in threads of its own, with `tls`, a certificate and its key, over HTTPS."""
    server = Server(listen, app, numthreads=THREADS, request_queue_size=1024, timeout=75, shutdown_timeout=1)
    server.ConnectionClass = Connection
    server.gateway = Gateway
    server.expiration_interval = 0.1  # how long it may take to go down
    server.keep_alive_conn_limit = None  # type: ignore[assignment]  # cheroot's stubs know no "unlimited"
    server.error_log = _log_errors_alone  # type: ignore[method-assign]  # how cheroot wants it
    if tls is not None:
        server.ssl_adapter = BuiltinSSLAdapter(*tls)
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    return server


def _log_errors_alone(msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    """Leaves out what cheroot says of clients that go away, which is what clients with a timeout do."""
    if level >= logging.ERROR:
        logger.error(msg, exc_info=traceback)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until the standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m aca_tokend.demo.lookalike", description="an ACAEngine look-alike")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: a free one")
    parser.add_argument("--tls-cert", metavar="FILE")
    parser.add_argument("--tls-key", metavar="FILE")
    options = parser.parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    tls = (options.tls_cert, options.tls_key) if options.tls_cert else None

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the kernel ends it, whichever thread it finds and whatever that does
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain HTTP under a tenant's Host, as behind a real load balancer
    try:
        levers = Levers().merged(sys.stdin.buffer.readline().strip() or b"{}")
    except ValidationError as error:
        sys.exit("\n".join(_problems(error)))
    state, player = State(levers), Player()
    app = create_app(state, player)
    server = serve(app, (host, int(port)), tls)
    _say({"port": server.bind_addr[1]})
    for line in sys.stdin:
        if line.strip() == "down":
            server.stop()
            player.release_all()
        elif line.strip() == "up":
            server = serve(app, server.bind_addr, tls)
        _say({"done": line.strip()})
    os._exit(0)  # at once: there is nothing to keep, and hanging connections are not worth waiting for


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
