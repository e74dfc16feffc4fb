"""The pages for people: what they say, that every value is escaped, and that a browser is let do nothing but show."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field, replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask

from aca_tokend.core.status import ConfigStatus, LastResult, Result, SinkStatus, State
from aca_tokend.pages import POLICY, site
from aca_tokend.pages.bar import bar
from aca_tokend.pages.render import REFRESH_SECONDS
from aca_tokend.pages.words import sentence
from tests import status_pages
from tests.status_pages import NOW, SCENES, Scene, expired, failing, ready, starting, suspended
from tests.system.browser import album

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from aca_tokend.core.status import TokenStatus

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "input", "br"}
BLOCKS = {"dt", "dd", "li", "p", "h1"}
EVIL = "<script>alert('x')</script>\"&"
NAME = "<script>'\"&"  # without a slash, which no route takes in a name


@dataclass
class Element:
    """A tag with its attributes and all the text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Document(HTMLParser):
    """A page, read strictly: each tag is closed, in its turn."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), "an attribute is given twice"
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)
        elif tag == "br":
            self.handle_data(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag
        if tag in BLOCKS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of a kind; `class_` is one class among those that it has."""
        wanted = attributes.pop("class_", None)
        return [
            element
            for element in self.elements
            if element.tag == tag
            and (wanted is None or wanted in element.attributes.get("class", "").split())
            and attributes.items() <= element.attributes.items()
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return squeezed(self.elements[0].text)

    def links(self, text: str) -> list[str]:
        return [element.attributes["href"] for element in self.all("a") if squeezed(element.text) == text]


def squeezed(text: str) -> str:
    return " ".join(text.split())


def ask(scene: Scene, path: str = "/", method: str = "GET") -> TestResponse:
    """An answer of the pages, as they are handed over by Flask."""
    app = Flask("pages", static_folder=None, template_folder=None)
    site(scene.status, scene.token)(app)
    return app.test_client().open(path, method=method)


def read(scene: Scene, path: str = "/") -> Document:
    answer = ask(scene, path)
    assert answer.status_code == 200
    return Document(answer.text)


def verdict(page: Document) -> str:
    return squeezed(page.one("section", class_="verdict").text)


# ── what a browser is let do ──────────────────────────────────────────────────────────────────────────────────────────


def paths(scene: Scene) -> list[str]:
    return [
        "/",
        "/?refresh=off&q=b",
        *[f"/tokens/{token.name}" for token in scene.tokens[:6]],
        "/?page=x",
        "/tokens/no",
    ]


@pytest.mark.parametrize("name", SCENES)
def test_nothing_active(name: str) -> None:
    """No page has a script, a style, a handler or a resource from elsewhere, and its policy would stop them all."""
    scene = SCENES[name]()
    for path in paths(scene):
        answer = ask(scene, path)
        page = Document(answer.text)
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert not {element.tag for element in page.elements} & {"script", "style", "iframe", "object", "embed", "base"}
        for element in page.elements:
            assert not [key for key in element.attributes if key.startswith("on") or key in {"style", "srcdoc"}]
            for key in ("href", "src", "action"):
                assert re.match(r"/(?!/)|#", element.attributes.get(key, "/")), element


def test_policy() -> None:
    """The policy lets a browser load our style sheet and icons, send our form to us, and nothing else."""
    assert POLICY == (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def test_every_value_is_escaped() -> None:
    """Markup in a name, a message, an address, a search or a reason to fail is shown as it is written."""
    token = replace(
        suspended("bookings"),
        name=NAME,
        summary=f"It failed: {EVIL}",
        endpoint=EVIL,
        authority=EVIL,
        username=EVIL,
        scope=EVIL,
        last=LastResult(NOW, Result.FAILED, message=f"`{EVIL}`", request_id=EVIL),
        sinks=[SinkStatus(EVIL, "file", None, None, ok=False, message=EVIL, advice=EVIL)],
        runbook=EVIL,
    )
    endpoint = replace(status_pages.MAIN, name=EVIL, url=EVIL, summary=EVIL, advice=EVIL, runbook=EVIL)
    vault = replace(status_pages.VAULT, name=EVIL, summary=EVIL, advice=EVIL, method=EVIL)
    config = ConfigStatus(ok=False, loaded_at=NOW, problems=[EVIL], runbook=EVIL)
    scene = Scene((token,), (endpoint,), (vault,), (EVIL,), config)

    for path in ("/", f"/?refresh=off&q={quote(EVIL)}", f"/tokens/{quote(NAME)}"):
        answer = ask(scene, path)
        assert "<script" not in answer.text
        assert not Document(answer.text).all("script")
        assert NAME in Document(answer.text).one("h1").text
    assert EVIL in read(scene).text
    assert "<script" not in ask(scene, "/tokens/<script>").text
    assert "<script" not in ask(scene, "/runbooks/<script>").text
    assert "<script" not in ask(scene, "/?state=<script>").text


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_well() -> None:
    """When all is well the page begins with just that, and with the next expiry."""
    page = read(status_pages.well())

    assert verdict(page) == (
        "All well All 6 tokens are ready. The next to expire is visitor-kiosk, in 25 min 03:37 UTC; "
        "it rotates in 3 min 24 s."
    )
    assert page.one("title").text.startswith("All well")
    assert page.one("link", rel="icon").attributes["href"] == "/static/well.svg"
    assert not page.all("section", class_="troubles")


def test_one_suspended() -> None:
    """The token in trouble comes first: its step, its reason, until when readers are safe, what to do, the runbook."""
    page = read(status_pages.one_suspended())
    said = verdict(page)

    assert page.one("title").text.startswith("suspended: bookings")
    assert page.one("link", rel="icon").attributes["href"] == "/static/trouble.svg"
    assert said.startswith(
        "suspended bookings The server refused the username and password; readers are safe for 13 min, until 03:25 UTC."
    )
    for words in (
        "Readers are safe until 03:25 UTC in 13 min",
        "Step and reason grant: invalid_grant",
        "Next attempt in 52 min 04:04 UTC",
        "What to do Check both, the Host it is reached by",
        "call aca-tokend resume bookings",
    ):
        assert words in said
    assert page.links("Runbook ACACredentialsRejected") == ["/runbooks/ACACredentialsRejected"] * 2
    assert page.links("bookings") == ["/tokens/bookings"] * 2


def test_order_and_states() -> None:
    """Every state is told by its word, worst first, with a sentence where something is not well."""
    page = read(status_pages.everything_at_once())
    rows = page.all("li")
    states = [state.value for state in State]

    listed = [squeezed(row.text) for row in rows if " ".join(row.text.split()).split()[0] in states]
    assert [text.split()[0] for text in listed] == states
    assert "the disk is full; readers have had no valid token for 8 min." in listed[0]
    assert listed[3] == "starting room-panels no token yet Not looked at yet."
    assert listed[4] == "ready parking expires in 50 min 04:02 UTC"
    assert page.links("All 3 tokens in trouble") == ["/?state=expired&state=suspended&state=failing"]


def test_troubles_beside_tokens() -> None:
    """The process, Vaults, the configuration and endpoints in trouble are told on top, with advice and runbook."""
    page = read(status_pages.everything_at_once())
    told = [squeezed(item.text) for item in page.all("li")][:4]

    assert told == [
        "The process Pool file: a call hangs past every timeout. A restart mends it.",
        "Vault main Vault is sealed. Unseal it, or name its other nodes in address. Runbook ACAVaultLoginFailing",
        (
            "Configuration The last reload was refused, and what was loaded before stays in effect. "
            "tokens[3].password: missing; add it. Runbook ACAConfigReloadFailed"
        ),
        "Endpoint main The server's clock is 47 s behind ours. Runbook ACAClockSkew",
    ]


def test_trouble_without_tokens_in_trouble() -> None:
    """While every token is well and something else is not, the page does not say that all is well."""
    config = ConfigStatus(ok=False, loaded_at=NOW, problems=["tokens: missing"], runbook="ACAConfigReloadFailed")
    page = read(replace(status_pages.well(), config=config))

    assert verdict(page).startswith("Readers are safe, but not all is well")
    assert page.one("link", rel="icon").attributes["href"] == "/static/trouble.svg"
    assert page.one("section", class_="troubles").text


def test_starting() -> None:
    """Until each token was looked at the page says so, and does not say that all is well."""
    page = read(Scene((starting("a"), ready("b"))))

    assert verdict(page) == "Starting 1 token of 2 not looked at yet."


def test_nothing_configured() -> None:
    """With no token the page says what to do."""
    page = read(SCENES["empty"]())

    assert verdict(page).startswith("No tokens are configured Add a [[tokens]] to the configuration")
    assert not page.all("form")


def test_page_of_a_token() -> None:
    """A token's page adds its life, its last attempt with the request id, its sinks and hooks, and its account."""
    text = read(status_pages.everything_at_once(), "/tokens/lockers").text

    for words in (
        "expired lockers file:/run/aca/lockers.json: the disk is full",
        "Readers are safe not since 03:04 UTC 8 min ago",
        "Rotation point 29 min 36 s ago 02:42 UTC",
        "Outage tolerance 21 min 36 s",
        "Failures in a row 14",
        "holds a token that expired 8 min ago 03:04 UTC publish: disk_full. No space is left on the device. Free some",
        "What is run after: nginx failed 3 times running. hook: command_failed. Ended with 1.",
        "User name svc-lockers",
    ):
        assert words in text
    assert "under the request id req-5522" in read(status_pages.one_suspended(), "/tokens/bookings").text


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (replace(suspended("a"), next_attempt_at=None), "Next attempt none by itself"),
        (replace(failing("a"), next_attempt_at=None), "Next attempt now"),
        (replace(failing("a"), next_attempt_at=NOW - timedelta(seconds=3)), "Next attempt now"),
        (replace(failing("a"), next_attempt_at=NOW + timedelta(seconds=3)), "Next attempt in 3 s"),
    ],
)
def test_next_attempt(token: TokenStatus, said: str) -> None:
    """The next attempt is in the future, or now, or made by nobody but a person."""
    assert said in verdict(read(Scene((token,))))


