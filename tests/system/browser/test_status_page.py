"""The status page in a real browser: nothing for axe-core to find, nothing on the console, no sideways scrolling."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from aca_tokend.core.secret import Secret
from aca_tokend.demo.stage import wait_until
from tests.integration.conftest import CANARY_PASSWORD, assert_nothing_leaked, secrets_of
from tests.status_pages import SCENES, Scene, ready, suspended
from tests.system.browser.album import PICTURES, Picture
from tests.system.browser.pictures import chromium, opened, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route

    from aca_tokend.demo.stage import Stage

LIMIT_MS = 60_000
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process."""
    with chromium() as browser:
        yield browser


@dataclass
class Visit:
    """A page, and what the browser complained about and asked for meanwhile."""

    page: Page
    complaints: list[str]
    requests: list[str]

    def check(self, url: str) -> None:
        """Nothing was complained about, nothing came from elsewhere, axe finds nothing, all fits into the width."""
        self.page.wait_for_load_state("load")  # also of the style sheet, where a link led here
        assert self.complaints == []
        assert {urlsplit(request).netloc for request in self.requests} == {urlsplit(url).netloc}
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()


@contextlib.contextmanager
def visiting(browser: Browser, picture: Picture) -> Iterator[Visit]:
    with opened(browser, picture) as page:
        page.set_default_timeout(LIMIT_MS)
        visit = Visit(page, [], [])

        def console(message: ConsoleMessage) -> None:
            visit.complaints.append(message.text)

        def request(request: Request) -> None:
            visit.requests.append(request.url)

        def failed(request: Request) -> None:
            if request.failure != "net::ERR_ABORTED":  # the icon of a page that is left at once
                visit.complaints.append(f"{request.url}: {request.failure}")

        page.on("console", console)
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("requestfailed", failed)
        page.on("dialog", lambda dialog: visit.complaints.append(dialog.message))
        page.on("request", request)
        page.route(lambda url: "/static/" not in url, _at_rest)
        yield visit


def _at_rest(route: Route) -> None:
    """Hands an answer on without the header that has the page loaded again, which on a slow machine is amid a test."""
    answer = route.fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "refresh"}
    route.fulfill(response=answer, headers=headers)


