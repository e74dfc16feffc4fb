"""KV secrets in a Vault: the requests, and what their answers mean. A look is one request, a write is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aca_tokend.core.outcome import Reason
from aca_tokend.vault_http import RequestFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import hvac


@dataclass(frozen=True, slots=True)
class KvRead:
    """The latest version of one KV secret.

    Attributes:
        fields: None where there is nothing, or where the latest version is deleted or destroyed.
        version: what a write must name as the version it replaces; 0 where there is nothing.
        deleted: whether the latest version is deleted or destroyed.
    """

    fields: Mapping[str, object] | None = field(repr=False)
    version: int
    deleted: bool


def read(client: hvac.Client, mount: str, path: str) -> KvRead:
    """Reads the latest version, in one request. Raises RequestFailedError."""
    try:
        answer = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
    except RequestFailedError as failed:
        if failed.version is None:
            raise
        return KvRead(None, failed.version, deleted=failed.version > 0)
    match answer:
        case {"data": {"data": dict() as fields, "metadata": {"version": int() as version}}}:
            return KvRead(fields, version, deleted=False)
    raise RequestFailedError(Reason.MOUNT_MISSING, "what is mounted there is no KV version 2")


def write(client: hvac.Client, mount: str, path: str, fields: Mapping[str, object], cas: int) -> int:
    """Writes a version over version `cas`, in one request, and returns its number. Raises RequestFailedError."""
    match client.secrets.kv.v2.create_or_update_secret(path, secret=fields, cas=cas, mount_point=mount):
        case {"data": {"version": int() as version}}:
            return version
    raise RequestFailedError(Reason.MOUNT_MISSING, "what is mounted there is no KV version 2")