def test_place_that_holds_an_older_token() -> None:
    """What is told of a token in trouble is what readers meet, where a place holds an older one or none."""
    behind = replace(failing("a", age=10), safe_until=NOW + timedelta(minutes=4))
    nothing = replace(expired("b"), safe_until=None, expires_at=NOW + timedelta(minutes=50))
    page = read(Scene((behind, nothing)))

    assert [squeezed(item.text) for item in page.all("p", class_="expiry")] == [
        "not in every place",
        "expires in 4 min 03:16 UTC",
    ]
    assert "Readers are safe" not in verdict(page)


def test_user_names_can_be_hidden() -> None:
    """Where the status names no user, the page has no place for one."""
    hidden = replace(ready("a"), username=None)

    assert "User name" not in read(Scene((hidden,)), "/tokens/a").text
    assert "svc-a" not in read(Scene((hidden,)), "/tokens/a").text


def test_token_that_is_not_here() -> None:
    """The page of a token that is not here is 404, and says why."""
    answer = ask(status_pages.well(), "/tokens/nobody")

    assert answer.status_code == 404
    assert "“nobody” is the name of no token in this configuration; see the names in" in Document(answer.text).text


# ── filters and pages ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_counts_are_links_to_the_filter() -> None:
    """Each state has its count, of all tokens, and a link that shows only those; the chosen one's shows all again."""
    page = read(status_pages.many(120), "/?state=suspended")
    choices = {squeezed(link.text): link.attributes for link in page.all("a", class_="choice")}

    assert list(choices) == ["expired 0", "suspended 2", "failing 1", "starting 0", "ready 117"]
    assert choices["ready 117"]["href"] == "/?state=ready"
    assert choices["suspended 2"]["href"] == "/"
    assert [name for name, attributes in choices.items() if "aria-current" in attributes] == ["suspended 2"]
    assert "2 tokens in the state suspended. Show all" in page.text


