"""What was sent is let go of at once: nothing keeps a credential until garbage is collected, which may be in hours.

Python wipes nothing, so this does not say that memory is clean: docs/security.md tells what was measured.
"""

from __future__ import annotations

import gc
import math
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest

from aca_tokend.acaengine.endpoint import HttpTokenEndpoint
from aca_tokend.clock import SystemClock
from aca_tokend.core.config import EndpointConfig, EnvReference, TokenAuth
from aca_tokend.core.errors import GrantError, PublishError, SecretError
from aca_tokend.core.grant import Credentials
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret
from aca_tokend.core.steps import Call, Duty, make
from aca_tokend.scheduling.executor import Executor
from aca_tokend.scheduling.scheduler import RotationScheduler
from tests.fakes import Bench as Rotation
from tests.unit.scripted_server import ScriptedServer, answers, response
from tests.unit.vault.bench import Bench
from tests.unit.vault.stub import answer, vault_stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.scripted_server import Script

# Backwards, so that nothing in this module is what is looked for.
BACKWARDS = "8c1f-drowssap-yranac"
WORKS = response(200, b'{"access_token": "a-token", "expires_in": 7200}')
REFUSES = response(401, b'{"error": "invalid_grant"}')


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    """Nothing is collected meanwhile: what goes, goes because nothing refers to it. What was there before is hidden."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def keepers() -> list[str]:
    """The kinds of the objects that hold the password, in whatever form it is sent."""
    password = BACKWARDS[::-1]
    found = []
    for keeper in gc.get_objects():
        held = gc.get_referents(keeper)
        # what holds text alone is not tracked itself, and is found one step further
        held += [inner for it in held if not gc.is_tracked(it) for inner in gc.get_referents(it)]
        for value in held:
            text = value.decode("latin-1") if isinstance(value, bytes | bytearray) else value
            if isinstance(text, str) and password in text:
                found.append(type(keeper).__name__)
    return found


def credentials() -> Credentials:
    return Credentials("svc", Secret(BACKWARDS[::-1]), "authority-1", "client-1", Secret("s"), "")


def ask(script: Script, timeout: float) -> None:
    """One grant, after which nobody needs the credential any more."""
    with ScriptedServer(script) as server:
        config = EndpointConfig.model_validate({"url": server.url, "timeout": timeout})
        main = HttpTokenEndpoint("main", config)
        try:
            main.grant(credentials())
        except GrantError:
            pass
        finally:
            main.close()
        server.requests.clear()


def test_what_is_held_is_found() -> None:
    """While somebody holds the password it is found, so that finding nothing says something."""
    held = credentials()
    assert "Secret" in keepers()
    del held
    assert keepers() == []


BROKEN = [WORKS[:-5], WORKS[:20], b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000]


@pytest.mark.parametrize("script", [answers(it) for it in (WORKS, REFUSES, *BROKEN)])
def test_a_grant_is_let_go_of(script: Script) -> None:
    """Once the endpoint answered, no request, response or connection holds the password."""
    ask(script, 30.0)
    assert keepers() == []


def test_a_failed_call_keeps_nothing() -> None:
    """An expected error that travels from a pool to the attempt that awaits it does not keep what both held."""
    password = Secret(BACKWARDS[::-1])

    def fail(sent: Secret) -> None:
        assert sent
        raise SecretError(Reason.SECRET_MISSING, "there is none")

    async def attempt(sent: Secret) -> str:
        try:
            await Call("pool", lambda: fail(sent))
        except SecretError as error:
            return error.message
        return ""

    coroutine = attempt(password)
    (call,) = coroutine.send(None).calls
    with pytest.raises(StopIteration, match="there is none"):
        coroutine.send((make(call),))
    coroutine.close()
    del coroutine, call
    del password
    assert keepers() == []


def test_a_token_that_was_replaced_is_let_go_of() -> None:
    """Once a token was replaced where it is published, nothing of an attempt or of its state holds it any more."""
    rotation = Rotation(suffix=BACKWARDS[::-1])
    rotation.attempt()
    rotation.suffix = rotation.endpoint.suffix = ""
    rotation.events.clear()
    assert "Secret" in keepers()

    rotation.run_for(7200 * 0.667 + 1)
    assert rotation.sinks[0].writes == 2
    assert keepers() == []


def test_an_idle_thread_keeps_nothing() -> None:
    """A thread of a pool lets go of a call once it was made, not when it is given the next one."""

    class Sent:
        """What a call sends."""

        def use(self) -> None:
            """Is the call."""

    gone = threading.Event()
    pool = Executor("pool", 1, lambda _: None)
    sent = Sent()
    weakref.finalize(sent, gone.set)
    pool.submit(0.0, sent.use, lambda: None)
    del sent
    assert gone.wait(30), "before the thread ends, which is after a minute"
    pool.close()


def test_an_attempt_holds_no_result_that_it_dropped() -> None:
    """What a call gave is let go of while a later call of the same attempt, in whatever pool, is under way."""

    class Credential:
        """What a call gives."""

    gone, told = threading.Event(), threading.Event()

    def give() -> Credential:
        credential = Credential()
        weakref.finalize(credential, gone.set)
        return credential

    async def attempt() -> float:
        for pool in ("a", "b"):
            gone.clear()
            credential = await Call(pool, give)
            del credential
            await Call(pool, partial(gone.wait, 30))
            await Call("a", told.set if pool == "b" else bool)
        return math.inf

    bugs: list[BaseException] = []
    scheduler = RotationScheduler({"a": 1, "b": 1}, SystemClock(), bugs.append, lambda _: None)
    scheduler.keep(Duty("token", "a", attempt, lambda: 0.0), 0.0)
    scheduler.start()
    try:
        assert told.wait(30), "each was gone before the wait for it was over"
    finally:
        scheduler.stop(0.0)
    assert not bugs


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_a_refused_write_is_let_go_of(status: int) -> None:
    """What Vault was sent and refused is kept by nobody."""
    path = "/v1/secret/data/aca/bookings"
    with vault_stub() as stub:
        stub.always(path, answer(status, {"errors": []}))
        bench = Bench(stub.address, TokenAuth(token=EnvReference(env="VAULT_TOKEN")))
        try:
            with pytest.raises(PublishError) as caught:
                bench.session.write_kv("secret", "aca/bookings", {"access_token": BACKWARDS[::-1]}, 1)
            del caught
        finally:
            bench.session.close()
        stub.asked.clear()
    assert keepers() == []


def grant_refused(bench: Rotation) -> None:
    bench.endpoint.answers.append(GrantError(Reason.INVALID_GRANT, "no"))


def record_missing(bench: Rotation) -> None:
    bench.sinks[0].record_errors.append(Reason.PERMISSION_DENIED)


def poll_fails(bench: Rotation) -> None:
    """A suspended token that looks whether it may go on, and cannot read its record."""
    bench.endpoint.broken = GrantError(Reason.INVALID_GRANT, "no")
    bench.run_for(600)
    assert bench.facts.suspension is not None
    bench.clock.advance(3600)
    bench.sinks[0].record_errors.extend([Reason.PERMISSION_DENIED] * 100)


@pytest.mark.parametrize(
    "fail", [grant_refused, record_missing, poll_fails, lambda _bench: None], ids=["grant", "claim", "poll", "none"]
)
def test_an_attempt_is_let_go_of(fail: Callable[[Rotation], None]) -> None:
    """Once an attempt is over, however it ended, nothing of it holds the credential."""
    bench = Rotation()
    bench.secrets.values["PASSWORD"] = BACKWARDS[::-1]
    fail(bench)
    bench.attempt()
    # what the test itself remembers
    bench.secrets.values["PASSWORD"] = ""
    bench.endpoint.asked.clear()
    assert bench.events
    assert keepers() == []
