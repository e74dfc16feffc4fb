"""What a configuration needs of each Vault: the least policy, for the daemon and for a reader, and how it is written.

Pure. It names paths and capabilities as Vault's policies do; what the policy `default` allows is not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from aca_tokend.core.config import VaultPublish, VaultReference
from aca_tokend.core.errors import TokendError
from aca_tokend.core.guard import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aca_tokend.core.config import Config, TokenConfig

READ = ("read",)
WRITE = ("create", "read", "update")
# The note is written after the secret is there, and nothing of it is read.
NOTE = ("update",)


class Purpose(Enum):
    """What a path is for, in the order in which a policy tells it."""

    TOKEN = "tokens"  # noqa: S105 -- a word
    RECORD = "attempt records of the lockout guard, beside the places of their tokens"
    SECRET = "secrets that the configuration refers to"  # noqa: S105 -- a word
    METADATA = (
        "optional: a note in the secret's metadata of who manages it, written once; without these lines there is none"
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """What must be allowed at one path, as a policy names it. `optional`: the daemon does without, silently."""

    path: str
    capabilities: tuple[str, ...]
    purpose: Purpose

    @property
    def optional(self) -> bool:
        """Whether the daemon does without."""
        return self.purpose is Purpose.METADATA


def kv_path(mount: str, path: str, version: int) -> str:
    """The path of a KV secret as a policy names it."""
    return f"{mount}/data/{path}" if version == 2 else f"{mount}/{path}"  # noqa: PLR2004 -- the two versions there are


def daemon_rules(config: Config, vault: str) -> tuple[Rule, ...]:
    """What the daemon needs of the `[vault.NAME]` of this name, in the order in which it is printed."""
    return _merged(rule for token in config.tokens for rule in _of_token(token, vault))


def _of_token(token: TokenConfig, vault: str) -> Iterator[Rule]:
    for place in _places(token, vault):
        yield Rule(kv_path(place.mount, place.path, place.kv_version), WRITE, Purpose.TOKEN)
        if place.kv_version == 2:  # noqa: PLR2004 -- version 1 has no metadata
            yield Rule(f"{place.mount}/metadata/{place.path}", NOTE, Purpose.METADATA)
        yield Rule(kv_path(place.mount, f"{place.path}.{RECORD}", place.kv_version), WRITE, Purpose.RECORD)
    for reference in (token.username, token.password, token.client_id, token.client_secret):
        if isinstance(reference, VaultReference) and reference.vault_name == vault:
            yield Rule(kv_path(reference.mount, reference.path, 2), READ, Purpose.SECRET)


def _places(token: TokenConfig, vault: str) -> list[VaultPublish]:
    return [it for it in token.publish if isinstance(it, VaultPublish) and it.vault_name == vault]


def _merged(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """One rule for each path, for the first of its purposes, in a stable order."""
    merged: dict[str, Rule] = {}
    for rule in rules:
        known = merged.get(rule.path, rule)
        capabilities = tuple(sorted({*known.capabilities, *rule.capabilities}))
        merged[rule.path] = Rule(rule.path, capabilities, min(known.purpose, rule.purpose, key=_rank))
    return tuple(sorted(merged.values(), key=lambda rule: (_rank(rule.purpose), rule.path)))


def _rank(purpose: Purpose) -> int:
    return list(Purpose).index(purpose)


# ── as it is printed ──────────────────────────────────────────────────────────────────────────────────────────────────

_DEFAULT = """\
# Beside these the daemon looks up, renews and revokes its own token and asks what it may do. The policy "default"
# allows that, and every token has it but where its role sets token_no_default_policy = true.
"""


class NoSuchPolicyError(TokendError):
    """There is no such Vault, or the token has nothing to do with it."""


def policies(config: Config, vault: str | None = None, reader: TokenConfig | None = None) -> tuple[str, ...]:
    """One policy, as HCL, for each Vault concerned: for the daemon, or for readers of the token `reader`.

    Raises:
        NoSuchPolicyError: the Vault is unknown, or none is concerned.
    """
    names = (vault,) if vault is not None else tuple(config.vault)
    if not config.vault:
        message = "this configuration has no [vault.NAME], so there is no policy to write"
        raise NoSuchPolicyError(message)
    if vault is not None and vault not in config.vault:
        message = f"--vault: there is no [vault.{vault}]; there is {', '.join(config.vault)}"
        raise NoSuchPolicyError(message)
    if reader is None:
        return tuple(_daemon_policy(config, name) for name in names)
    read = [name for name in names if _places(reader, name)]
    if not read:
        where = f"to [vault.{vault}]" if vault is not None else "to any Vault"
        message = f"--reader: {reader.name} is not published {where}; its readers need no policy there"
        raise NoSuchPolicyError(message)
    return tuple(_reader_policy(config, name, reader) for name in read)


def _daemon_policy(config: Config, vault: str) -> str:
    rules = daemon_rules(config, vault)
    return _head(config, vault, "the daemon", "aca-tokend") + _body(rules) + ("\n" + _DEFAULT if rules else "")


def _reader_policy(config: Config, vault: str, token: TokenConfig) -> str:
    places = _places(token, vault)
    rules = _merged(Rule(kv_path(it.mount, it.path, it.kv_version), READ, Purpose.TOKEN) for it in places)
    return _head(config, vault, f"a reader of {token.name}", f"aca-reader-{token.name}") + _body(rules)


def _head(config: Config, vault: str, whom: str, name: str) -> str:
    namespace = config.vault[vault].namespace
    where = f" -namespace={namespace}" if namespace else ""
    return (
        f"# [vault.{vault}]{f', namespace {namespace}' if namespace else ''}: what {whom} needs, and no more\n"
        f"# bao policy write{where} {name} FILE\n"
    )


def _body(rules: tuple[Rule, ...]) -> str:
    if not rules:
        return "\n# nothing: this configuration neither publishes there nor reads a secret from it\n"
    lines: list[str] = []
    width = max(len(rule.path) for rule in rules) + 2
    for purpose in Purpose:
        written = [rule for rule in rules if rule.purpose is purpose]
        if written:
            lines += ["", f"# {purpose.value}"]
        for rule in written:
            quoted = f'"{rule.path}"'
            capabilities = ", ".join(f'"{it}"' for it in rule.capabilities)
            line = f"path {quoted:{width}} {{ capabilities = [{capabilities}] }}"
            lines.append(f"# {line}" if rule.optional else line)
    return "\n".join(lines) + "\n"
