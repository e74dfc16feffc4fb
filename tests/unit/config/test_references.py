"""References to secrets in the environment, files and Vaults; and what is never said of them."""

from __future__ import annotations

import os
import stat
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from aca_tokend.config.references import MAX_SECRET_BYTES, SecretResolver
from aca_tokend.core.config import EnvReference, FileReference, VaultReference
from aca_tokend.core.errors import SecretError
from aca_tokend.core.outcome import Reason
from aca_tokend.core.secret import Secret, fingerprint
from aca_tokend.core.steps import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from aca_tokend.core.config import Reference

CANARY = "canary-p4ssword"
NAME = "ACA_TOKEND_TEST_SECRET"


class OneSecretVault:
    """A Vault that holds one value, or fails."""

    def __init__(self, value: str | SecretError) -> None:
        self.value = value
        self.asked: list[tuple[str, str]] = []

    def read_secret(self, mount: str, path: str) -> Callable[[str], Secret]:
        """Tells fields apart by their names, behind the value."""
        self.asked.append((mount, path))
        if isinstance(self.value, SecretError):
            raise self.value
        value = self.value
        return lambda name: Secret(value if name == "password" else f"{name} of {value}")


def failure(reference: Reference, vaults: dict[str, OneSecretVault] | None = None) -> SecretError:
    """The error of resolving it, which names the reference and shows nothing of the value."""
    with pytest.raises(SecretError) as caught:
        SecretResolver(vaults or {}).resolve(reference)
    error = caught.value
    shown = "".join((str(error), repr(error), *traceback.format_exception(error)))
    assert str(error).startswith(f"{reference}: ")
    assert CANARY not in shown
    return error


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(0o600)
    return path


def named(path: Path) -> FileReference:
    return FileReference(file=str(path))


ENDINGS = [
    ("plain", "plain"),
    ("line\n", "line"),
    ("line\r\n", "line"),
    ("two\n\n", "two\n"),
    ("return\r", "return\r"),
    ("\n first line\n", "\n first line"),
    ("pässwörd €\n", "pässwörd €"),
]


