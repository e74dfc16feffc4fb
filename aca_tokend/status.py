"""The status of the daemon, made when somebody asks: the pass over all tokens (survey.py), then one page of them.

It changes nothing and takes no lock that a rotation needs. The words are those of core/saying.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aca_tokend import __version__
from aca_tokend.core import saying
from aca_tokend.core.config import EnvReference
from aca_tokend.core.outcome import ADVICE, Adopted, Failed, Reason, Rotated, Skipped, Suspended
from aca_tokend.core.shards import shard_of
from aca_tokend.core.status import (
    VERSION,
    ApiError,
    ConfigStatus,
    DaemonStatus,
    HookStatus,
    LastResult,
    Result,
    SinkStatus,
    State,
    StatusPage,
    Suspension,
    TokenPage,
    TokenStatus,
)
from aca_tokend.core.token import moment
from aca_tokend.credentials import references
from aca_tokend.reload import vaults_of
from aca_tokend.status_servers import endpoint_status, vault_status
from aca_tokend.survey import Overview, signs_of

if TYPE_CHECKING:
    from aca_tokend.core.condition import Signs
    from aca_tokend.core.config import TokenConfig
    from aca_tokend.core.outcome import Event
    from aca_tokend.core.status import Query
    from aca_tokend.state import SinkState, TokenState
    from aca_tokend.survey import Subject


def status_page(subject: Subject, query: Query) -> StatusPage:
    """The page that is asked for."""
    seen = Overview.of(subject)
    matching = seen.matching(query)
    begin = (query.page - 1) * query.per_page
    daemon = _daemon(subject, seen)
    endpoints = [endpoint_status(subject, seen, name) for name in sorted(subject.config.acaengine)]
    vaults = [vault_status(subject, seen, name) for name in sorted(subject.config.vault)]
    servers = [it.needs_a_person for it in endpoints] + [it.needs_a_person for it in vaults]
    others = any(servers) or bool(daemon.problems) or not daemon.config.ok
    return StatusPage(
        version=VERSION,
        now=subject.now,
        needs_a_person=others or seen.need_a_person > 0,
        need_a_person=seen.need_a_person,
        daemon=daemon,
        counts={state: seen.counts[state] for state in State},
        matching=len(matching),
        page=query.page,
        pages=max(math.ceil(len(matching) / query.per_page), 1),
        per_page=query.per_page,
        tokens=[token_status(subject, it.state, it.signs) for it in matching[begin : begin + query.per_page]],
        endpoints=endpoints,
        vaults=vaults,
    )


def token_page(subject: Subject, name: str) -> TokenPage | ApiError:
    """One token with what it depends on; an error where it is not here."""
    state = subject.states.get(name)
    endpoint = _endpoint(subject, state.config) if state else None
    if state is None or endpoint is None:
        return _not_here(subject, name)
    seen = Overview.of(subject)
    signs = signs_of(state, subject.monotonic, subject.wall - subject.monotonic)
    config = state.config
    vaults = sorted({vault for vault in vaults_of(config) if vault in subject.config.vault})
    return TokenPage(
        version=VERSION,
        now=subject.now,
        daemon=_daemon(subject, seen),
        token=token_status(subject, state, signs),
        endpoint=endpoint_status(subject, seen, endpoint),
        vaults=[vault_status(subject, seen, vault) for vault in vaults],
    )


def _endpoint(subject: Subject, token: TokenConfig) -> str | None:
    """The endpoint of a token; that of the new configuration, where a reload renamed it and no attempt followed yet."""
    if token.acaengine in subject.config.acaengine:
        return token.acaengine
    return next((it.acaengine for it in subject.config.tokens if it.name == token.name), None)


def _not_here(subject: Subject, name: str) -> ApiError:
    shards = subject.config.shard
    if shards is not None and name in set(subject.everywhere):
        shard = shard_of(name, shards.count)
        if shard != subject.shard:
            problem = f"is kept by shard {shard} of {shards.count}, and this is shard {subject.shard}"
            return ApiError("name", problem, f"ask the daemon of shard {shard}", shard)
    return ApiError("name", "is no token of this configuration", "ask for all of them to see the names")


def token_status(subject: Subject, state: TokenState, signs: Signs) -> TokenStatus:
    """All of one token."""
    config, document, life = state.config, state.document, state.life
    username = config.username if isinstance(config.username, str) else (document.username if document else None)
    safe_for = signs.valid_for if math.isfinite(signs.valid_for) else None
    return TokenStatus(
        name=state.name,
        state=signs.state,
        needs_a_person=signs.needs_a_person,
        summary=_summary(subject, state, signs),
        endpoint=config.acaengine,
        authority=config.authority,
        username=username if subject.config.admin.show_usernames else None,
        scope=config.scope,
        issued_at=document.issued_at if document else None,
        rotate_at=subject.at(life.rotate) if life else None,
        expires_at=subject.at(life.expires) if life else None,
        safe_until=None if safe_for is None else subject.at(subject.monotonic + safe_for),
        next_attempt_at=subject.at(_next_attempt(state)),
        outage_tolerance_seconds=life.outage_tolerance if life else None,
        consecutive_failures=max(state.failures, state.publish_failures, signs.hook_failures),
        last=_last(state.told),
        suspended=_suspension(subject, state),
        sinks=[_sink(sink) for sink in state.sinks],
        hooks=_hooks(state),
        shard=subject.shard if subject.config.shard else None,
        runbook=signs.runbook,
    )


def _summary(subject: Subject, state: TokenState, signs: Signs) -> str:
    """What the person who was woken reads first."""
    if signs.state is State.STARTING:
        waits = saying.SKIPPED.get(state.waits_for)
        return saying.sentence("not looked at yet", *([waits] if waits else []))
    safe = saying.readers(signs.valid_for, subject.now, dead=signs.dead, unread=signs.unread)
    life = state.life
    if signs.state is State.READY and life is not None:
        due = life.rotate - subject.monotonic
        when = f"rotates in {saying.span(due)}" if due > 0 else saying.SKIPPED.get(state.waits_for, "rotates now")
        return saying.sentence(when, safe)
    return saying.sentence(*(saying.troubles(signs) or _waits(state)), safe)


def _waits(state: TokenState) -> list[str]:
    """Why a token has expired though nothing failed."""
    if "lifetime_too_short" in state.noticed:
        return ["the server's tokens live no longer than min_interval lets them be replaced"]
    return [saying.SKIPPED[state.waits_for]] if state.waits_for in saying.SKIPPED else []


def _next_attempt(state: TokenState) -> float | None:
    if state.suspended is not None:
        return state.cautious_at
    times = (state.rotate_at, state.publish_at, state.wake_at)
    soonest = min(time for time in times if time is not None)
    return soonest if math.isfinite(soonest) else None


def _last(told: tuple[float, Event] | None) -> LastResult | None:
    at = moment(told[0]) if told else None
    if told is None or at is None:
        return None
    match told[1]:
        case Rotated(request_id=request_id):
            return LastResult(at, Result.ROTATED, request_id=request_id)
        case Adopted():
            return LastResult(at, Result.ADOPTED)
        case Skipped(why=why):
            return LastResult(at, Result.SKIPPED, message=saying.SKIPPED.get(why, why))
        case Failed(failure=failure) | Suspended(failure=failure) as event:
            result = Result.FAILED if isinstance(event, Failed) else Result.SUSPENDED
            advice = ADVICE[failure.reason]
            return LastResult(at, result, failure.step, failure.reason, failure.message, advice, failure.request_id)
        case _:
            return None


def _suspension(subject: Subject, state: TokenState) -> Suspension | None:
    failure, cautious_at = state.suspended, subject.at(state.cautious_at)
    if failure is None:
        return None
    if failure.reason is Reason.UNSUPPORTED_GRANT_TYPE:
        mended = "No other credential would help. Once the server offers the password grant again"
    else:
        mended = f"{_noticed(state)} After the server's side was mended"
    if cautious_at is None:
        alone = "By itself no attempt is made."
    else:
        alone = f"By itself one cautious attempt is made at {saying.clock(cautious_at, subject.now)}."
    return Suspension(
        failure.reason, ADVICE[failure.reason], f"{mended} call `aca-tokend resume {state.name}`. {alone}"
    )


def _noticed(state: TokenState) -> str:
    """When a changed credential is noticed, as docs/guard.md has it."""
    within = "5 seconds" if state.poll_seconds <= 5.0 else "a minute"  # noqa: PLR2004 -- between the two polls there are
    in_environment = any(isinstance(reference, EnvReference) for reference in references(state.config))
    but = ", in a variable of the environment only after a restart" if in_environment else ""
    return f"A changed credential is noticed within {within}{but}."


def _sink(sink: SinkState) -> SinkStatus:
    held, failure = sink.published, sink.failure or sink.told
    return SinkStatus(
        name=sink.sink.name,
        kind=sink.sink.kind,
        issued_at=held.issued_at if held else None,
        expires_at=held.expires_at if held else None,
        ok=failure is None,
        step=failure.step if failure else None,
        reason=failure.reason if failure else None,
        message=failure.message if failure else None,
        advice=ADVICE[failure.reason] if failure else None,
    )


def _hooks(state: TokenState) -> list[HookStatus]:
    failing = {}
    for sink in state.sinks:
        hook = sink.hook
        failure = hook.failure if hook and state.name in hook.failing else None
        if hook is not None and failure is not None:
            advice = ADVICE[failure.reason]
            failing[hook.name] = HookStatus(
                hook.hook.label, hook.failures, failure.step, failure.reason, failure.message, advice
            )
    return list(failing.values())


def _daemon(subject: Subject, seen: Overview) -> DaemonStatus:
    config, watched = subject.config, subject.watched
    problems = [str(problem) for problem in subject.rejected]
    return DaemonStatus(
        version=__version__,
        started_at=moment(watched.started_at) or subject.now,
        shard=subject.shard if config.shard else None,
        shards=config.shard.count if config.shard else None,
        tokens=len(seen.glances),
        problems=list(subject.unhealthy),
        not_ready=sum(not glance.state.settled for glance in seen.glances),
        config=ConfigStatus(
            ok=not problems,
            loaded_at=moment(watched.loaded_at) or subject.now,
            problems=problems,
            runbook="ACAConfigReloadFailed" if problems else None,
        ),
    )
