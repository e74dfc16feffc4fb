"""Reading the files: what is included, in which order, and what is said of those that cannot be read."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import traceback
from typing import TYPE_CHECKING

import pytest

from aca_tokend.config.files import MAX_CONFIG_BYTES, folders, load
from aca_tokend.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


CANARY = "canary-Tr0ub4dor"


def token(name: str) -> str:
    """A token as it is written."""
    return f"""
[[tokens]]
name = "{name}"
authority = "authority-1"
username = "svc-{name}"
password = {{ env = "PASSWORD" }}
client_id = "client-1"
client_secret = {{ env = "CLIENT_SECRET" }}
publish = [{{ to = "file", path = "/run/aca/{name}.json" }}]
"""


def main(folder: Path, include: str = "[]", tokens: str = "") -> Path:
    """A main file that includes others."""
    path = folder / "config.toml"
    path.write_text(
        f'include = {include}\n[acaengine.main]\nurl = "https://aca.example.com"\n{tokens}', encoding="utf-8"
    )
    return path


def problems(path: Path | str) -> list[str]:
    """What is wrong, with paths from the main file's folder on; and nothing shown holds the canary."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(caught.value)
    folder = str(path).rpartition("/")[0]
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_included_in_order(tmp_path: Path) -> None:
    """Tokens come in the order of patterns and, within one, of file names; a file that two patterns name comes once."""
    folder = tmp_path / "tokens.d"
    (folder / "deep").mkdir(parents=True)
    for name in ("b", "a", "deep/c", "z"):
        (folder / f"{name}.toml").write_text(token(name.rpartition("/")[2]), encoding="utf-8")
    (folder / "notes.txt").write_text(CANARY, encoding="utf-8")
    path = main(tmp_path, '["tokens.d/z.toml", "tokens.d/*.toml", "tokens.d/**/*.toml"]', token("first"))
    assert [each.name for each in load(path).tokens] == ["first", "z", "a", "b", "c"]


def test_main_file_is_not_included(tmp_path: Path) -> None:
    """A pattern that finds the main file itself, or a link to it, does not read it again."""
    path = main(tmp_path, '["*.toml"]', token("bookings"))
    (tmp_path / "link.toml").symlink_to(path)
    assert [each.name for each in load(str(path)).tokens] == ["bookings"]


def test_absolute_pattern(tmp_path: Path) -> None:
    """A pattern that begins with a slash is not relative to the main file's folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.toml").write_text(token("a"), encoding="utf-8")
    path = main(tmp_path / "here", f'["{tmp_path}/there/*.toml"]')
    assert [each.name for each in load(path).tokens] == ["a"]


def test_folder_that_looks_like_a_pattern(tmp_path: Path) -> None:
    """Only the pattern is one, not the folder of the main file."""
    folder = tmp_path / "a[b]*"
    folder.mkdir()
    (folder / "tokens.toml").write_text(token("a"), encoding="utf-8")
    assert [each.name for each in load(main(folder, '["tokens.toml"]')).tokens] == ["a"]


def test_folders_to_watch(tmp_path: Path) -> None:
    """A change of the configuration is one in a file's folder, in that of what it links to, or where one may appear."""
    for name in ("conf/..1", "conf/tokens.d", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "conf/..data").symlink_to("..1")
    (tmp_path / "conf/config.toml").symlink_to("..data/config.toml")
    (tmp_path / "elsewhere/linked.toml").touch()
    (tmp_path / "conf/tokens.d/a.toml").symlink_to(tmp_path / "elsewhere/linked.toml")
    include = ["tokens.d/*.toml", "later/*/deep.toml", "../beside/one.toml"]

    found = {it.removeprefix(f"{tmp_path}/") for it in folders(tmp_path / "conf/config.toml", include)}

    assert found == {"conf", "conf/..1", "conf/tokens.d", "elsewhere", "conf/later", "beside"}


def test_pattern_without_a_match(tmp_path: Path) -> None:
    """That a pattern finds nothing is no problem; a plain name that is not there is one."""
    assert load(main(tmp_path, '["tokens.d/*.toml"]', token("bookings"))).tokens
    path = main(tmp_path, '["tokens.d/*.toml", "rooms.toml"]', token("bookings"))
    assert problems(path) == [
        "config.toml: include[1]: names a file that does not exist; create it, or remove this entry"
    ]


