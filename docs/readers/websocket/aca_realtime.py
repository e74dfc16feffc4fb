"""The realtime API: `with connected(token, "wss://aca.example.com/control/websocket") as websocket: ...`."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aca_token import AcaToken, Token

logging.getLogger("websockets.client").setLevel(logging.INFO)  # at DEBUG it writes the address with the token

UNAUTHORIZED = 401


@contextmanager
def connected(source: AcaToken, url: str) -> Iterator[ClientConnection]:
    """A connection. If it is refused it is tried again once, if there is another token by then."""
    token = source.current()
    with ExitStack() as stack:
        try:
            websocket = stack.enter_context(_connect(url, token))
        except InvalidStatus as error:
            other = source.other_than(token) if error.response.status_code == UNAUTHORIZED else None
            if other is None:
                raise
            websocket = stack.enter_context(_connect(url, other))
        yield websocket


def _connect(url: str, token: Token) -> AbstractContextManager[ClientConnection]:
    try:
        return connect(f"{url}?{urlencode({'bearer_token': token.access_token})}")
    except InvalidURI:
        message = f"no address of a websocket: {url}"
        raise ValueError(message) from None  # the other error shows the token
