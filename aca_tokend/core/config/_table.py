"""`Table`, the base of every table of the configuration file: strict, frozen, and its errors speak to people.

Each table explains what pydantic says of its own keys, and passes on what the tables inside it explained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from aca_tokend.core.config._wrong import KIND, did_you_mean, kind_of, nearest, toml, wrong

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails, PydanticCustomError

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "tuple_type": "an array",
}
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


class Table(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, validate_default=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            found = error.errors(include_url=False)
        # a list whose items are all wrong is not also empty
        inside = {detail["loc"][0] for detail in found if len(detail["loc"]) > 1}
        details = [
            _explained(cls, detail)
            for detail in found
            if detail["type"] != "too_short" or detail["loc"][0] not in inside
        ]
        # outside the except clause: that error holds the values it was given, and nothing may lead back to it
        raise ValidationError.from_exception_data(cls.__name__, details, hide_input=True)


def _explained(table: type[Table], detail: ErrorDetails) -> InitErrorDetails:
    place = tuple(part for part in detail["loc"] if part != "[key]")
    error = wrong(**detail["ctx"]) if detail["type"] == KIND else _translated(table, detail)
    context: dict[str, Any] = error.context or {}
    if "at" in context:
        place = (context["at"],) if context["at"] else ()
    if "below" in context:
        place = (*place, context["below"])
    return InitErrorDetails(type=wrong(context["problem"], context["fix"]), loc=place, input=None)


def _translated(table: type[Table], detail: ErrorDetails) -> PydanticCustomError:
    """Says in our words what pydantic found."""
    kind, value, place = detail["type"], detail["input"], detail["loc"]
    if kind == "model_type":
        return wrong(f"must be a table, not {kind_of(value)}", "write it as a table of keys and values")
    name = str(place[0])
    if kind == "extra_forbidden":
        return wrong("unknown key", did_you_mean(name, table.model_fields, "the keys here"))
    field = table.model_fields[name]
    if kind in {"missing", "too_short"}:
        return wrong("missing", f"add {name} = {_sample(field)}")
    fix = f"write {name} = {_sample(field)}"
    if kind == "tuple_type" and isinstance(value, dict):
        fix = f"write its header with two brackets on each side, as in [[tokens.{name}]]"
    if kind == "literal_error":
        choices = [str(choice) for choice in getattr(field.annotation, "__args__", ())]
        meant = nearest(value, choices) if isinstance(value, str) else None
        listed = ", ".join(toml(choice) for choice in choices)
        return wrong(f"must be one of {listed}", f"write {name} = {toml(meant)}" if meant else fix)
    if kind in _WANTED:
        return wrong(f"must be {_WANTED[kind]}" + ("" if kind == "finite_number" else f", not {kind_of(value)}"), fix)
    bounds = [
        f"{words} {getattr(rule, bound)}"
        for bound, words in _BOUNDS.items()
        for rule in field.metadata
        if hasattr(rule, bound)
    ]
    return wrong(f"must be {' and '.join(bounds)}", fix)


def _sample(field: FieldInfo) -> str:
    return toml(field.examples[0] if field.examples else field.default)
