"""Writes the completions for bash, zsh and fish, deploy/completion/, out of the commands. `make manual` calls it.

They are plain scripts: nothing of the program runs while somebody types.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from commands import PROGRAM, commands, root_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Command, Option

FOLDER = Path(__file__).parents[1] / "completion"
HEADER = "# Written by make manual.\n"
CHOICES = {"--log-format": ("auto", "json", "console")}
# every command has it by itself
HELP = "Show the help and exit."


def bash() -> str:
    """For bash, with or without the package bash-completion."""
    every = [*(option for command in commands() for option in command.parameters), *root_options()]
    taking = sorted({name for option in every if option.value for name in option.names})
    files = sorted({name for option in every if option.value == "FILE" for name in option.names})
    cases = "\n".join(f'    {command.name}) words="{_words(command)}" ;;' for command in commands())
    choices = "\n".join(
        f'    {name}) COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$word")); return ;;'
        for name, values in CHOICES.items()
    )
    before = " ".join([*(command.name for command in commands()), "--help", *_names(root_options())])
    return f"""{HEADER}_aca_tokend() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} words
  COMPREPLY=()
  case $before in
{choices}
    {"|".join(files)}) COMPREPLY=($(compgen -f -- "$word")); return ;;
    {"|".join(name for name in taking if name not in files and name not in CHOICES)}) return ;;
  esac
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "{before}" -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{cases}
    *) return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _aca_tokend {PROGRAM}
"""


def zsh() -> str:
    """For zsh, as a function in its `fpath`."""

    def described(option: Option) -> str:
        action = ""
        if option.value:
            values = CHOICES.get(option.names[0], ())
            kind = "_files" if option.value == "FILE" else f"({' '.join(values)})" if values else " "
            action = f":{_escaped(option.value)}:{kind}"
        star = "*" if option.repeatable else ""
        return f"    '{star}{option.names[0]}[{_escaped(option.help)}]{action}' \\"

    cases = "\n".join(
        "\n".join(
            [
                f"  {command.name}) _arguments \\",
                *(described(option) for option in command.parameters if option.names),
                f"    '--help[{HELP}]' ;;",
            ]
        )
        for command in commands()
    )
    listed = "\n".join(f"    '{command.name}:{_escaped(command.help)}'" for command in commands())
    root = " ".join(f"'{option.names[0]}[{_escaped(option.help)}]'" for option in root_options())
    return f"""#compdef {PROGRAM}
{HEADER}local -a known
if ((CURRENT == 2)); then
  known=(
{listed}
  )
  _describe command known
  _arguments {root} '--help[{HELP}]'
  return
fi
local command=$words[2]
shift words
((CURRENT--))
case $command in
{cases}
esac
"""


def fish() -> str:
    """For fish, as a file in its folder of completions."""
    lines = [f"complete -c {PROGRAM} -f"]
    lines += [
        f"complete -c {PROGRAM} -n __fish_use_subcommand -a {command.name} -d '{_quoted(command.help)}'"
        for command in commands()
    ]
    lines += [_fish("__fish_use_subcommand", option) for option in root_options()]
    for command in commands():
        seen = f"'__fish_seen_subcommand_from {command.name}'"
        lines += [_fish(seen, option) for option in command.parameters if option.names]
    lines.append(f"complete -c {PROGRAM} -l help -d '{HELP}'")
    return HEADER + "\n".join(lines) + "\n"


def _fish(condition: str, option: Option) -> str:
    name = option.names[0].removeprefix("--")
    values = CHOICES.get(option.names[0], ())
    takes = "" if not option.value else " -r -F" if option.value == "FILE" else " -x"
    choices = f" -a '{' '.join(values)}'" if values else ""
    return f"complete -c {PROGRAM} -n {condition} -l {name}{takes}{choices} -d '{_quoted(option.help)}'"


def _words(command: Command) -> str:
    return " ".join(["--help", *_names(command.parameters)])


def _names(options: tuple[Option, ...] | list[Option]) -> list[str]:
    return [name for option in options for name in option.names]


def _escaped(text: str) -> str:
    """Text as zsh wants it within brackets, or before a colon."""
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text.replace("'", "'\\''")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


FILES: dict[str, Callable[[], str]] = {f"{PROGRAM}.bash": bash, f"_{PROGRAM}": zsh, f"{PROGRAM}.fish": fish}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, script in FILES.items():
        (FOLDER / name).write_text(script(), encoding="utf-8")
