"""The script that most people would write: requests and hvac, one token after the other."""

from __future__ import annotations

import sys

import hvac
import requests


def main() -> None:
    """One round of its `while True`."""
    url, address, token, prefix, count = sys.argv[1:]
    vault = hvac.Client(url=address, token=token)
    for number in range(int(count)):
        form = {"grant_type": "password", "username": f"svc-{number}", "password": "not-a-secret", "client_id": "c"}
        answer = requests.post(url, data=form, timeout=10).json()
        vault.secrets.kv.v2.create_or_update_secret(
            f"{prefix}/t{number}", {"access_token": answer["access_token"]}, mount_point="secret"
        )


if __name__ == "__main__":
    main()
