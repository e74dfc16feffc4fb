"""The site of docs/: built strictly, whole without another host, and readable in the light, in the dark, on a phone."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.blocks import ROOT
from tests.system.browser.pictures import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

# A machine that does much else takes its time.
LIMIT_MS = 60_000
MKDOCS = ROOT / ".venv" / "docs" / "bin" / "mkdocs"
PAGES = [ROOT / "docs" / "README.md", *sorted((ROOT / "docs").glob("[!R]*.md"))]
# a built site is nobody's to change, so it is made once for all tests of a worker, and they are of one worker
pytestmark = pytest.mark.xdist_group("site")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    directory = tmp_path_factory.mktemp("site")
    command = [str(MKDOCS), "build", "--quiet", "--strict", "--site-dir", str(directory)]
    environment = {"PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return directory


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    """Where the site is served."""
    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    with chromium() as browser:
        yield browser


def name_of(page: Path) -> str:
    """The file of a page on the site."""
    return "index.html" if page.name == "README.md" else f"{page.stem}.html"


def test_every_page_is_there(built: Path) -> None:
    """Each page is on the site, and what pages link to outside docs/ lies beside them."""
    assert not [page.name for page in PAGES if not (built / name_of(page)).is_file()]
    for outside in ("SECURITY.html", "CONTRIBUTING.html", "config.example.toml", "deploy/grafana/aca-tokend.json"):
        assert (built / "repository" / outside).is_file()


def test_nothing_of_other_hosts(built: Path) -> None:
    """No page loads a script, a style, a picture or a font of another host, and no style sheet does."""
    for file in sorted(built.rglob("*.html")):
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"' >]+)", file.read_text("utf-8"))
        loaded += re.findall(r"<link[^>]*rel=[\"']?(?:stylesheet|preconnect|preload)[^>]*", file.read_text("utf-8"))
        assert not [found for found in loaded if "//" in found], file.name
    for file in sorted(built.rglob("*.css")):
        assert not re.search(r"url\([\"']?(?:https?:)?//", file.read_text("utf-8")), file.name


@pytest.mark.parametrize(("scheme", "width", "pages"), [("light", 390, PAGES), ("dark", 1280, PAGES[:4])])
def test_in_a_browser(browser: Browser, address: str, scheme: str, width: int, pages: list[Path]) -> None:
    """No page asks another host, has an error or is wider than a phone; light and dark follow the system."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    strange: list[str] = []
    with contextlib.closing(context):
        page = context.new_page()
        page.on("request", lambda asked: strange.append(asked.url) if not asked.url.startswith(address) else None)
        page.on("console", lambda told: strange.append(told.text) if told.type == "error" else None)
        page.on("response", lambda answer: strange.append(answer.url) if answer.status >= 400 else None)
        for each in pages:
            page.goto(address + name_of(each))
            expect(page.locator("h1").first).to_be_visible(timeout=LIMIT_MS)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, each.name
            shown = page.locator("body").get_attribute("data-md-color-scheme")
            assert shown == {"light": "default", "dark": "slate"}[scheme]
        assert not strange


def test_search(browser: Browser, address: str) -> None:
    """What one looks for is found: the reason of a failure leads to the page about it."""
    with contextlib.closing(browser.new_page(viewport={"width": 1280, "height": 900})) as page:
        page.goto(address)
        field = page.get_by_role("textbox", name="Search")
        field.press_sequentially("invalid_grant", timeout=LIMIT_MS)  # the search goes by keys, as a person presses them
        expect(page.locator(".md-search-result__item").first).to_contain_text("invalid_grant", timeout=LIMIT_MS)
