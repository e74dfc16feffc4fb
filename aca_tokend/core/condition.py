"""How a token is, from the few signs that tell it: its state, whether a person is needed, which runbook fits.

Pure. The rule for a person: what readers feel by now needs one, and so does what the daemon's own attempts cannot fix.
What may pass by itself needs one once less than 70 % of the outage tolerance is left, as the alert
ACATokenExpiringSoon says it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import DOWN, Reason, Step
from aca_tokend.core.status import State

if TYPE_CHECKING:
    from aca_tokend.core.outcome import Failure

# What passes by itself more often than not: a restart of a server, a network, another writer, a busy lock.
PASSING = (DOWN - {Reason.TLS_FAILED, Reason.PROXY_FAILED}) | {Reason.CONFLICT, Reason.LOCKED}
# A program that is just being restarted has these too.
PASSING_HOOK = frozenset({Reason.COMMAND_FAILED, Reason.COMMAND_TIMEOUT, Reason.PROCESS_MISSING})
PASSING_HOOK |= {Reason.PID_FILE_MISSING, Reason.PID_FILE_STALE}
# A hook that failed so often running does not pass by itself.
HOOK_FAILURES = 3
# What is left of the outage tolerance, as a share, when a person should know.
SHARE_LEFT = 0.7
# What concerns a Vault as a whole, whoever asks.
VAULT_WIDE = DOWN | {Reason.VAULT_SEALED, Reason.VAULT_LOGIN_FAILED}
# Server and daemon may disagree about the time by so much.
SKEW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Signs:
    """What the state of a token is told by.

    Attributes:
        tried: an attempt has ended that could tell whether anything is published.
        valid_for: in how many seconds the first reader meets an expired token; infinitely long ago where a sink never
            held one.
        tolerance: the outage tolerance in seconds, 0 where no token is held.
        suspended: why no attempt is made.
        failure: what failed in the last attempt, or in a sink of it.
        hook: what failed in its hook, with `hook_failures`.
        held: it is due, and waits for its endpoint.
        revoked: the token in use was refused before its time.
        unread: a sink could never be read, so nobody knows what its readers find.
        former: readers find a token of the account that was configured before.
    """

    tried: bool
    valid_for: float
    tolerance: float
    suspended: Failure | None = None
    failure: Failure | None = None
    hook: Failure | None = None
    hook_failures: int = 0
    held: bool = False
    revoked: bool = False
    unread: bool = False
    former: bool = False

    @property
    def state(self) -> State:
        """The worst that is true of it."""
        if self.tried and (self.valid_for <= 0.0 or self.revoked):
            return State.EXPIRED
        if self.suspended is not None:
            return State.SUSPENDED
        if self.failure is not None or self.hook is not None or self.held:
            return State.FAILING
        return State.READY if self.tried else State.STARTING

    @property
    def needs_a_person(self) -> bool:
        """Whether attempts alone will not fix it, or not in time."""
        match self.state:
            case State.EXPIRED | State.SUSPENDED:
                return True
            case State.FAILING:
                return not self._may_pass()
            case _:
                return False

    def _may_pass(self) -> bool:
        if self.failure is not None and self.failure.reason not in PASSING:
            return False
        if self.hook is not None and (self.hook.reason not in PASSING_HOOK or self.hook_failures >= HOOK_FAILURES):
            return False
        # a token that is only held has not failed, but it is due
        waits = self.failure is not None or self.held
        return not waits or self.valid_for >= self.tolerance * SHARE_LEFT

    @property
    def runbook(self) -> str | None:
        """The alert whose runbook page fits, None where there is nothing to do."""
        if self.suspended is not None:
            disabled = self.suspended.reason is Reason.UNSUPPORTED_GRANT_TYPE
            return "ACAPasswordGrantDisabled" if disabled else "ACACredentialsRejected"
        match self.state:
            case State.EXPIRED:
                return "ACATokenExpired"
            case State.FAILING:
                return self._failing()
            case _:
                return None

    def _failing(self) -> str:
        failure = self.failure
        if failure is None:
            return "ACAEndpointDown" if self.held else "ACATokenRotationFailing"
        if failure.reason is Reason.INTERNAL_ERROR:
            return "ACAInternalError"
        if failure.reason is Reason.VAULT_LOGIN_FAILED:
            return "ACAVaultLoginFailing"
        if failure.sink is not None:
            return "ACATokenPublishStale"
        if failure.step is Step.GRANT and failure.reason in DOWN:
            return "ACAEndpointDown"
        return "ACATokenRotationFailing"


NEVER = -math.inf
