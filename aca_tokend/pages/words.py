"""Words and sentences as the pages show them. Pure: `now` is an argument."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from aca_tokend.core.saying import span

if TYPE_CHECKING:
    from datetime import datetime

# What begins like this names a place, such as `tokens[3].password` or `vault:secret/aca`, and keeps its letters.
_PLACE = re.compile(r"[a-z]+(?=[^a-z'; ,.]|[.:]\S)")
_CODE = re.compile(r"`([^`]+)`")


def relative(at: datetime, now: datetime) -> str:
    """When something is, seen from now: `in 2 h 13 min`, `12 s ago`, `now`."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def tokens(count: int) -> str:
    """So many tokens."""
    return f"{count:,} token{'' if count == 1 else 's'}"


def sentence(text: str) -> Markup:
    """A text with a capital at its beginning and a full stop at its end; what stands in code marks becomes code."""
    text = text if _PLACE.match(text) else text[:1].upper() + text[1:]
    text = text if not text or text.endswith((".", "!", "?")) else f"{text}."
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 -- escaped just here