def test_worst_is_shown_whatever_is_asked_for() -> None:
    """A filter, a search or a later page changes the list, not the verdict."""
    for query in ("state=ready", "q=00001", "page=3", "per_page=1&page=2"):
        assert verdict(read(status_pages.many(120), f"/?{query}")).startswith("suspended tenant-20417-bookings")


def test_paging_keeps_the_query() -> None:
    """The links to the pages before and after keep filter, search, size and whether the page refreshes."""
    page = read(status_pages.many(200), "/?state=ready&q=-0&per_page=40&page=2&refresh=off")
    before, after = page.one("a", rel="prev").attributes["href"], page.one("a", rel="next").attributes["href"]

    assert "Page 2 of 5" in page.text
    kept = {"state": ["ready"], "q": ["-0"], "per_page": ["40"], "refresh": ["off"]}
    assert parse_qs(urlsplit(before).query) == kept
    assert parse_qs(urlsplit(after).query) == kept | {"page": ["3"]}


def test_page_beyond_the_last() -> None:
    """A page that is not there any more says so, and leads back to the last one."""
    page = read(status_pages.many(120), "/?page=9")

    assert not page.all("ol")
    assert page.one("a", rel="prev").attributes["href"] == "/?page=3"
    assert not page.all("a", rel="next")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=bad-7f3a", "state: is no state; use one of expired, suspended"),
        ("page=bad-7f3a", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("page=0", "page: is not a number in its range; use a whole number from 1 to 999999"),
        ("per_page=1001", "per_page: is not a number in its range; use a whole number from 1 to 1000"),
        ("q=a&q=b", "q: is given twice; give it once"),
        ("order=bad-7f3a", "query: has an unknown parameter; use state, q, page"),
    ],
)
def test_malformed_query(query: str, said: str) -> None:
    """A query that is wrong is answered by a page that names parameter, problem and fix, and repeats no value."""
    answer = ask(status_pages.well(), f"/?{query}")
    page = Document(answer.text)

    assert answer.status_code == 400
    assert said in page.text
    assert "bad-7f3a" not in answer.text
    assert page.links("All tokens") == ["/"]
    assert "Refresh" not in answer.headers


