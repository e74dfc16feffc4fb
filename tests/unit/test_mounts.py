"""Each file system has a pool of its own: which one a path is on, and what that keeps apart."""

from __future__ import annotations

import pytest

from aca_tokend.core.config import DirectoryPublish, FilePublish, FormatConfig
from aca_tokend.sinks import build
from aca_tokend.sinks.mounts import mount_of, parse_mounts, pool_of

MOUNTINFO = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /run rw,nosuid shared:2 - tmpfs tmpfs rw,mode=755
23 22 0:40 / /run/user/1000 rw,nosuid shared:3 - tmpfs tmpfs rw
24 21 0:41 / /mnt/my\040files rw - nfs4 server:/export rw
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/etc/aca/token", "/"),
        ("/run/aca/bookings.json", "/run"),
        ("/run", "/run"),
        ("/running/aca", "/"),
        ("/run/user/1000/aca", "/run/user/1000"),
        ("/mnt/my files/token", "/mnt/my files"),
    ],
)
def test_mount_of_a_path(path: str, mount: str) -> None:
    """A path is on the file system whose mount point is the longest that it lies below."""
    assert mount_of(path, parse_mounts(MOUNTINFO)) == mount


@pytest.mark.parametrize("text", ["", "nonsense", "21 1 8:1\n"])
def test_mounts_that_cannot_be_told(text: str) -> None:
    """Where nothing is known of mounts, all paths count to the root."""
    assert mount_of("/run/aca", parse_mounts(text)) == "/"


def test_sinks_on_two_file_systems_have_two_pools() -> None:
    """What hangs on one file system takes no thread from another; /proc is one everywhere."""
    here = build(FilePublish(path="/bookings.json"), {})
    there = build(DirectoryPublish(path="/proc/aca", files={"token": FormatConfig(format="token")}), {})

    assert (here.pool, there.pool) == (pool_of("/bookings.json"), "file:/proc")
    assert here.pool != there.pool
