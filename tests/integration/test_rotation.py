"""The main job: rotations of short tokens against real parts, with readers that are never refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aca_tokend.demo.stage import Settings, wait_until
from tests.integration.conftest import assert_nothing_leaked

if TYPE_CHECKING:
    from aca_tokend.demo.stage import Stage


def test_readers_are_never_refused(stage: Stage) -> None:
    """Over several rotations of 8-second tokens no reader of the KV secret or of the file meets a 401."""
    daemon = stage.daemon(stage.config(["bookings", "signage"]))
    daemon.wait_for("token_rotated", 2)
    readers = [stage.vault_reader("bookings"), stage.file_reader("bookings"), stage.vault_reader("signage")]

    wait_until(lambda: all(reader.tokens >= 4 for reader in readers), "three rotations seen by every reader")

    for reader in readers:
        assert reader.refused == 0, reader.last_refusal
        assert reader.unread == 0
        assert reader.accepted > 20
    assert daemon.metric("rotations_total", token="bookings", result="rotated") >= 4
    assert daemon.metric("token_ttl_seconds", token="bookings") > 0
    assert daemon.metric("token_ready", token="bookings") == 1
    assert_nothing_leaked(stage, daemon)
    assert daemon.terminate() == 0


def test_jwt_and_host_of_its_own(stage: Stage) -> None:
    """A server that tells tenants apart by Host and mints JWTs of some kB is served through another address."""
    stage.lookalike.levers(tenants=["aca.example.com"], token_kind="jwt", jwt_padding=3000, token_type="Bearer")
    config = stage.config(["bookings"], Settings(endpoint='host = "aca.example.com"'))
    daemon = stage.daemon(config)

    daemon.wait_for("token_rotated", 3)

    sent = [seen for seen in stage.lookalike.requests() if seen.path == "/auth/oauth/token"]
    assert {seen.host for seen in sent} == {"aca.example.com"}
    assert_nothing_leaked(stage, daemon)


def test_grant_sends_exactly_the_parameters_of_the_documentation(stage: Stage) -> None:
    """The request is a form of the six parameters and the scope, without cookies, queries or authorization headers."""
    daemon = stage.daemon(stage.config(["bookings"]))
    daemon.wait_for("token_rotated")

    (seen, *_) = [seen for seen in stage.lookalike.requests() if seen.path == "/auth/oauth/token"]
    assert seen.method == "POST"
    assert sorted(seen.form_keys) == [
        "authority",
        "client_id",
        "client_secret",
        "grant_type",
        "password",
        "scope",
        "username",
    ]
    assert not {"cookie", "authorization"} & {name.lower() for name in seen.headers}


def test_second_pod_adopts_and_fills_its_own_file(stage: Stage) -> None:
    """A second daemon adopts what the first published to Vault, fills a file of its own, and makes no grant for it."""
    stage.lookalike.levers(lifetime=600.0)
    first = stage.daemon(stage.config(["bookings"]))
    first.wait_for("token_rotated")

    second = stage.daemon(stage.config(["bookings"], Settings(suffix="-2")), log="second.log")
    second.wait_for("token_adopted")

    wait_until(stage.file_of("bookings", "-2").exists, "the second pod's file")
    assert stage.file_of("bookings", "-2").read_bytes() == stage.file_of("bookings").read_bytes()
    assert stage.lookalike.counts().grants == 1
