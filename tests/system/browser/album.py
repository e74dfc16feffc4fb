"""Which pictures of the status page there are in docs/images, and whether they are current.

That is told without a browser and without comparing pixels, which differ from one version of a browser to the next: by
a digest of the pages that they show and of the style sheet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from aca_tokend.pages import site
from tests.status_pages import SCENES

IMAGES = Path(__file__).parents[3] / "docs" / "images"
_RECORD = IMAGES / "status.sha256"


@dataclass(frozen=True)
class Picture:
    """One picture; `height` cuts a long page off."""

    name: str
    scene: str
    path: str = "/"
    width: int = 1180
    height: int | None = None
    dark: bool = False
    scale: float = 1.0


PICTURES = (
    Picture("well", "well"),
    Picture("suspended", "suspended"),
    Picture("suspended-token", "suspended", path="/tokens/bookings"),
    Picture("endpoint-down", "endpoint-down"),
    Picture("everything", "everything"),
    Picture("many", "many", path="/?refresh=off", height=900),
    Picture("empty", "empty"),
    Picture("dark", "suspended", dark=True),
    Picture("phone", "suspended", width=390, height=1100),
    Picture("zoomed", "suspended", width=640, height=900, scale=2.0),
)


def current() -> str:
    """The digest of what the pictures would show now."""
    together = hashlib.sha256()
    for picture in PICTURES:
        scene = SCENES[picture.scene]()
        app = Flask("album", static_folder=None, template_folder=None)
        site(scene.status, scene.token)(app)
        client = app.test_client()
        together.update(repr(picture).encode() + client.get(picture.path).data + client.get("/static/status.css").data)
    return together.hexdigest()


def recorded() -> str:
    """The digest when the pictures were taken."""
    return _RECORD.read_text(encoding="utf-8").strip()


def record() -> None:
    """The pictures are current."""
    _RECORD.write_text(current() + "\n", encoding="utf-8")
