"""How long after a grant was answered its token is readable: in Vault against a bare hvac write, in a file.

Both writes go to the same server over connections that are kept, in turn, so that what else the machine does falls on
both.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from aca_tokend.core.config import EnvReference, FilePublish, TokenAuth, VaultConfig, VaultPublish
from aca_tokend.sinks import FileSink, KvSink
from aca_tokend.vault.session import VaultSession
from tests.unit.file_writer import document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import hvac

    from aca_tokend.core.ports import Sink
    from aca_tokend.demo.openbao import OpenBao


def ratio(ours: list[float], bare: list[float]) -> float:
    """How many bare writes one of ours takes."""
    return statistics.median(ours) / statistics.median(bare)


def timed(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def vault_writes(bao: OpenBao, rounds: int) -> tuple[list[float], list[float]]:
    """Bare writes of hvac and publishes of the sink, in turn."""
    client = bao.client()
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    config = VaultConfig(address=bao.address, auth=auth)
    session = VaultSession("main", config, lambda _: bao.root_token, wall=time.time, on_login=lambda *_: None)
    sink: Sink = KvSink(VaultPublish(mount="secret", path="bench/ours"), session)
    seen = sink.publish(document(0), sink.look())
    bare, ours = [], []
    for number in range(1, rounds):
        fields = document(number).fields()
        bare.append(timed(lambda fields=fields: _bare(client, fields)))  # type: ignore[misc]
        began = time.perf_counter()
        seen = sink.publish(document(number), seen)
        ours.append(time.perf_counter() - began)
    session.close()
    return bare, ours


def _bare(client: hvac.Client, fields: dict[str, object]) -> None:
    client.secrets.kv.v2.create_or_update_secret("bench/bare", secret=fields, mount_point="secret")


def file_writes(directory: Path, rounds: int) -> list[float]:
    """Publishes to a file, with its fsync."""
    sink = FileSink(FilePublish(path=str(directory / "bench.json")))
    seen = sink.publish(document(0), sink.look())
    found = []
    for number in range(1, rounds):
        began = time.perf_counter()
        seen = sink.publish(document(number), seen)
        found.append(time.perf_counter() - began)
    return found
