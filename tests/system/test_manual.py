"""The man page as its readers show it, and the completions in the shells that are no part of every system."""

from __future__ import annotations

import re
import subprocess

import completion
import man
from commands import commands

ZSH = """
_arguments() { print -rl -- "$@" }
_describe() { print -rl -- "${known[@]}" }
complete() { source ./_aca-tokend }
"""


def said(*command: str) -> str:
    """What a command says, in the folder of the completions; both outputs are one."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=completion.FOLDER
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_man_page_is_well_formed() -> None:
    """Neither groff nor mandoc finds anything wrong with it, but that a page made by a script has no date."""
    assert said("groff", "-man", "-Tutf8", "-ww", "-z", str(man.PAGE)) == ""
    command = ["mandoc", "-T", "lint", "-W", "warning", str(man.PAGE)]
    lint = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (lint.stdout + lint.stderr).splitlines()
    assert [line for line in lines if not line.endswith('missing date, using "": TH')] == []
    shown = said("mandoc", "-T", "utf8", "-O", "width=300", str(man.PAGE))
    assert "\nEXIT STATUS\n" in re.sub(".\b", "", shown)
    assert "--outage DURATION" in re.sub(".\b", "", shown)


def test_zsh_completes() -> None:
    """In zsh each command has a word of help, and each command its options."""
    offered = said("zsh", "-fc", ZSH + "words=(aca-tokend '') CURRENT=2; complete")
    for command in commands():
        assert f"{command.name}:" in offered
        options = said("zsh", "-fc", ZSH + f"words=(aca-tokend {command.name} '') CURRENT=3; complete").splitlines()
        named = [option for option in command.parameters if option.names]
        assert len(options) == len(named) + 1, options
        assert all(any(line.lstrip("*").startswith(f"{each.names[0]}[") for line in options) for each in named)


def test_fish_completes() -> None:
    """In fish each command has a word of help, and each command its options with the values that there are."""

    def offered(line: str) -> set[str]:
        script = f"set fish_complete_path; source aca-tokend.fish; complete -C '{line}'"
        return {each.split("\t")[0] for each in said("fish", "--no-config", "-c", script).splitlines()}

    assert offered("aca-tokend ") == {command.name for command in commands()}
    for command in commands():
        options = {name for each in command.parameters for name in each.names}
        assert offered(f"aca-tokend {command.name} --") == {*options, "--help"}
    assert offered("aca-tokend run --log-format ") == {"auto", "json", "console"}
