"""Sentences as the pages show them. Pure."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# What begins like this names a place, such as `tokens[3].password` or `vault:secret/aca`, and keeps its letters.
_PLACE = re.compile(r"[a-z]+(?=[^a-z'; ,.]|[.:]\S)")
_CODE = re.compile(r"`([^`]+)`")


def sentence(text: str) -> Markup:
    """A text with a capital at its beginning and a full stop at its end; what stands in code marks becomes code."""
    text = text if _PLACE.match(text) else text[:1].upper() + text[1:]
    text = text if not text or text.endswith((".", "!", "?")) else f"{text}."
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 -- escaped just here
