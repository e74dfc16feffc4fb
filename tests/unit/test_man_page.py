"""The man page and the completions are what `make manual` writes, and know every command and option."""

from __future__ import annotations

import shlex
import subprocess

import completion
import man
import pytest
from commands import commands

COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_aca_tokend
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(shlex.quote(word) for word in ("aca-tokend", *words))
    script = COMPLETE.format(script=completion.FOLDER / "aca-tokend.bash", words=line, last=len(words))
    command = ["bash", "-euc", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=completion.FOLDER)
    assert done.stderr == ""
    return done.stdout.split()


def test_man_page() -> None:
    """deploy/man/aca-tokend.1 is what `make manual` writes, and has every command and option."""
    text = man.PAGE.read_text(encoding="utf-8")
    assert text == man.text()
    for command in commands():
        assert f"\n.SS {command.name}" in text
        for option in command.parameters:
            for name in option.names:
                assert f"\\fB{name.replace('-', chr(92) + '-')}\\fR" in text


@pytest.mark.parametrize("name", completion.FILES)
def test_completions_are_current(name: str) -> None:
    """Each script in deploy/completion is what `make manual` writes."""
    assert (completion.FOLDER / name).read_text(encoding="utf-8") == completion.FILES[name]()


def test_bash_completes() -> None:
    """Bash offers the commands, the options of a command, the values and files that an option takes, and no more."""
    names = [command.name for command in commands()]
    assert completed("") == [*names, "--help", "--version"]
    assert completed("s") == ["status", "simulate", "schema"]
    assert completed("doctor", "--g") == ["--grant"]
    assert completed("run", "--log-format", "j") == ["json"]
    assert sorted(completed("run", "--config", "aca")) == ["aca-tokend.bash", "aca-tokend.fish"]
    assert completed("simulate", "--outage", "") == []
    assert completed("no-such-command", "") == []
    for command in commands():
        options = {name for option in command.parameters for name in option.names}
        assert set(completed(command.name, "--")) == options | {"--help"}
