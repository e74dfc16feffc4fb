"""`after`: what is run once a sink was written, so that a program that reads it only at its start reads it anew."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from aca_tokend.core.config._kinds import Duration, FilePath, Text, written
from aca_tokend.core.config._table import Table
from aca_tokend.core.config._wrong import kind_of, refuse

_FORMS = 'write { command = ["nginx", "-s", "reload"] } or { signal = "HUP", pid_file = "/run/nginx.pid" }'


class CommandHook(Table):
    """A program that is run after a write, without a shell."""

    command: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] = Field(
        description="The program and its arguments, each a text of its own; there is no shell. No secret belongs here.",
        examples=[["nginx", "-s", "reload"]],
    )
    timeout: Annotated[float, Duration(0.1, 60)] = written("10s", description="How long it may run before it is ended.")

    @field_validator("command")
    @classmethod
    def _program(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        program = value[0]
        if "/" in program and not program.startswith("/"):
            refuse("begins with a relative path", "write the name of a program, or its whole path, beginning with /")
        if not program.startswith("/") and len(program.split()) > 1:
            refuse("has spaces in the name of the program", 'write each argument by itself: ["nginx", "-s", "reload"]')
        return value


class SignalHook(Table):
    """A signal that is sent after a write."""

    signal: Literal["HUP", "USR1", "USR2", "TERM"] = Field(description="The signal to send.", examples=["HUP"])
    pid_file: FilePath = Field(
        description="Absolute path of the file with the number of the process.", examples=["/run/nginx.pid"]
    )


After = CommandHook | SignalHook


def _read(value: object, info: ValidationInfo) -> After | None:
    if value is None or isinstance(value, CommandHook | SignalHook):
        return value
    if not isinstance(value, dict):
        refuse(f"must be a table, not {kind_of(value)}", _FORMS)
    found = [key for key in ("command", "signal") if key in value]
    if len(found) != 1:
        refuse("has command and signal at once" if found else "has neither command nor signal", _FORMS)
    table: type[After] = CommandHook if found == ["command"] else SignalHook
    return table.model_validate(value, context=info.context)


AfterField = Annotated[After | None, PlainValidator(_read, json_schema_input_type=After)]