CASES = [
    *PICTURES,
    Picture("everything-dark", "everything", dark=True),
    Picture("everything-phone", "everything", width=390),
    Picture("everything-phone-token", "everything", path="/tokens/lockers", width=390, dark=True),
    Picture("token-zoomed", "everything", path="/tokens/lockers", width=320, scale=4.0),
    Picture("found", "many", path="/?refresh=off&q=kiosk&state=failing", width=390),
    Picture("last-page", "many", path="/?page=200"),
    Picture("wrong", "well", path="/?page=none", width=390),
    Picture("no-token", "well", path="/tokens/nobody"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_scene(browser: Browser, case: Picture) -> None:
    """Each scene, in light and dark, on a phone and enlarged: accessible, quiet, and no wider than the window."""
    with serving(SCENES[case.scene]()) as url, visiting(browser, case) as visit:
        answer = visit.page.goto(url + case.path)
        assert answer is not None
        if answer.status != 200:  # which Chromium tells on its console
            visit.complaints.clear()
        visit.check(url)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_runbooks(browser: Browser, dark: bool) -> None:
    """A runbook is as accessible as the page that leads to it, on a phone too."""
    with serving(SCENES["suspended"]()) as url, visiting(browser, Picture("", "", width=390, dark=dark)) as visit:
        visit.page.goto(url)
        visit.page.get_by_role("link", name="Runbook ACACredentialsRejected").first.click()
        visit.page.wait_for_url(f"{url}/runbooks/ACACredentialsRejected")
        visit.check(url)


def test_long_names_and_markup(browser: Browser) -> None:
    """The longest names, and markup where text is expected, are shown as they are and break no layout."""
    long = replace(suspended("x" * 128), summary=MARKUP * 3, username=MARKUP)
    scene = Scene((long, replace(ready("bookings"), name=MARKUP)))
    with serving(scene) as url, visiting(browser, Picture("", "", width=390)) as visit:
        visit.page.goto(url)
        assert visit.page.get_by_text(MARKUP).count() > 0
        visit.check(url)
        visit.page.goto(f"{url}/tokens/{long.name}")
        visit.check(url)


def test_search_by_keyboard(browser: Browser) -> None:
    """From the page that refreshes, the keyboard alone leads to the field and to what is found, which stays at rest."""
    with serving(SCENES["many"]()) as url, visiting(browser, Picture("", "")) as visit:
        page = visit.page
        page.goto(f"{url}/?state=ready")
        page.get_by_role("link", name="Find by name").focus()
        page.keyboard.press("Enter")
        field = page.get_by_role("searchbox", name="Find by name")
        expect(field).to_be_focused(timeout=LIMIT_MS)
        page.keyboard.type("00042")
        page.keyboard.press("Enter")
        page.get_by_text("1 token with “00042” in the name and in the state ready.").wait_for()
        found = page.get_by_role("listitem").filter(has_text="tenant-00042-bookings")
        expect(found).to_have_count(1, timeout=LIMIT_MS)
        visit.check(url)


def test_first_key_leads_past_the_head(browser: Browser) -> None:
    """The first stop of the keyboard skips to the content; the next but one stops the refreshing."""
    with serving(SCENES["suspended"]()) as url, visiting(browser, Picture("", "")) as visit:
        page = visit.page
        page.goto(url)
        stops = []
        for _ in range(3):
            page.keyboard.press("Tab")
            stops.append(page.evaluate("document.activeElement.textContent"))
        assert stops == ["Skip to the content", "aca-tokend", "Stop refreshing"]
        visit.check(url)  # with the skip link or a focus shown, nothing overlaps


def test_paging(browser: Browser) -> None:
    """10,000 tokens are read page by page."""
    with serving(SCENES["many"]()) as url, visiting(browser, Picture("", "")) as visit:
        page = visit.page
        page.goto(f"{url}/?state=ready")
        first = page.locator("ol li").first.inner_text()
        page.get_by_role("link", name="Next page").click()
        page.get_by_text("Page 2 of 200").wait_for()
        assert page.locator("ol li").count() == 50
        assert page.locator("ol li").first.inner_text() != first
        assert page.get_by_role("heading", level=1).inner_text().endswith("tenant-20417-bookings")


def test_real_daemon(stage: Stage, browser: Browser) -> None:
    """A password that is wrong shows as a token in trouble, with step and reason, until it is mended."""
    daemon = stage.daemon(stage.config(["bookings"]))
    daemon.wait_for("token_rotated")
    url = f"http://127.0.0.1:{daemon.admin_port}"
    with visiting(browser, Picture("", "")) as visit:

        def verdict() -> str:
            visit.page.goto(url)
            return visit.page.get_by_role("region").first.inner_text()

        wait_until(lambda: "All well" in verdict(), "a page on which all is well")
        visit.check(url)

        stage.write_secret("bookings.password", Secret(f"{CANARY_PASSWORD}-wrong"))
        daemon.wait_for("token_suspended", token="bookings")
        for words in ("bookings", "refused the username and password", "grant: invalid_grant", "aca-tokend resume"):
            assert words in verdict()
        visit.check(url)
        visit.page.get_by_role("heading", level=1).get_by_role("link").click()
        visit.page.get_by_role("heading", name="Where it is published").wait_for()
        visit.check(url)

        stage.write_secret("bookings.password", stage.passwords.password)
        daemon.wait_for("token_resumed", token="bookings")
        wait_until(lambda: "All well" in verdict(), "a page on which all is well again")
    for path in ("/", "/tokens/bookings", "/?refresh=off"):
        page = daemon.get(path)[1]
        assert not [secret for secret in secrets_of(stage) if secret in page]
    assert_nothing_leaked(stage, daemon)
