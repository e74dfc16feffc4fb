"""What can go wrong: how it is made and mended, the alerts that it must raise, what docs/rehearsal.md says of it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aca_tokend.core.outcome import Reason
from tests.system.scene import NEW_CLIENT_SECRET, NEW_PASSWORD, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.system.monitoring import Alert

PAGE = Path(__file__).parents[2] / "docs" / "rehearsal.md"
WIDTH = 110
HOME = "/srv/aca"  # what the page says in place of a temporary directory

EXPIRES = ("ACATokenExpiringSoon", "ACATokenExpired")
FAILS = ("ACATokenRotationFailing", *EXPIRES)
STALE = ("ACATokenPublishStale", *FAILS)


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        alerts: those that it must raise, and no others; the first is the one that tells of it best.
        why: words for its cause, of which each of these alerts must have one.
        make: lets it happen.
        mend: what the person does who was woken.
    """

    alerts: tuple[str, ...]
    why: str
    make: Callable[[Scene], object]
    mend: Callable[[Scene], object]


FAULTS = {
    "password-wrong": Fault(
        ("ACACredentialsRejected", *EXPIRES),
        "invalid_grant",
        lambda scene: scene.change_password("password-wrong"),
        lambda scene: scene.write_secret("password-wrong.password", NEW_PASSWORD),
    ),
    "client-secret-expired": Fault(
        ("ACACredentialsRejected", *EXPIRES),
        "invalid_client",
        lambda scene: scene.change_client_secret("client-secret-expired"),
        lambda scene: scene.write_secret("client-secret-expired.client-secret", NEW_CLIENT_SECRET),
    ),
    "endpoint-down": Fault(
        ("ACAEndpointDown", *FAILS),
        "connect_failed|no answer came",
        lambda scene: scene.down.go_down(),
        lambda scene: scene.down.come_up(),
    ),
    "endpoint-hangs": Fault(
        ("ACAEndpointDown", *FAILS),
        "timeout|no answer came",
        lambda scene: scene.at_main("endpoint-hangs", "hang"),
        lambda scene: scene.at_main("endpoint-hangs"),
    ),
    "grant-disabled": Fault(
        ("ACAPasswordGrantDisabled", *EXPIRES),
        "unsupported_grant_type",
        Scene.disable_the_grant,
        Scene.allow_the_grant,
    ),
    "vault-sealed": Fault(
        STALE, "vault_sealed", lambda scene: scene.sealed.seal(), lambda scene: scene.sealed.unseal()
    ),
    "login-lost": Fault(
        ("ACAVaultLoginFailing", *STALE),
        "vault_login_failed|log-ins .* failed",
        Scene.lose_the_log_in,
        Scene.give_a_secret_id,
    ),
    "policy-lost": Fault(STALE, "permission_denied", Scene.lose_the_policy, Scene.give_the_policy),
    "disk-full": Fault(STALE, "disk_full", Scene.fill_the_disk, Scene.free_the_disk),
    "place-gone": Fault(
        STALE,
        "directory_missing",
        lambda scene: (scene.directory / "place").rename(scene.directory / "elsewhere"),
        lambda scene: (scene.directory / "elsewhere").rename(scene.directory / "place"),
    ),
    "clock-wrong": Fault(
        ("ACAClockSkew",),
        "ahead of that of",
        lambda scene: scene.clock.levers(clock_offset=120.0),
        lambda scene: scene.clock.levers(clock_offset=0.0),
    ),
    "reload-bad": Fault(
        ("ACAConfigReloadFailed",),
        "changed and are wrong",
        Scene.misconfigure,
        lambda scene: scene.write_config("reload-bad"),
    ),
    "daemon-gone": Fault(
        ("ACATokendAbsent",),
        "has not answered",
        lambda scene: scene.daemons["daemon-gone"].kill(),
        lambda scene: scene.start("daemon-gone"),
    ),
}


def about(alert: Alert) -> str:
    """The fault that an alert is about, or the token to which nothing happens; "" for one about the job as a whole."""
    for label in ("token", "endpoint", "vault", "instance"):
        if alert.labels.get(label) in {*FAULTS, "well"}:
            return alert.labels[label]
    return ""


# ── docs/rehearsal.md ─────────────────────────────────────────────────────────────────────────────────────────────────

_BLOCK = re.compile(r'^```text title="(alert|status) ([a-z-]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# What the page leaves out of `aca-tokend status`: times, and what is well.
_LEFT_OUT = re.compile(
    r"at \d|(issued|rotation point|expires|readers safe until|next attempt|outage tolerance|account|failures) "
)
# those that are no words of the language
_REASON = re.compile(rf"\b({'|'.join(reason.value for reason in Reason if '_' in reason.value)})\b")


def written(told: Mapping[str, Alert], statuses: Mapping[str, str], scene: Scene) -> str:
    """The page with what alerts and status said this time in place of what it says."""
    home = str(scene.directory)

    def block(found: re.Match[str]) -> str:
        kind, fault = found[1], found[2]
        lines = _alert(told[fault], home) if kind == "alert" else _status(statuses[fault].replace(home, HOME))
        return "\n".join([f'```text title="{kind} {fault}"', *lines, "```"])

    return _BLOCK.sub(block, PAGE.read_text(encoding="utf-8"))


def _alert(alert: Alert, home: str) -> Iterator[str]:
    yield f"{alert.name}, {alert.labels['severity']}"
    yield from _wrapped(alert.annotations["summary"].replace(home, HOME))
    yield ""
    yield from _wrapped(alert.annotations["description"].replace(home, HOME))


def _status(status: str) -> Iterator[str]:
    for line in status.splitlines():
        if line.strip() and not _LEFT_OUT.match(line):
            yield from _wrapped(re.sub(r"(?<=\S) {2,}", "  ", line.strip()), indent="    ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def telling(page: str) -> dict[tuple[str, str], tuple[str, frozenset[str]]]:
    """What tells one cause from another on the page, by kind and fault: the alert, and the reasons that are named.

    Sentences are not compared: what they say besides changes with how far it has come when somebody looks.
    """
    found = {}
    for kind, fault, text in _BLOCK.findall(page):
        alert = text.partition("\n")[0] if kind == "alert" else ""
        found[kind, fault] = alert, frozenset(_REASON.findall(text))
    return found
