"""KV secrets in a Vault: the requests, and what their answers mean. A look is one request, a write is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from aca_tokend.core.outcome import Reason
from aca_tokend.core.vault_answers import (
    KvRead,
    KvWritten,
    capabilities_of,
    fields_of,
    kv_version_of,
    secret_of,
    written_of,
)
from aca_tokend.vault.client import RequestFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import hvac

T = TypeVar("T")

_NOT_VERSION_2 = "what is mounted there is no KV version 2; if it is version 1, set kv_version = 1"


def read(client: hvac.Client, mount: str, path: str) -> KvRead:
    """Reads the latest version, in one request. Raises RequestFailedError."""
    try:
        answer = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
    except RequestFailedError as failed:
        if failed.version is None:
            raise
        return KvRead(None, failed.version)
    return _understood(secret_of(answer), Reason.MOUNT_MISSING, _NOT_VERSION_2)


def write(client: hvac.Client, mount: str, path: str, fields: Mapping[str, object], cas: int) -> KvWritten:
    """Writes a version over version `cas`, in one request. Raises RequestFailedError."""
    answer = client.secrets.kv.v2.create_or_update_secret(path, secret=fields, cas=cas, mount_point=mount)
    return _understood(written_of(answer), Reason.MOUNT_MISSING, _NOT_VERSION_2)


def describe(client: hvac.Client, mount: str, path: str, about: Mapping[str, str]) -> None:
    """Writes the custom metadata of a secret, in one request. Raises RequestFailedError."""
    client.adapter.post(f"/v1/{mount}/metadata/{path}", json={"custom_metadata": dict(about)})


def read1(client: hvac.Client, mount: str, path: str) -> Mapping[str, object] | None:
    """Reads a version 1 secret, in one request; None where there is none. Raises RequestFailedError."""
    try:
        answer = client.secrets.kv.v1.read_secret(path, mount_point=mount)
    except RequestFailedError as failed:
        if failed.version is None:
            raise
        return None
    return _understood(fields_of(answer), Reason.MOUNT_MISSING, "what is mounted there is no KV version 1")


def write1(client: hvac.Client, mount: str, path: str, fields: Mapping[str, object]) -> None:
    """Replaces a version 1 secret, in one request. Raises RequestFailedError."""
    client.adapter.put(f"/v1/{mount}/{path}", json=dict(fields))


def capabilities(client: hvac.Client, paths: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """What the client's token may do on each of these paths, in one request. Raises RequestFailedError."""
    answer = client.sys.get_capabilities(list(paths))
    return _understood(capabilities_of(answer, paths), Reason.NOT_JSON, "the answer tells nothing of these paths")


def mount_version(client: hvac.Client, mount: str) -> int | None:
    """The version of the KV engine mounted there, None where it is another engine. Raises RequestFailedError."""
    return kv_version_of(client.adapter.get(f"/v1/sys/internal/ui/mounts/{mount}"), mount)


def _understood(meaning: T | None, reason: Reason, otherwise: str) -> T:
    if meaning is None:
        raise RequestFailedError(reason, otherwise)
    return meaning