def test_problems_of_all_files(tmp_path: Path) -> None:
    """The problems of all files are told at once, in the order of the files."""
    (tmp_path / "a.toml").write_bytes(b"# caf\xe9 " + CANARY.encode())
    (tmp_path / "b.toml").write_text(token("rooms").replace("authority", "autority"), encoding="utf-8")
    (tmp_path / "c.toml").mkdir()
    (tmp_path / "d.toml").write_text(f'[[tokens]]\npassword = "{CANARY}', encoding="utf-8")
    assert problems(main(tmp_path, '["[a-d].toml"]', token("bookings").replace("client-1", ""))) == [
        'config.toml: tokens[0] "bookings".client_id: is empty; give it a value',
        "a.toml: line 1: is not UTF-8; save the file as UTF-8",
        'b.toml: tokens[0] "rooms".authority: missing; add authority = "authority-ID"',
        'b.toml: tokens[0] "rooms".autority: unknown key; did you mean authority?',
        "c.toml: is a directory; name a file",
        "d.toml: end of the file: is not valid TOML; end the text with the quotes it begins with",
    ]


def test_main_file_missing(tmp_path: Path) -> None:
    """A main file that is not there is named."""
    assert problems(tmp_path / "config.toml") == ["config.toml: does not exist; create it, or name the right one"]