@pytest.mark.parametrize(("content", "secret"), ENDINGS)
def test_exactly_one_newline_is_left_out(
    content: str, secret: str, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One newline at the end does not belong to the secret, wherever it is kept; everything else does."""
    secret_file.write_bytes(content.encode())
    monkeypatch.setenv(NAME, content)
    resolver = SecretResolver({"main": OneSecretVault(content)})
    for reference in (named(secret_file), EnvReference(env=NAME), VaultReference(vault="kv/aca#password")):
        assert resolver.resolve(reference) == Secret(secret)


def test_a_changed_secret_is_taken_up(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each resolving reads anew."""
    vault = OneSecretVault("old")
    resolver = SecretResolver({"main": vault})
    references = (named(secret_file), EnvReference(env=NAME), VaultReference(vault="kv/aca#password"))
    for value in ("old", "new"):
        secret_file.write_text(value)
        monkeypatch.setenv(NAME, value)
        vault.value = value
        assert [resolver.resolve(reference) for reference in references] == [Secret(value)] * 3


def test_fields_of_one_secret_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password of one Vault secret come from one read, so that a pair that changes is not torn."""
    monkeypatch.setenv(NAME, "e")
    main, other = OneSecretVault("m"), OneSecretVault("o")
    references: list[Reference] = [
        VaultReference(vault="kv/aca#username"),
        EnvReference(env=NAME),
        VaultReference(vault="kv/aca#password"),
        VaultReference(vault="kv/aca#password", vault_name="other"),
        VaultReference(vault="kv/acb#password"),
    ]

    found = SecretResolver({"main": main, "other": other}).resolve_all(references)

    assert [found[it] for it in references] == [Secret(it) for it in ("username of m", "e", "m", "o", "m")]
    assert (main.asked, other.asked) == ([("kv", "aca"), ("kv", "acb")], [("kv", "aca")])


def test_a_vault_is_asked_by_name_in_its_own_pool() -> None:
    """A Vault reference goes to the Vault it names, and is resolved in that Vault's pool; the others need none."""
    main, other = OneSecretVault("m"), OneSecretVault("o")
    vaults = {"main": main}
    resolver = SecretResolver(vaults)
    vaults["other"] = other
    reference = VaultReference(vault="kv/aca/bookings#password", vault_name="other")
    assert resolver.resolve(reference) == Secret("o")
    assert (main.asked, other.asked) == ([], [("kv", "aca/bookings")])
    assert resolver.pool(reference) == "vault.other"
    assert resolver.pool(EnvReference(env=NAME)) is None
    assert resolver.pool(FileReference(file="/run/secrets/x")) is None


def test_files_of_secrets_have_a_pool_of_their_own() -> None:
    """Neither a mount of secrets that hangs holds up what is published on the same file system, nor the other way."""
    resolver = SecretResolver({}, lambda path: f"file:{Path(path).parent}")

    pool = resolver.pool(FileReference(file="/run/secrets/x"))

    assert pool == "secrets file:/run/secrets"
    assert pool.startswith(LOCAL), "it is relieved of calls that hang"


def test_what_a_vault_says_goes_up_unchanged() -> None:
    """The Vault session has given its error a reason and a place already."""
    error = SecretError(Reason.SECRET_MISSING, "vault main: there is no secret at kv/aca")
    with pytest.raises(SecretError) as caught:
        SecretResolver({"main": OneSecretVault(error)}).resolve(VaultReference(vault="kv/aca#password"))
    assert caught.value is error


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_secret(content: str, secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, or nothing but a newline, is no secret."""
    secret_file.write_bytes(content.encode())
    monkeypatch.setenv(NAME, content)
    vaults = {"main": OneSecretVault(content)}
    for reference in (named(secret_file), EnvReference(env=NAME), VaultReference(vault="kv/aca#password")):
        error = failure(reference, vaults)
        assert (error.reason, str(error)) == (Reason.SECRET_EMPTY, f"{reference}: is empty")


def test_a_missing_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set and a file that is not there are missing."""
    monkeypatch.delenv(NAME, raising=False)
    for reference in (EnvReference(env=NAME), named(tmp_path / "none"), named(tmp_path / "none" / "deeper")):
        assert failure(reference).reason is Reason.SECRET_MISSING


def test_files_that_cannot_be_read(tmp_path: Path, secret_file: Path) -> None:
    """A directory, a loop of links, a path through a file, a pipe, a huge file are unreadable; none makes us wait."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe", 0o600)
    secret_file.write_bytes(CANARY.encode() * (MAX_SECRET_BYTES // len(CANARY) + 1))
    problems = {
        tmp_path: "is a directory",
        tmp_path / "loop": "too many levels of symbolic links",
        secret_file / "x": "not a directory",
        tmp_path / "pipe": "is not a regular file",
        secret_file: f"holds more than {MAX_SECRET_BYTES} bytes",
    }
    for path, problem in problems.items():
        reference = named(path)
        error = failure(reference)
        assert (error.reason, str(error)) == (Reason.SECRET_UNREADABLE, f"{reference}: {problem}")


def test_a_file_that_waits_for_somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some files of /proc call themselves regular and have nothing to read now: that is told, and no bug."""
    os.mkfifo(tmp_path / "kmsg")
    writer = os.open(tmp_path / "kmsg", os.O_RDWR)
    monkeypatch.setattr(stat, "S_ISREG", lambda _mode: True)
    reference = named(tmp_path / "kmsg")
    assert str(failure(reference)) == f"{reference}: is not a regular file"
    os.close(writer)


@pytest.mark.parametrize(
    "content", [CANARY.encode() + b"\xff", CANARY.encode("utf-16"), CANARY.encode() + b"\xed\xa0\x80"]
)
def test_a_secret_that_is_not_utf8(content: bytes, secret_file: Path) -> None:
    """Other bytes are refused rather than guessed at."""
    secret_file.write_bytes(content)
    assert failure(named(secret_file)).reason is Reason.SECRET_NOT_TEXT


def test_a_variable_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not UTF-8 are noticed in a variable too."""
    monkeypatch.setenv(NAME, os.fsdecode(CANARY.encode() + b"\xff"))
    assert failure(EnvReference(env=NAME)).reason is Reason.SECRET_NOT_TEXT


def test_half_a_character_from_a_vault() -> None:
    """JSON can hold half of a surrogate pair, which no form can send."""
    vaults = {"main": OneSecretVault(f"{CANARY}\ud800")}
    assert failure(VaultReference(vault="kv/aca#password"), vaults).reason is Reason.SECRET_NOT_TEXT


def test_a_nul_in_a_secret(secret_file: Path) -> None:
    """A NUL is the sign of a file that is no text."""
    secret_file.write_bytes(CANARY.encode() + b"\0\n")
    error = failure(named(secret_file))
    assert (error.reason, str(error)) == (Reason.SECRET_NOT_TEXT, f"file {secret_file}: holds a NUL character")


def test_a_file_that_others_can_reach_is_warned_of_once(secret_file: Path) -> None:
    """A file open to others is used, with one warning for each state of it that names the path and no value."""
    secret_file.write_text(CANARY)
    resolver = SecretResolver({})

    def warnings(mode: int) -> list[object]:
        secret_file.chmod(mode)
        with capture_logs() as logs:
            for _ in range(3):
                assert resolver.resolve(named(secret_file)) == Secret(CANARY)
        assert CANARY not in repr(logs)
        return list(logs)

    def warned(mode: str) -> object:
        return {
            "event": "secret_file_open_to_others",
            "path": str(secret_file),
            "mode": mode,
            "log_level": "warning",
        }

    assert warnings(0o600) == []
    assert warnings(0o640) == []
    assert warnings(0o644) == [warned("0644")]
    assert warnings(0o644) == []
    assert warnings(0o646) == [warned("0646")]
    assert warnings(0o602) == [warned("0602")]


def test_the_file_behind_a_link_is_what_counts(tmp_path: Path) -> None:
    """Links as in a Kubernetes volume are followed, a switched one is noticed, and its target's mode is looked at."""
    for name, mode in (("v1", 0o644), ("v2", 0o644), ("v3", 0o600)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "password").write_text(f"secret of {name}\n")
        (tmp_path / name / "password").chmod(mode)
    (tmp_path / "password").symlink_to("..data/password")
    resolver = SecretResolver({})
    seen = []
    for name in ("v1", "v1", "v2", "v3"):
        (tmp_path / "..next").symlink_to(name)
        (tmp_path / "..next").replace(tmp_path / "..data")
        with capture_logs() as logs:
            seen.append((resolver.resolve(named(tmp_path / "password")), len(logs)))
    expected = [("v1", 1), ("v1", 0), ("v2", 1), ("v3", 0)]
    assert seen == [(Secret(f"secret of {name}"), warnings) for name, warnings in expected]


def test_a_credential_is_looked_for_where_systemd_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential is read from the folder that the environment names, anew each time; its whole path is warned of."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    reference = FileReference(file="$CREDENTIALS_DIRECTORY/bookings-password")
    resolver = SecretResolver({})
    path = tmp_path / "bookings-password"
    path.write_text("old\n")
    path.chmod(0o440)
    assert resolver.resolve(reference) == Secret("old")

    path.chmod(0o644)
    path.write_text(CANARY)
    with capture_logs() as logs:
        assert resolver.resolve(reference) == Secret(CANARY)
    assert [(line["event"], line["path"]) for line in logs] == [("secret_file_open_to_others", str(path))]

    path.unlink()
    error = failure(reference)
    assert error.reason is Reason.SECRET_MISSING
    assert str(error) == "file $CREDENTIALS_DIRECTORY/bookings-password: there is no such file"


@pytest.mark.parametrize("value", [None, ""])
def test_a_credential_without_systemd(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that was given no credentials the error says whose variable is not set."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if value is not None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", value)
    error = failure(FileReference(file="$CREDENTIALS_DIRECTORY/bookings-password"))
    assert error.reason is Reason.SECRET_MISSING
    assert str(error) == (
        "file $CREDENTIALS_DIRECTORY/bookings-password: "
        "the variable is not set, as it is in a unit of systemd with LoadCredential="
    )


def test_no_descriptor_is_left_open(tmp_path: Path, secret_file: Path) -> None:
    """Reading leaves nothing open, whether it works or not."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    secret_file.write_text(CANARY)
    SecretResolver({}).resolve(named(secret_file))
    failure(named(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_fingerprint_tells_a_change_and_nothing_else() -> None:
    """It is the same for the same parts under the same key, differs for any other, and holds no part."""
    key = Secret("key")
    parts = [Secret("user"), Secret(CANARY)]
    mark = fingerprint(parts, key)
    assert mark == fingerprint([Secret("user"), Secret(CANARY)], Secret("key"))
    assert len(mark) == 32
    assert int(mark, 16) >= 0
    others = [
        fingerprint(parts, Secret("another key")),
        fingerprint(parts[::-1], key),
        fingerprint(parts[:1], key),
        fingerprint([Secret(f"user{CANARY}")], key),
        fingerprint([Secret(f"user{CANARY[0]}"), Secret(CANARY[1:])], key),
        fingerprint([*parts, Secret("")], key),
    ]
    assert len({mark, *others}) == len(others) + 1
