"""The bare loop: the requests that the daemon makes, by the same httpx and hvac, in as many threads, and nothing else.

No retries, no schedule, no guard, no metrics, no logs. `first` makes those of a first token (look, attempt record read,
claimed, granted, settled, published, described), `again` those of each later one (look, granted, published).
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx
import hvac
import requests
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 8  # as many requests at once to Vault as the daemon makes (max_concurrency)
FORM = {
    "grant_type": "password",
    "username": "svc",
    "password": "not-a-secret",
    "authority": "authority-1",
    "client_id": "5f4dcc3b5aa765d61d8327deb882cf99",
    "client_secret": "not-a-secret",
    "scope": "public",
}


class Loop:
    """What each thread does."""

    def __init__(self, mode: str, url: str, address: str, token: str, prefix: str) -> None:
        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=THREADS))
        limits = httpx.Limits(max_connections=THREADS, max_keepalive_connections=THREADS)
        self.kv = hvac.Client(url=address, token=token, session=session).secrets.kv.v2
        self.http = httpx.Client(limits=limits)
        self.first, self.url, self.prefix = mode == "first", url, prefix
        self.versions: dict[int, int] = {}

    def rotate(self, number: int) -> None:
        """One rotation of one token."""
        path = f"{self.prefix}/t{number}"
        self.read(path)
        if self.first:
            self.read(f"{path}.attempts")
            self.write(f"{path}.attempts", {"spent": 1}, 0)
        answer = self.http.post(self.url, data=FORM).json()
        if self.first:
            self.write(f"{path}.attempts", {"spent": 0}, 1)
        document = {**FORM, **answer, "authorization": f"Bearer {answer['access_token']}"}
        self.versions[number] = self.write(path, document, self.versions.get(number, 0))
        if self.first:
            self.kv.update_metadata(path, mount_point="secret", custom_metadata={"managed_by": "bare"})

    def read(self, path: str) -> None:
        """A look."""
        with contextlib.suppress(hvac.exceptions.InvalidPath):
            self.kv.read_secret_version(path, mount_point="secret", raise_on_deleted_version=True)

    def write(self, path: str, fields: dict[str, object], version: int) -> int:
        """A write with check-and-set."""
        written = self.kv.create_or_update_secret(path, fields, cas=version, mount_point="secret")
        return int(written["data"]["version"])


def main() -> None:
    """Rotates so many tokens so many times, and prints seconds, CPU seconds and rotations."""
    loop, count, rounds = Loop(*sys.argv[1:6]), int(sys.argv[6]), int(sys.argv[7])
    began, cpu = time.monotonic(), time.process_time()
    for _ in range(rounds):
        numbers = iter(range(count))  # of which each thread takes the next: `next` is one step

        def work(numbers: Iterator[int] = numbers) -> None:
            for number in numbers:
                loop.rotate(number)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    result = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu, "rotations": count * rounds}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