def test_empty_fields_are_no_mistake() -> None:
    """What an empty form sends is the same as nothing."""
    assert "6 tokens" in read(status_pages.well(), "/?q=&refresh=off").text


# ── refreshing ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/?state=ready&q=b&page=1", "/tokens/bookings"])
def test_refreshes_until_told_to_stop(path: str) -> None:
    """A page refreshes itself at its own address, says so, and has links that stop it and that start it again."""
    scene = status_pages.well()
    answer = ask(scene, path)
    (stop,) = Document(answer.text).links("Stop refreshing")
    stopped = ask(scene, stop)
    (resume,) = Document(stopped.text).links(f"Refresh every {REFRESH_SECONDS} s")

    assert answer.headers["Refresh"] == str(REFRESH_SECONDS)
    assert "Refresh" not in stopped.headers
    assert ask(scene, resume).headers["Refresh"] == str(REFRESH_SECONDS)
    assert parse_qs(urlsplit(resume).query).get("q") == parse_qs(urlsplit(path).query).get("q")
    again = Document(stopped.text).links("Refresh")
    assert again == [stop]


def test_nothing_is_typed_where_it_refreshes() -> None:
    """A page that refreshes has no field to lose what is typed; a link leads to the same page at rest, to its field."""
    scene = status_pages.well()
    moving = read(scene, "/?state=ready&state=failing")
    (link,) = moving.links("Find by name")
    still = read(scene, link)

    assert not moving.all("input")
    assert urlsplit(link).fragment == still.one("input", type="search").attributes["id"]
    hidden = [(one.attributes["name"], one.attributes["value"]) for one in still.all("input", type="hidden")]
    assert hidden == [("state", "failing"), ("state", "ready"), ("refresh", "off")]
    assert still.one("label", **{"for": "q"}).text == "Find by name"


def test_runbooks_and_errors_do_not_refresh() -> None:
    """What does not change is not loaded again."""
    assert "Refresh" not in ask(status_pages.well(), "/tokens/nobody").headers
    assert "Refresh" not in ask(status_pages.well(), "/runbooks/nobody").headers


# ── the bar, and words ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("age", "places"),
    [(0, (64.0, 100.0, 0.0)), (30, (64.0, 100.0, 50.0)), (60, (64.0, 100.0, 100.0)), (66, (51.2, 80.0, 88.0))],
)
def test_bar(age: float, places: tuple[float, float, float]) -> None:
    """The bar is the life from issue to expiry, and beyond where it is over; now has its place on it."""
    found = bar(ready("a", age=age), NOW)

    assert found is not None
    assert (found.rotation, found.expiry, found.now) == places


def test_bar_ends_somewhere() -> None:
    """A token that expired long ago, or was issued in the future, still has its life on the bar."""
    long_ago, future = bar(ready("a", age=9_999), NOW), bar(ready("a", age=-5), NOW)

    assert long_ago is not None
    assert (long_ago.expiry, long_ago.now) == (80.0, 100.0)
    assert future is not None
    assert future.now == 0.0


