"""HTTP for the pages: one thread that waits for all clients, with each bounded in size, time and number.

A client that is slow, silent or greedy costs a place among a few, and never a thread: requests are read and answers are
sent here, by asyncio and h11; only what makes a page, a WSGI application, runs in a thread, and few of these at once.
Who has kept us waiting longest gives way to who comes. It knows nothing of the pages.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import structlog

from aca_tokend.wsgi import MAX_HEAD_BYTES, call, environment, phrase, plain, refusal

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Collection
    from wsgiref.types import WSGIApplication

    from aca_tokend.wsgi import Answer

# So many clients at once, so few that they leave descriptors to the rest of the process.
MAX_CLIENTS = 64
# So many pages are made at once. They are made under one interpreter's lock, so more would be no faster.
PAGES_AT_ONCE = 2
# A connection has so long to send a whole request: from its first packet, handshake included, or from its last answer.
REQUEST_SECONDS = 10.0
# And so long to take an answer.
ANSWER_SECONDS = 20.0
# Answers that nobody takes hold no more than this, but for the last one.
MAX_HELD_BYTES = 64 * 2**20
CHUNK_BYTES = 65_536
# What a client still sends after it was refused is read for so long, else it would not see why.
LINGER_SECONDS = 1.0
LINGER_BYTES = 2**20
# So many connections more than that for a moment, when they come at once.
ACCEPT_AT_ONCE = 8
# After no connection could be accepted, for want of a descriptor.
ACCEPT_AGAIN_SECONDS = 0.2
# Requests under way get this long when the daemon stops; then it no longer waits for them.
STOP_SECONDS = 1.0
GIVE_UP_SECONDS = 3.0

_log = structlog.get_logger("aca_tokend.admin")


@dataclass(slots=True, eq=False)
class _Client:
    """A connection.

    Attributes:
        tls: what it was accepted with.
        since: since when it has kept us waiting, or waits for its page; infinity while that is made.
        held: the bytes of an answer that it has not taken yet.
    """

    socket: socket.socket
    address: str
    tls: ssl.SSLContext | None
    since: float
    held: int = 0
    task: asyncio.Task[None] | None = None
    reader: asyncio.StreamReader = field(default_factory=lambda: asyncio.StreamReader(limit=MAX_HEAD_BYTES))
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.SERVER, MAX_HEAD_BYTES))


class Listener:
    """Serves an application from `start` until `stop`.

    Args:
        listening: the socket that listens.
        app: makes the pages; called in a thread of its own for each request.
        urgent: pages whose path begins so wait for no other page.
        tls: for connections from now on; may be set anew at any time.
        on_error: told of an unexpected exception.
    """

    def __init__(
        self,
        listening: socket.socket,
        app: WSGIApplication,
        *,
        urgent: bytes,
        tls: ssl.SSLContext | None,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self.tls = tls
        self._on_error = on_error
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._app = app
        self._urgent = urgent
        self._clients: set[_Client] = set()
        self._started = threading.Event()
        # a queue without bound: the places are what is bounded
        self._work: queue.SimpleQueue[tuple[dict[str, Any], asyncio.Future[Answer]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def start(self) -> None:
        """Begins to serve, in daemon threads alone: one that hangs does not keep the process from ending."""
        self._listening.setblocking(False)
        self._thread.start()
        for number in range(2 * PAGES_AT_ONCE):
            threading.Thread(target=self._make_pages, name=f"admin-page-{number}", daemon=True).start()

    def stop(self) -> None:
        """Stops listening, lets requests under way finish for a moment, and returns in any case."""
        if self._started.wait(GIVE_UP_SECONDS):
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(GIVE_UP_SECONDS)
        for _ in range(2 * PAGES_AT_ONCE):
            self._work.put(None)

    def _run(self) -> None:
        asyncio.run(self._serve_all(), debug=False)

    async def _serve_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, it: self._tell(it.get("exception"), it["message"]))
        self._stopping = asyncio.Event()
        self._pages, self._probes = asyncio.Semaphore(PAGES_AT_ONCE), asyncio.Semaphore(PAGES_AT_ONCE)
        self._listen()
        self._started.set()
        await self._stopping.wait()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for client in list(self._clients):
            if client.since != math.inf and not client.held:
                _cancel(client)
        if tasks := [client.task for client in self._clients if client.task]:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)

    # ── who is served ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        if not self._stopping.is_set():
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Takes some of those who wait to be connected, and lets as many go as there are too many of."""
        for _ in range(ACCEPT_AT_ONCE):
            try:
                accepted, address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor is left, or the client is gone already
                self._tell(error, f"a connection could not be accepted: {error.strerror}")
                self._let_go_of_one(self._clients)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(ACCEPT_AGAIN_SECONDS, self._listen)
                return
            accepted.setblocking(False)
            client = _Client(accepted, str(address[0]), self.tls, self._loop.time())
            self._clients.add(client)
            client.task = self._loop.create_task(self._serve(client))
            client.task.add_done_callback(partial(self._ended, client))
            if len(self._clients) > MAX_CLIENTS:
                self._let_go_of_one(self._clients)

    def _let_go_of_one(self, among: Collection[_Client]) -> None:
        """Closes the connection of who has kept us waiting longest."""
        waiting = [client for client in among if client.since != math.inf]
        if waiting:
            _cancel(min(waiting, key=lambda client: client.since))

    def _ended(self, client: _Client, task: asyncio.Task[None]) -> None:
        self._clients.discard(client)
        client.socket.close()  # where the task was cancelled before it began
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(error, f"connection from {client.address}: {str(error) or type(error).__name__}")

    def _tell(self, error: BaseException | None, message: str) -> None:
        """Logs what clients did wrong for those who debug, and tells of what we did wrong."""
        if error is None or isinstance(error, OSError):  # a time that is over and what TLS refuses are some too
            _log.debug("admin_client_failed", message=message)
        else:
            self._on_error("listener", error)

    # ── one connection ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, client: _Client) -> None:
        protocol = asyncio.StreamReaderProtocol(client.reader)
        options: dict[str, Any] = {}
        if client.tls is not None:
            options = {"ssl_handshake_timeout": REQUEST_SECONDS, "ssl_shutdown_timeout": LINGER_SECONDS}
        async with asyncio.timeout_at(client.since + REQUEST_SECONDS):
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, client.socket, ssl=client.tls, **options
            )
        # `drain` then waits until all of it is on its way; with 0 that of TLS would never end
        transport.set_write_buffer_limits(high=1, low=0)
        writer = asyncio.StreamWriter(transport, protocol, client.reader, self._loop)
        try:
            while await self._answer(client, writer):
                client.http.start_next_cycle()
            writer.close()
            async with asyncio.timeout(LINGER_SECONDS):
                await writer.wait_closed()
        finally:
            transport.abort()

    async def _answer(self, client: _Client, writer: asyncio.StreamWriter) -> bool:
        """Reads one request and answers it; whether another may follow."""
        try:
            async with asyncio.timeout_at(client.since + REQUEST_SECONDS):
                request = await _read(client)
        except h11.RemoteProtocolError as error:
            await self._refuse(client, writer, error.error_status_hint)
            return False
        if request is None:
            return False
        if (status := refusal(request)) is not None:
            await self._refuse(client, writer, status)
            return False
        status, headers, body = await self._make(client, request)
        if client.tls is not self.tls or self._stopping.is_set():
            headers.append(("Connection", "close"))
        await self._send(client, writer, (status, headers, b"" if request.method == b"HEAD" else body))
        return client.http.our_state is h11.DONE and client.http.their_state is h11.DONE

    async def _make(self, client: _Client, request: h11.Request) -> Answer:
        """Has the page made, in a thread."""
        environ = environment(request, client.address, self.port, secure=client.tls is not None)
        async with self._probes if request.target.startswith(self._urgent) else self._pages:
            client.since = math.inf
            done: asyncio.Future[Answer] = self._loop.create_future()
            self._work.put((environ, done))
            try:
                return await done
            finally:
                client.since = self._loop.time()

    def _make_pages(self) -> None:
        """In each of the threads that make pages. One that hangs keeps one place among the few."""
        while (work := self._work.get()) is not None:
            self._make_page(*work)
            del work  # it leads to the answer, which may be large, and the next may be long in coming

    def _make_page(self, environ: dict[str, Any], done: asyncio.Future[Answer]) -> None:
        answer: Answer = plain(500)
        try:
            answer = call(self._app, environ)
        except Exception as error:  # noqa: BLE001 -- contained here for what Flask does not: the thread goes on
            self._on_error("listener", error)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(_settle, done, answer)

    async def _send(self, client: _Client, writer: asyncio.StreamWriter, answer: Answer) -> None:
        status, headers, body = answer
        head = h11.Response(status_code=status, headers=headers, reason=phrase(status))
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        # not copied: with ten thousand tokens the metrics are 20 MB
        parts = [memoryview(part) for it in events for part in client.http.send_with_data_passthrough(it) or ()]
        client.held = sum(map(len, parts))
        try:
            if sum(other.held for other in self._clients) > MAX_HELD_BYTES:
                self._let_go_of_one([other for other in self._clients if other.held and other is not client])
            async with asyncio.timeout(ANSWER_SECONDS):
                for part in parts:
                    for start in range(0, len(part), CHUNK_BYTES):
                        writer.write(part[start : start + CHUNK_BYTES])
                        await writer.drain()
        finally:
            client.held = 0
        client.since = self._loop.time()

    async def _refuse(self, client: _Client, writer: asyncio.StreamWriter, status: int) -> None:
        """Says why, and lets go; what the client is still sending is read for a moment, lest the answer be lost."""
        code, headers, body = plain(status)
        await self._send(client, writer, (code, [*headers, ("Connection", "close")], body))
        if writer.can_write_eof():
            writer.write_eof()
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and (read := await client.reader.read(CHUNK_BYTES)):
                    left -= len(read)


def _cancel(client: _Client) -> None:
    client.since = math.inf  # it is chosen once
    if client.task is not None:
        client.task.cancel()


def _settle(done: asyncio.Future[Answer], answer: Answer) -> None:
    if not done.done():  # nobody waits for it any more
        done.set_result(answer)


async def _read(client: _Client) -> h11.Request | None:
    """A whole request without a body, or the head of one with a body; None where the client has no more to ask."""
    request: h11.Request | None = None
    while True:
        event = client.http.next_event()
        if event is h11.NEED_DATA:
            client.http.receive_data(await client.reader.read(MAX_HEAD_BYTES))
        elif isinstance(event, h11.Request):
            request = event
            if refusal(request) is not None:
                return request
        else:  # the end of the request, or of the connection
            return request