def test_main_file_through_a_file(tmp_path: Path) -> None:
    """A path that goes on below a file does not exist either."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert problems(tmp_path / "file" / "config.toml") == [
        "config.toml: does not exist; create it, or name the right one"
    ]


def test_link_to_itself(tmp_path: Path) -> None:
    """A symbolic link that leads nowhere but to itself is told as such."""
    (tmp_path / "config.toml").symlink_to(tmp_path / "config.toml")
    assert problems(tmp_path / "config.toml") == ["config.toml: is a symbolic link to itself; let it point to a file"]


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe, a device or a file that is far too large is told at once: nobody waits for it, and it fills no memory."""
    config = tmp_path / "config.toml"
    os.mkfifo(config)
    assert problems(config) == ["config.toml: is not a regular file; name a file"]
    assert problems("/dev/zero") == ["zero: is not a regular file; name a file"]
    config.unlink()
    with config.open("wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    assert problems(config) == [f"config.toml: holds more than {MAX_CONFIG_BYTES} bytes; name the right file"]

    config.unlink()
    config.write_text('include = ["*.conf"]')
    os.mkfifo(tmp_path / "more.conf")
    assert "more.conf: is not a regular file; name a file" in problems(config)


def test_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    """A folder of included files that is there and cannot be listed is a problem: it may hold tokens."""
    (tmp_path / "loop.d").symlink_to("loop.d")
    path = main(tmp_path, f'["loop.d/*.toml", "loop.d/*/*.toml", "{"n" * 300}/*.toml"]', token("bookings"))
    assert problems(path) == [
        "loop.d: is a symbolic link to itself; let it point to a file",
        f"{'n' * 300}: cannot be read (ENAMETOOLONG); see that it can be read",
    ]


def test_folder_that_became_a_file(tmp_path: Path) -> None:
    """A file in place of a folder that `include` names is a problem, and what a pattern finds may be either."""
    (tmp_path / "conf.d").write_text("", encoding="utf-8")
    told = ["conf.d: is not a folder; make it a folder again, or remove what names it from include"]
    for include in ("conf.d/*.toml", "conf.d/**/*.toml", "conf.d/*/more.toml"):
        assert problems(main(tmp_path, f'["{include}"]', token("bookings"))) == told
    below = [told[0].replace("conf.d", "conf.d/a", 1)]
    assert problems(main(tmp_path, '["conf.d/a/*.toml"]', token("bookings"))) == below
    for include in ("*/*.toml", "**/*.toml", "none.d/*.toml"):
        path = main(tmp_path, f'["{include}"]', token("bookings"))
        assert [each.name for each in load(path).tokens] == ["bookings"]


def test_folder_below_a_pattern_that_cannot_be_listed(tmp_path: Path) -> None:
    """The same holds for a folder below `**`, and what is no folder there is no problem."""
    (tmp_path / "all.d").mkdir()
    (tmp_path / "all.d" / "bookings.toml").write_text(token("bookings"), encoding="utf-8")
    (tmp_path / "all.d" / "gone").symlink_to("nowhere")
    path = main(tmp_path, '["all.d/**/*.toml"]')
    assert [each.name for each in load(path).tokens] == ["bookings"]
    (tmp_path / "all.d" / "loop.d").symlink_to("loop.d")
    assert problems(path) == ["all.d/loop.d: is a symbolic link to itself; let it point to a file"]


def test_folders_that_lead_to_each_other(tmp_path: Path) -> None:
    """Each folder below a pattern is looked through once, wherever links lead."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.toml").write_text(token(name), encoding="utf-8")
        for other in ("a", "b"):
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert [each.name for each in load(main(tmp_path, '["a/**/*.toml"]')).tokens] == ["a", "b"]


def test_all_files_as_of_one_moment(tmp_path: Path) -> None:
    """A token that a swap of a ConfigMap moves from one file to another is in every configuration that is read."""
    for number, holder in enumerate(("a", "b")):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        for name in ("a", "b"):
            (folder / f"{name}.toml").write_text(token("moves" if name == holder else f"stays-{name}{number}"))
    (tmp_path / "..data").symlink_to("..0")
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").symlink_to(f"..data/{name}.toml")
    path = main(tmp_path, '["[ab].toml"]')
    done = threading.Event()

    def swap() -> None:
        for number in itertools.cycle((1, 0)):
            if done.wait(0.003):
                return
            (tmp_path / "..next").symlink_to(f"..{number}")
            (tmp_path / "..next").rename(tmp_path / "..data")

    swapping = threading.Thread(target=swap)
    swapping.start()
    read = []
    for _ in range(300):
        with contextlib.suppress(ConfigError):  # they changed each time
            read.append([each.name for each in load(path).tokens])
    done.set()
    swapping.join()

    assert read
    assert {tuple(names) for names in read} <= {("moves", "stays-b0"), ("stays-a1", "moves")}


def test_impossible_path(tmp_path: Path) -> None:
    """A path that no file can have is one that does not exist."""
    assert problems(f"{tmp_path}/\0") == ["\0: does not exist; create it, or name the right one"]


def test_other_input_output_errors(tmp_path: Path) -> None:
    """A system error without words of ours is told by its name."""
    path = tmp_path / ("n" * 300)
    assert problems(path) == [f"{path.name}: cannot be read (ENAMETOOLONG); see that it can be read"]


SYNTAX = {
    "a control character": (
        f'{CANARY} = "\x00"',
        "line 1, column 21: is not valid TOML; end the text on its line, and leave control characters out",
    ),
    "deep nesting": ("a = " + "[" * 100_000, "is nested too deeply; write it with fewer brackets"),
    "an endless number": ("a = " + "1" * 10_000, "is not valid TOML; see https://toml.io"),
    "a table twice": (f"['{CANARY}']\n['{CANARY}']\n", "line 2, column 20: is not valid TOML; write each [table] once"),
    "a key twice": (
        f'a = {{ "{CANARY}" = 1, "{CANARY}" = 2 }}',
        "line 1, column 53: is not valid TOML; write each key once",
    ),
    "a backslash": (
        f'a = "\\{CANARY}"',
        "line 1, column 8: is not valid TOML; write each backslash twice, or the text in single quotes",
    ),
    "an open literal": (
        f"a = '{CANARY}",
        "end of the file: is not valid TOML; end the text with the quotes it begins with",
    ),
    "a date that is none": ("a = 2026-02-30", "line 1, column 5: is not valid TOML; see https://toml.io"),
}


@pytest.mark.parametrize(("content", "problem"), SYNTAX.values(), ids=SYNTAX)
def test_syntax(tmp_path: Path, content: str, problem: str) -> None:
    """A file that is not TOML is told with the place, and nothing of what stands there."""
    path = tmp_path / "config.toml"
    path.write_text(content, encoding="utf-8")
    assert problems(path) == [f"config.toml: {problem}"]


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark, as editors on Windows write it, does no harm."""
    path = main(tmp_path, tokens=token("bookings"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load(path).tokens) == 1


def test_relative_main_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are relative to the main file's folder where its path is relative, too."""
    (tmp_path / "rooms.toml").write_text(token("rooms"), encoding="utf-8")
    main(tmp_path, '["rooms.toml"]')
    monkeypatch.chdir(tmp_path)
    assert [each.name for each in load("config.toml").tokens] == ["rooms"]


def test_what_tokens_say_alike_is_held_once(tmp_path: Path) -> None:
    """Tokens of one application share what they have in common, and are still equal, copied and shown as ever."""
    one, two = load(main(tmp_path, tokens=token("one") + token("two"))).tokens
    assert one.client_id is two.client_id
    assert one.password is two.password
    assert one.model_fields_set is two.model_fields_set
    assert one != two
    assert one.model_copy(update={"name": "two", "username": two.username, "publish": two.publish}) == two
    assert "name='one'" in repr(one)
