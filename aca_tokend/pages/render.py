"""Turns what is to be shown into HTML, by Jinja2 with every value escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aca_tokend.core.saying import clock, relative, span, tokens
from aca_tokend.core.status import State
from aca_tokend.pages.bar import bar
from aca_tokend.pages.listing import ILL, culprit, tone
from aca_tokend.pages.words import sentence

if TYPE_CHECKING:
    from datetime import datetime

# A page loads itself again after so long.
REFRESH_SECONDS = 30


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("aca_tokend.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (culprit, bar, clock, iso, relative, sentence, span, tokens, tone)
    environment.filters.update({one.__name__: one for one in filters})
    environment.globals.update(REFRESH_SECONDS=REFRESH_SECONDS, State=State, ILL=ILL)
    return environment


def html(template: str, **values: Any) -> str:  # noqa: ANN401 -- whatever the template takes
    """The page that a template makes of these values."""
    return _environment().get_template(f"{template}.html").render(values)


def iso(at: datetime) -> str:
    """A time as programs read it."""
    return at.isoformat(timespec="seconds")
