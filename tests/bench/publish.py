"""Measures how long after a grant was answered its token is readable: in Vault against a bare hvac write, in a file.

`python -m tests.bench.publish` prints medians and asserts nothing. Both writes go to the same server over connections
that are kept, in turn, so that what else the machine does falls on both. What is measured is the sink, and with a
daemon what lies between the answer of the grant and the write.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from aca_tokend.core.config import EnvReference, FilePublish, TokenAuth, VaultConfig, VaultPublish
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import Document
from aca_tokend.demo.openbao import OpenBao
from aca_tokend.demo.stage import Settings, Stage, wait_until
from aca_tokend.sinks import FileSink, KvSink
from aca_tokend.vault import VaultSession

if TYPE_CHECKING:
    from collections.abc import Callable

    import hvac

    from aca_tokend.core.ports import Sink

ROUNDS = 500
ROTATIONS = 12
VAULT_RATIO = 1.3
FILE_SECONDS = 0.010


def main() -> None:
    """Runs every measurement in turn."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        with OpenBao.raft(path / "bao") as bao:
            bare, kv = vault_writes(bao)
            show("bare hvac write", bare)
            show("publish to Vault", kv)
            print(f"{'ratio of the medians':<42} {ratio(kv, bare):8.2f}      (target {VAULT_RATIO:g})")
            show("publish to a file", file_writes(path))
            with_daemon(path / "stage", statistics.median(bare))


def show(what: str, seconds: list[float], target: float | None = None) -> None:
    """One row of the table."""
    aim = f"; target {target * 1000:g} ms" if target is not None else ""
    spread = f"{min(seconds) * 1000:.2f} to {max(seconds) * 1000:.2f}"
    print(f"{what:<42} {statistics.median(seconds) * 1000:8.2f} ms   ({spread}{aim})", flush=True)


def ratio(ours: list[float], bare: list[float]) -> float:
    """How many bare writes one of ours takes."""
    return statistics.median(ours) / statistics.median(bare)


def document(number: int) -> Document:
    """A token of its own each time."""
    issued = datetime(2026, 11, 24, 6, tzinfo=UTC) + timedelta(seconds=number)
    return Document(
        access_token=Secret(f"{number:064}"),
        issued_at=issued,
        expires_at=issued + timedelta(hours=2),
        refresh_after=issued + timedelta(hours=1),
        expires_in=7200,
        scope="public",
        username="svc-bookings",
        authority="authority-ID",
        account="00112233445566778899aabbccddeeff",
    )


def timed(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def vault_writes(bao: OpenBao) -> tuple[list[float], list[float]]:
    """Bare writes of hvac and publishes of the sink, in turn."""
    client = bao.client()
    auth = TokenAuth(token=EnvReference(env="VAULT_TOKEN"))
    config = VaultConfig(address=bao.address, auth=auth)
    session = VaultSession("main", config, lambda _: bao.root_token, wall=time.time, on_login=lambda *_: None)
    sink: Sink = KvSink(VaultPublish(mount="secret", path="bench/ours"), session)
    seen = sink.publish(document(0), sink.look())
    bare, ours = [], []
    for number in range(1, ROUNDS):
        fields = document(number).fields()
        bare.append(timed(lambda fields=fields: _bare(client, fields)))  # type: ignore[misc]
        began = time.perf_counter()
        seen = sink.publish(document(number), seen)
        ours.append(time.perf_counter() - began)
    session.close()
    return bare, ours


def _bare(client: hvac.Client, fields: dict[str, object]) -> None:
    client.secrets.kv.v2.create_or_update_secret("bench/bare", secret=fields, mount_point="secret")


def file_writes(directory: Path) -> list[float]:
    """Publishes to a file, with its fsync."""
    sink = FileSink(FilePublish(path=str(directory / "bench.json")))
    seen = sink.publish(document(0), sink.look())
    found = []
    for number in range(1, ROUNDS):
        began = time.perf_counter()
        seen = sink.publish(document(number), seen)
        found.append(time.perf_counter() - began)
    return found


def with_daemon(directory: Path, bare: float) -> None:
    """A daemon's rotations: from the moment the look-alike answered a grant until Vault and file have the token."""
    directory.mkdir()
    with Stage(directory, lifetime=3.0, raft=True) as stage:
        config = stage.config(["bookings"], Settings(rotation='min_interval = "1s"'))
        daemon = stage.daemon(config)
        daemon.wait_for("token_rotated", ROTATIONS + 1)
        client = stage.bao.client().secrets.kv.v2
        versions = client.read_secret_metadata("aca/bookings", mount_point="secret")["data"]["versions"]
        wait_until(lambda: len(versions) > ROTATIONS // 2, "versions")
        events = daemon.events("publish_written")
        for kind in ("vault", "file"):
            took = [float(event["duration_seconds"]) for event in events if event["kind"] == kind][1:]
            show(f"a daemon's publish, {kind}", took, VAULT_RATIO * bare if kind == "vault" else FILE_SECONDS)
        whole = [float(event["duration_seconds"]) for event in daemon.events("token_rotated")][1:]
        show("a daemon's whole rotation", whole)


if __name__ == "__main__":
    main()