def test_no_bar_without_a_life() -> None:
    """Where no life is known there is no bar."""
    token = ready("a")

    assert bar(replace(token, issued_at=None), NOW) is None
    assert bar(replace(token, rotate_at=None), NOW) is None
    assert bar(replace(token, expires_at=None), NOW) is None
    assert bar(replace(token, expires_at=token.issued_at), NOW) is None


def test_bar_in_words() -> None:
    """The bar says the same to those who do not see it, in each stage of a life."""
    scene = Scene((ready("a"), failing("b"), expired("c")))
    labels = [svg.attributes["aria-label"] for svg in read(scene).all("svg", role="img")]

    assert labels[1:] == [
        "A life of 1 h: issued 1 h 8 min ago, its rotation point passed 29 min 36 s ago, expired 8 min ago.",
        "A life of 1 h: issued 45 min ago, its rotation point passed 6 min 36 s ago, expires in 15 min.",
        "A life of 1 h: issued 10 min ago, rotates in 28 min 24 s, expires in 50 min.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("free some space", "Free some space."),
        ("Done.", "Done."),
        ("", ""),
        ("call `a b`; then <c>", "Call <code>a b</code>; then &lt;c&gt;."),
        ("tokens[3].password: missing", "tokens[3].password: missing."),
        ("vault:secret/aca: it is sealed", "vault:secret/aca: it is sealed."),
        ("the server's own log", "The server&#39;s own log."),
        ("pool file: a call hangs", "Pool file: a call hangs."),
    ],
)
def test_sentence(text: str, said: str) -> None:
    """A text becomes a sentence, escaped, with what stands in code marks as code; a place keeps its letters."""
    assert str(sentence(text)) == said


# ── runbooks, files, the package ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_runbook(page: Path) -> None:
    """Each runbook is served with its heading, without remarks; its links lead to others, outside, or nowhere."""
    answer = ask(status_pages.well(), f"/runbooks/{page.stem}")
    shown = Document(answer.text)

    assert answer.status_code == 200
    assert "!--" not in answer.text
    assert shown.one("h1").text
    for link in shown.all("a"):
        target = link.attributes["href"]
        assert ".md" not in target
        if target.startswith("/runbooks/"):
            assert ask(status_pages.well(), target).status_code == 200


@pytest.mark.parametrize("name", ["nobody", "..%2Fguard", "README.md", "%2e%2e", "a" * 300])
def test_no_such_runbook(name: str) -> None:
    """What is no runbook is 404, wherever it might lie."""
    assert ask(status_pages.well(), f"/runbooks/{name}").status_code == 404


@pytest.mark.parametrize("name", ["nothing.css", "..%2Frender.py", "status.css%00"])
def test_no_such_file(name: str) -> None:
    """Only the style sheet and the icons are served."""
    assert ask(status_pages.well(), f"/static/{name}").status_code == 404


def test_files() -> None:
    """The style sheet and the icons are served with their types, and load nothing themselves."""
    for name, kind in (("status.css", "text/css"), ("well.svg", "image/svg+xml"), ("trouble.svg", "image/svg+xml")):
        answer = ask(status_pages.well(), f"/static/{name}")
        assert (answer.status_code, answer.mimetype) == (200, kind)
        assert not re.search(r"@import|url\(|<script|href", answer.text)


@pytest.mark.parametrize("path", ["/", "/tokens/bookings", "/static/status.css"])
def test_only_get_and_head(path: str) -> None:
    """HEAD is answered without a body, and nothing else is."""
    assert ask(status_pages.well(), path, "HEAD").data == b""
    assert ask(status_pages.well(), path, "POST").status_code == 405


def test_wheel_has_everything(tmp_path: Path) -> None:
    """The wheel holds the templates, the style sheet, the icons and every runbook."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "aca_tokend" / "pages"
    wanted = [*package.glob("templates/*.html"), *package.glob("static/*"), *package.glob("runbooks/*.md")]

    assert {str(file.relative_to(ROOT)) for file in wanted} <= packed


def test_pictures_are_current() -> None:
    """The pictures in docs/images were taken of pages as they are made now."""
    assert album.recorded() == album.current(), "run `make screenshots`, and look at what it made"
