"""The row of the one token that is chosen."""

from __future__ import annotations

from fleet import EXPIRY_STEPS, NO_ERRORS, STATE_WORDS, TOLERANCE_STEPS
from parts import (
    ONE,
    RANGE,
    RATE,
    STATE_OF_ONE,
    Panel,
    Query,
    Row,
    a_minute,
    metric,
    or_none,
    published,
    raised,
    tolerance_left,
    until_expiry,
)

NOW = (
    Panel(
        title="State",
        told="As in the row Fleet.",
        kind="stat",
        unit="none",
        queries=(Query(f"max({STATE_OF_ONE})"),),
        width=3,
        height=4,
        words=STATE_WORDS,
        runbook="ACATokenExpired",
    ),
    Panel(
        title="Suspended",
        told="The reason for which the server refused the credential. It is not sent again before it changes, or one "
        "cautious attempt is due.",
        kind="stat",
        unit="none",
        queries=(
            Query(or_none(f"max by (reason) ({metric('token_suspended', ONE)}) == 1", reason="no"), "{{reason}}"),
        ),
        width=4,
        height=4,
        steps=((None, "green"), (1, "red")),
        runbook="ACACredentialsRejected",
        by_name=True,
    ),
    Panel(
        title="Readers are safe for",
        told="Until the first of its sinks holds an expired token.",
        kind="stat",
        unit="s",
        queries=(Query(f"min({until_expiry(ONE)})"),),
        width=4,
        height=4,
        steps=EXPIRY_STEPS,
        runbook="ACATokenExpired",
        none="nothing published",
    ),
    Panel(
        title="Outage tolerance",
        told="How long the endpoint may be out from the rotation point on. Below 0 tokens live shorter than "
        "rotations may follow each other.",
        kind="stat",
        unit="s",
        queries=(Query(f"min({metric('token_outage_tolerance_seconds', ONE)})"),),
        width=3,
        height=4,
        steps=EXPIRY_STEPS,
        runbook="ACATokenExpiringSoon",
    ),
    Panel(
        title="Tolerance left",
        told="What is left of the outage tolerance: 100 % while the token is not even due.",
        kind="stat",
        unit="percentunit",
        queries=(Query(f"min({tolerance_left(ONE)})"),),
        width=3,
        height=4,
        steps=TOLERANCE_STEPS,
        runbook="ACATokenExpiringSoon",
        none="nothing published",
    ),
    Panel(
        title="Failures in a row",
        told="Failed attempts since the last success.",
        kind="stat",
        unit="none",
        queries=(Query(f"max({metric('token_consecutive_failures', ONE)})"),),
        width=2,
        height=4,
        steps=((None, "green"), (1, "orange"), (3, "red")),  # ACATokenRotationFailing tells of the third
        runbook="ACATokenRotationFailing",
    ),
    Panel(
        title="Last success",
        told="How long ago a daemon that runs now last rotated or adopted it.",
        kind="stat",
        unit="s",
        queries=(Query(f"time() - max({metric('token_last_success_timestamp_seconds', ONE)} > 0)"),),
        width=3,
        height=4,
        runbook="ACATokenRotationFailing",
        none="not since the start",
    ),
    Panel(
        title="No valid token",
        told="For how long in the time that is shown a sink held no valid token.",
        kind="stat",
        unit="s",
        queries=(Query(f"max(increase({metric('token_unavailable_seconds_total', ONE)}[{RANGE}]))"),),
        width=2,
        height=4,
        steps=((None, "green"), (1, "red")),
        runbook="ACATokenExpired",
    ),
)

OVER_TIME = (
    Panel(
        title="Its life",
        told="The time until the current token expires, which must not reach 0; until its rotation point, which passes "
        "0 when a rotation is due; and since it was issued, below 0. Each rotation lifts all three.",
        kind="lines",
        unit="s",
        queries=(
            Query(f"min({metric('token_expiration_timestamp_seconds', ONE)} > 0) - time()", "until it expires"),
            Query(f"min({metric('token_rotation_timestamp_seconds', ONE)} > 0) - time()", "until its rotation point"),
            Query(f"max({metric('token_issued_timestamp_seconds', ONE)} > 0) - time()", "since it was issued"),
        ),
        width=12,
        height=8,
        runbook="ACATokenExpiringSoon",
        none="no token",
    ),
    Panel(
        title="Its states",
        told="Its state over the time that is shown.",
        kind="states",
        unit="none",
        queries=(Query(f"max({STATE_OF_ONE})", "$token"),),
        width=12,
        height=8,
        words=STATE_WORDS,
        runbook="ACATokenExpired",
    ),
    Panel(
        title="Sinks behind",
        told="How much later the current token was issued than the one that the sink holds: 0 is well.",
        kind="lines",
        unit="s",
        queries=(
            Query(
                f"max by (sink, instance) ({metric('token_issued_timestamp_seconds', ONE)} "
                "- on (cluster, namespace, job, instance, pod, token) group_right () "
                f"({metric('published_issued_timestamp_seconds', ONE)} > 0))",
                "{{sink}} of {{instance}}",
            ),
        ),
        width=12,
        height=7,
        runbook="ACATokenPublishStale",
    ),
    Panel(
        title="Published, by sink",
        told="How long the token that each sink holds is still valid. A line that goes on falling below the others "
        "is a sink that cannot be written.",
        kind="lines",
        unit="s",
        queries=(
            Query(f"min by (sink, instance) ({published('expiration', ONE)} > 0) - time()", "{{sink}} {{instance}}"),
        ),
        width=12,
        height=7,
        runbook="ACATokenPublishStale",
        none="nothing published",
    ),
    Panel(
        title="Its publishes",
        told="By sink and result; failed ones are tried again alone, without a new grant.",
        kind="lines",
        unit="opm",
        queries=(Query(a_minute(metric("publish_total", ONE), "sink, result"), "{{sink}} {{result}}"),),
        width=8,
        height=7,
        runbook="ACATokenPublishStale",
    ),
    Panel(
        title="Its rotations",
        told="Attempts that ended, by result.",
        kind="lines",
        unit="opm",
        queries=(Query(a_minute(metric("rotations_total", ONE), "result"), "{{result}}"),),
        width=8,
        height=7,
        runbook="ACATokenRotationFailing",
    ),
    Panel(
        title="Its errors",
        told="Steps that failed within the interval of a point, by reason.",
        kind="lines",
        unit="short",
        queries=(
            Query(
                or_none(
                    f"sum by (step, reason) ({raised(metric('rotation_errors_total', ONE), RATE)})", reason=NO_ERRORS
                ),
                "{{step}} {{reason}}",
            ),
        ),
        width=8,
        height=7,
        runbook="ACATokenRotationFailing",
    ),
)

ONE_TOKEN = Row("One token: $token", (*NOW, *OVER_TIME))
