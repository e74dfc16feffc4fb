"""The pictures of the status page in docs/images, as the real listener and Chromium show it: `make screenshots`."""

from __future__ import annotations

import contextlib
import shutil
import sys
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from aca_tokend.admin import AdminServer
from aca_tokend.core.config import AdminConfig
from aca_tokend.pages import site
from tests.fakes import log_bug
from tests.status_pages import SCENES
from tests.system.browser.album import IMAGES, PICTURES, record
from tests.system.browser.png import small

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser, Page

    from tests.status_pages import Scene
    from tests.system.browser.album import Picture

# A machine that does much else takes its time.
LAUNCH_MS = 120_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(FLAGS), timeout=LAUNCH_MS
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def serving(scene: Scene) -> Iterator[str]:
    """The address at which the real listener serves a scene."""
    server = AdminServer(
        AdminConfig(listen="127.0.0.1:0"),
        lambda *_: (b"", "text/plain"),
        list,
        list,
        site(scene.status, scene.token),
        on_error=log_bug,
    )
    server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


@contextlib.contextmanager
def opened(browser: Browser, picture: Picture) -> Iterator[Page]:
    """A page as a picture has it, before anything is loaded."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height or 700},
        color_scheme="dark" if picture.dark else "light",
        device_scale_factor=picture.scale,
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def main(names: Sequence[str]) -> None:
    """Takes the pictures, or those that are named."""
    IMAGES.mkdir(exist_ok=True)
    with chromium() as browser:
        for picture in PICTURES:
            if names and picture.name not in names:
                continue
            with serving(SCENES[picture.scene]()) as url, opened(browser, picture) as page:
                page.goto(url + picture.path)
                file = IMAGES / f"status-{picture.name}.png"
                file.write_bytes(small(page.screenshot(full_page=picture.height is None, animations="disabled")))
                print(f"{file.name} {file.stat().st_size // 1024} kB")
    if not names:
        record()


if __name__ == "__main__":
    main(sys.argv[1:])
