"""The page of the query worker in a real browser, on real workers: everything on it works, and nothing in its data does.

An ordinary run has the journey through all of it, the keyboard and hostile data; the odd states are of `make accept`.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from livedex.catalogue import Generation
from livedex.config import EmbedderName, Settings
from livedex.dev.stack import Addresses
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.query.app import QueryApp
from livedex.query.pages import HEADERS
from support.browser import Account, browser, executable, opened, texts, wait_for
from support.site import OPERATOR, READER, Site, site, unreadable
from support.synthetic import connection_to, create_collection
from support.waiting import until
from support.workers import Workers, free_port


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all."""
    with browser() as started:
        yield started


class Gate(HashEncoder):
    """The hash encoder, but queries wait while it is closed."""

    def __init__(self) -> None:
        super().__init__(ModelSpec(model="hash-16"))
        self.open = threading.Event()
        self.open.set()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        assert self.open.wait(60)
        return super().encode_queries(texts)


class Gates:
    """Makes gates for every generation, and closes them all."""

    def __init__(self) -> None:
        self.made: list[Gate] = []

    def __call__(self, embedder: EmbedderName, made: Generation) -> Gate:
        """For QueryApp."""
        del embedder, made
        self.made.append(Gate())
        return self.made[-1]

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Meanwhile no query is embedded."""
        try:
            for gate in self.made:
                gate.open.clear()
            yield
        finally:
            for gate in self.made:
                gate.open.set()


@pytest.fixture(scope="module")
def gates() -> Gates:
    """Of the encoders of `served`."""
    return Gates()


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory, gates: Gates) -> Iterator[Site]:
    """A worker that asks for tokens, with two collections and no queue."""
    executable()
    with site(stack, template, tmp_path_factory.mktemp("page"), open_encoder=gates, http_queue=0) as made:
        with connection_to(made.workers.database_url) as connection:
            create_collection(connection, "archive", model="hash-16")
        until(lambda: "archive" in made.app._encoders._generations, what="the second collection to be served")
        yield made


@pytest.fixture
def account() -> Iterator[Account]:
    """What the pages of a test did; nothing of it may be wrong."""
    kept = Account()
    yield kept
    kept.assert_clean()


@pytest.fixture
def page(chromium: Browser, served: Site, account: Account) -> Iterator[Page]:
    """A page with an operator's token."""
    with signed_in(chromium, served, account) as made:
        yield made


@contextmanager
def signed_in(
    chromium: Browser, served: Site, account: Account, token: str = OPERATOR, at: str = "/", **options: Any
) -> Iterator[Page]:
    """A page of somebody who typed this token before."""
    with opened(chromium, served.address, account, **options) as page:
        page.add_init_script(f"sessionStorage.setItem('livedex.token', '{token}')")
        page.goto(at)
        expect(page.locator("#token-label")).not_to_have_text("Token")
        yield page


def ask(page: Page, text: str) -> None:
    """Type a question and wait for its answer."""
    page.fill("#query", "")
    page.focus("#query")
    page.keyboard.type(text)
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#summary")).to_contain_text("generation")


def choose(page: Page, field: str, downs: int = 1) -> None:
    """Choose in a list by keyboard, as the browser counts it: an option so many below."""
    expect(page.locator(field)).to_be_visible()  # a list is hidden until its options are known
    page.focus(field)
    for _ in range(abs(downs)):
        page.keyboard.press("ArrowDown" if downs > 0 else "ArrowUp")


def test_the_files_are_served_with_a_strict_policy(served: Site) -> None:
    """To everybody, since they hold no data; again only when they changed; and nothing else below the folder."""
    with httpx.Client(base_url=served.address, trust_env=False, timeout=20) as client:
        answer = client.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        for path in ("/", "/docs", "/page/page.css", "/page/main.js", "/page/icon.svg"):
            found = client.get(path)
            assert found.status_code == 200
            assert {name: found.headers[name] for name in HEADERS} == dict(HEADERS)
            assert (found.headers["x-content-type-options"], found.headers["referrer-policy"]) == ("nosniff", "no-referrer")
            assert client.head(path).headers["etag"] == found.headers["etag"]
            again = client.get(path, headers={"If-None-Match": found.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        other_names = ("/redoc", "/docs/oauth2-redirect", "/page/index.html", "/page/docs.html")
        for path in (*other_names, "/page/", "/page/../access.py", "/page/%2e%2e/access.py", "/page/absent.js"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {OPERATOR}"}).status_code == 404
        assert client.post("/").status_code == 405


def test_the_reference_is_drawn_from_the_openapi_document(chromium: Browser, served: Site, account: Account) -> None:
    """By files of the worker alone: nothing from elsewhere is loaded beside the token, nor would it be let run."""
    document = httpx.get(f"{served.address}/openapi.json", trust_env=False).json()
    with opened(chromium, served.address, account) as page:
        page.goto("/docs")
        for path, verbs in document["paths"].items():
            for verb in verbs:
                expect(page.locator("section h3").get_by_text(path, exact=True).first).to_be_visible()
                assert f"{verb.upper()} {path}" in texts(page, "section h3")
        for name, form in document["components"]["schemas"].items():
            shown = [text.removesuffix(" *") for text in texts(page, f"#form-{name} td.main")]
            assert shown == list(form.get("properties", {})), name
        fields = page.locator("#form-SearchRequest tr", has_text="per_document")
        expect(fields).to_contain_text("1 to 1000; default 1")
        page.locator("#reference .routes a", has_text="GET /v1/overview").click()
        page.wait_for_function("document.querySelector('[id=\"get-%2Fv1%2Foverview\"]').getBoundingClientRect().top < 200")
        page.click("#brand")
        expect(page.locator("#search-form")).to_be_visible()


def test_everything_on_the_page_works(chromium: Browser, served: Site, account: Account) -> None:
    """Each element that a person can use is used, and does what it says; a new one that no step here uses fails the test."""
    served.workers.execute("delete from livedex.dead_letter")  # what other tests left
    with served.indexing():
        served.take(unreadable("about/zebras", "zebras"), unreadable("about/lost"), b"no event", key="broken")
    with opened(chromium, served.address, account) as page:
        page.goto("/")
        _use_token_dialog(page)
        _use_search(page)
        _use_filters(page)
        _use_frame(page)
        _use_operations(page)
        _use_dead_letters(page, served)
    assert sorted(account.seen - account.used) == []
    assert account.used >= {"query", "discard-go", "replay-N", "token-save", "theme", "pause"}


def _use_token_dialog(page: Page) -> None:
    page.click("#state-token")
    page.click("#token-cancel")
    expect(page.locator("#token-dialog")).to_be_hidden()
    page.click("#token-open")
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type("short")
    page.click("#token-save")
    expect(page.locator("#token-wrong")).to_contain_text("16 to 512")
    page.fill("#token", "wrong-0123456789abcdef")
    page.click("#token-save")
    expect(page.locator("#token-wrong")).to_contain_text("no longer")
    assert page.evaluate("sessionStorage.length") == 0
    page.fill("#token", OPERATOR)
    page.keyboard.press("Enter")
    expect(page.locator("#token-label")).to_have_text("Token: operations")
    page.click("#token-open")
    page.click("#token-forget")
    expect(page.locator("#state-token")).to_be_visible()
    page.click("#nav-operations")
    page.click("#operations-token")
    page.keyboard.type(OPERATOR)
    page.keyboard.press("Enter")
    expect(page.locator("#tiles")).to_contain_text("Freshness")
    stored = page.evaluate("[JSON.stringify(localStorage), document.cookie, sessionStorage.getItem('livedex.token')]")
    assert stored == ["{}", "", OPERATOR]
    page.click("#nav-search")


def _use_search(page: Page) -> None:
    ask(page, "password")
    expect(page.locator("#result-0 mark").first).to_have_text("password")
    found = page.locator("#results > li").count()
    page.click("#mode-text")
    expect(page.locator("#results > li")).to_have_count(3)
    assert texts(page, "#result-0 .why li") == ["1st by words"]
    page.click("#mode-vector")
    expect(page.locator("#result-0 .why li")).to_have_text(["1st by meaning"])
    page.click("#mode-hybrid")
    expect(page.locator("#results > li")).to_have_count(found)
    page.click("#rerank")
    expect(page.locator("#result-0 .why li")).to_have_count(3)
    assert texts(page, "#result-0 .why li")[2] == "1st after reranking"
    page.click("#rerank")
    page.click("#details-0")
    expect(page.locator("#facts-0")).to_contain_text("Version")
    choose(page, "#collection", -1)  # archive, which is empty
    expect(page.locator("#results-state")).to_contain_text("Nothing found")
    page.click("#mode-text")
    page.click("#by-meaning")
    expect(page.locator("#mode-hybrid")).to_be_checked()
    choose(page, "#collection")
    page.click("#submit")
    expect(page.locator("#results > li")).to_have_count(found)


def _use_filters(page: Page) -> None:
    page.click("#filters-open")
    page.focus("#filter")
    page.keyboard.type("team=billing lang=en")
    page.keyboard.press("Enter")
    expect(page.locator("#results > li")).to_have_count(3)
    expect(page.locator("#filters-count")).to_have_text("1")
    page.fill("#filter", "{wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#filter-help")).to_contain_text("no object of JSON")
    expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
    page.fill("#filter", "=wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#filter-help")).to_contain_text("no pair")
    page.fill("#filter", '{"team": "nobody"}')
    page.keyboard.press("Enter")
    page.click("#drop-filters")
    expect(page.locator("#filters-count")).to_be_hidden()
    type_time(page, "#since", "2031")
    type_time(page, "#until", "2030")
    expect(page.locator("#filter-help")).to_contain_text("not after")
    type_time(page, "#until", "2032")
    expect(page.locator("#results-state")).to_contain_text("Nothing found")
    page.click("#filters-clear")
    choose(page, "#k")
    expect(page.locator("#results > li").nth(11)).to_be_visible()
    choose(page, "#per-document")
    expect(page.locator("#filters-count")).to_have_text("2")
    page.click("#filters-clear")
    expect(page.locator("#results > li")).to_have_count(10)


def type_time(page: Page, field: str, year: str) -> None:
    """Noon of the first of January of that year."""
    page.fill(field, "")
    page.focus(field)
    page.keyboard.type(f"0101{year}")
    page.keyboard.press("Tab")
    page.keyboard.type("1200PM")


def _use_frame(page: Page) -> None:
    page.click("#brand")
    page.focus("#skip")
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    for link, has in (("#to-openapi", "openapi"), ("#to-metrics", "livedex_search_requests_total")):
        with page.expect_popup() as other:
            page.click(link)
        assert has in other.value.content()
        other.value.close()
    with page.expect_popup() as other:
        page.click("#to-docs")
    other.value.click("#link-0")
    other.value.close()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    for label in ("light", "dark", "automatic"):
        page.click("#theme")
        expect(page.locator("#theme-label")).to_contain_text(f"Theme: {label}.")
        assert (page.evaluate(ground) == light) is (label != "dark")
    page.click("#theme")
    page.click("#theme")
    page.reload()
    assert page.evaluate(ground) != light, "the chosen theme is kept"
    page.click("#pill")
    expect(page.locator("#operations-heading")).to_be_visible()


def _use_operations(page: Page) -> None:
    choose(page, "#shown", -1)
    expect(page.locator("#partitions")).to_contain_text("No partition yet")  # of archive
    choose(page, "#shown")
    expect(page.locator("#partitions tbody tr")).to_have_count(1)
    expect(page.locator("#chart-freshness svg")).to_have_attribute("aria-label", wait_text(page, "#chart-freshness svg"))
    page.click("#pause")
    expect(page.locator("#when")).to_contain_text("Paused at")
    page.click("#pause")
    expect(page.locator("#when")).to_contain_text("Updated")
    page.hover("#chart-freshness svg")
    expect(page.locator("#chart-freshness .cross line")).to_have_count(1)
    page.context.set_offline(True)
    page.click("#pause")
    page.click("#pause")
    expect(page.locator("#operations-state")).to_contain_text("The query worker does not answer")
    page.context.set_offline(False)
    page.click("#operations-again")
    expect(page.locator("#operations-state")).to_be_empty()
    page.context.set_offline(True)
    page.click("#nav-search")
    page.click("#submit")
    expect(page.locator("#results-state")).to_contain_text("The query worker does not answer")
    page.context.set_offline(False)
    page.click("#again")
    expect(page.locator("#results > li")).to_have_count(10)
    page.click("#nav-operations")


def wait_text(page: Page, selector: str) -> str:
    """The label of a chart, once it has figures."""
    wait_for(page, lambda: "p95 " in (page.get_attribute(selector, "aria-label") or ""), "the chart's figures")
    return page.get_attribute(selector, "aria-label") or ""


def _use_dead_letters(page: Page, served: Site) -> None:
    letters = page.locator("#letters tbody tr")
    expect(letters).to_have_count(3)
    ids = [row[0] for row in served.workers.rows("select id from livedex.dead_letter order by id")]
    page.click(f"#replay-{ids[0]}")
    expect(page.locator("#letters-said")).to_have_text(f"Dead letter {ids[0]} was replayed: applied.")
    expect(letters).to_have_count(2)
    page.click(f"#replay-{ids[2]}")
    expect(page.locator("#letters-said")).to_contain_text("failed again, with invalid-json")
    page.click(f"#discard-{ids[1]}")
    page.click("#discard-cancel")
    page.click(f"#discard-{ids[1]}")
    expect(page.locator("#discard-says")).to_contain_text("about/lost")
    page.click("#discard-go")
    expect(page.locator("#letters-said")).to_have_text(f"Dead letter {ids[1]} was discarded.")
    expect(letters).to_have_count(1)
    choose(page, "#letters-state", 2)
    expect(letters).to_have_count(1)
    expect(page.locator("#letters")).to_contain_text("discarded")
    states = served.workers.rows("select state, attempts from livedex.dead_letter order by id")
    assert states == [("replayed", 1), ("discarded", 1), ("open", 2)]


def test_the_keyboard_is_enough(page: Page) -> None:
    """/ goes to the question from anywhere, arrows walk through results, Enter opens one, Esc leads back and then empties."""
    page.click("#nav-operations")
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.type("password / account")
    page.keyboard.press("Enter")
    expect(page.locator("#result-0")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    for place in (0, 1):
        page.keyboard.press("ArrowDown")
        expect(page.locator(f"#result-{place}")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#facts-1")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#result-0")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#query")).to_have_value("")
    expect(page.locator("#results > li")).to_have_count(0)


@pytest.mark.accept
def test_a_search_stands_in_the_address(page: Page, served: Site) -> None:
    """And is asked again when the page is opened with it; the token is not there."""
    page.click("#mode-text")
    ask(page, "refund")
    address = page.url
    assert address == f"{served.address}/#search?q=refund&mode=text"
    page.click("#nav-operations")
    page.click("#nav-search")
    assert page.url == address
    ask(page, "password")
    for again in (False, True):  # as another place of the same page, and from the beginning
        page.reload() if again else page.goto(address)
        expect(page.locator("#results > li")).to_have_count(1)
        expect(page.locator("#query")).to_have_value("refund")
        expect(page.locator("#mode-text")).to_be_checked()


@pytest.mark.accept
def test_a_search_with_filters_stands_in_the_address(chromium: Browser, served: Site, account: Account) -> None:
    """All of it: who opens it asks the same, and times are the same moments in another zone."""
    with (
        signed_in(chromium, served, account, timezone_id="Asia/Tokyo") as first,
        signed_in(chromium, served, account, timezone_id="America/New_York") as other,
    ):
        first.click("#rerank")
        first.click("#filters-open")
        first.fill("#filter", "team=billing lang=en")
        first.fill("#since", "2020-01-01T09:00")
        first.fill("#until", "2090-01-01T09:00")
        choose(first, "#k")
        choose(first, "#per-document")
        with first.expect_request("**/v1/search") as asked:
            ask(first, "refund")
        for page in (first, other):
            with page.expect_request("**/v1/search") as again:
                page.goto(first.url)
                page.reload()
            assert again.value.post_data_json == asked.value.post_data_json
            expect(page.locator("#results > li").first).to_be_visible()
            expect(page.locator("#rerank")).to_be_checked()
            expect(page.locator("#filters-count")).to_have_text("5")
        expect(other.locator("#since")).to_have_value("2019-12-31T19:00")
        expect(first.locator("#since")).to_have_value("2020-01-01T09:00")


def test_a_filter_is_asked_for_as_it_was_typed(page: Page) -> None:
    """What a number would change is text; and what goes wrong in the page is told, not swallowed."""
    page.click("#filters-open")
    typed = 'zip=01234 id=9007199254740993 n=3 f=-0.5 half=.5 e=1e3 yes=true none=null s="3" __proto__=x'
    page.fill("#filter", typed)
    with page.expect_request("**/v1/search") as asked:
        ask(page, "password")
    assert json.loads(asked.value.post_data or "")["filter"] == {
        "zip": "01234", "id": "9007199254740993", "n": 3, "f": -0.5, "half": ".5", "e": "1e3", "yes": True, "none": None,
        "s": "3", "__proto__": "x",
    }  # fmt: skip
    page.evaluate("void (String.prototype.matchAll = () => { throw new Error('made by the test') })")
    page.click("#submit")
    expect(page.locator("#results-state")).to_contain_text("made by the test")


@pytest.mark.accept
def test_workers_are_shown_with_whether_they_are_there(page: Page, served: Site) -> None:
    """To operators: query workers too, and an index worker that is gone still owns its partition."""
    page.click("#nav-operations")
    querying = page.locator("#workers li", has_text="livedex-serve-")
    expect(querying).to_contain_text("connected")
    expect(querying).to_contain_text("query worker")
    gone = page.locator("#workers li", has_text="partition")
    expect(gone).to_contain_text("gone", timeout=30_000)
    with served.indexing():
        expect(page.locator("#workers li", has_text="1 partition")).to_contain_text("connected", timeout=30_000)


@contextmanager
def held(page: Page, path: str) -> Iterator[Callable[[], None]]:
    """The next answer of the route is held back; what is given lets it come, and waits for it."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if waiting:
            route.continue_()
        else:
            waiting.append(route)

    page.route(path, hold)
    wait_for(page, lambda: waiting, f"a request for {path}")

    def release() -> None:
        with page.expect_response(lambda response: response.request == waiting[0].request):
            waiting[0].continue_()

    yield release
    page.unroute(path)


@pytest.mark.parametrize("path", ["**/v1/overview", "**/v1/status", "**/v1/dead-letters*"])
def test_nothing_that_one_caller_was_told_is_shown_to_the_next(page: Page, served: Site, path: str) -> None:
    """Not what is on the page when another token is typed, nor an answer that comes only then."""
    served.workers.execute(
        'insert into livedex.dead_letter (topic, partition, "offset", timestamp, stage, reason, detail)'
        f" values ('{served.topic}', 0, 200000, now(), 'decode', 'schema', 'a secret of operators') on conflict do nothing"
    )
    page.click("#nav-operations")
    expect(page.locator("#letters")).to_contain_text("a secret of operators")
    with held(page, path) as release:
        page.click("#token-open")
        page.fill("#token", READER)
        page.keyboard.press("Enter")
        expect(page.locator("#token-label")).to_have_text("Token: website")
        expect(page.locator("#letters")).not_to_contain_text("a secret of operators")
        expect(page.locator("#letters-note")).to_contain_text("This token is none’s")
        release()
        page.wait_for_timeout(500)  # for what must not happen
    expect(page.locator("#letters")).to_be_empty()
    expect(page.locator("#tiles")).to_contain_text("for operators")
    assert page.locator("#collection option").all_text_contents() == ["default"]
    assert page.locator("#shown option").all_text_contents() == ["default"]


HOSTILE = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script><a href='javascript:hacked=1'>x</a> zzhostile"


def test_what_documents_say_is_only_text(page: Page, served: Site) -> None:
    """Markup in ids, titles, texts, metadata and dead letters is shown as it stands, and nothing of it runs, loads or links."""
    with served.indexing():
        served.take(
            {"id": f"id {HOSTILE}", "title": f"title {HOSTILE}", "text": f"text {HOSTILE}", "format": "text",
             "metadata": {f"name {HOSTILE}": f"value {HOSTILE}", "url": "javascript:alert(1)", "__proto__": {"bad": True}}},
            unreadable(f"dead {HOSTILE}"),
        )  # fmt: skip
    ask(page, "sign-in a.b (c*")  # words that mean something in a pattern
    expect(page.locator("#results mark", has_text="sign-in").first).to_be_visible()
    ask(page, "zzhostile <script>")
    page.click("#details-0")
    result = page.locator("#result-0").inner_text()
    for part in ("title", "id", "text", "name", "value"):
        assert f"{part} {HOSTILE}" in " ".join(result.split()), part
    assert "javascript:alert(1)" in result
    expect(page.locator("#results a, #results img, #results script")).to_have_count(0)
    assert "zzhostile" in texts(page, "#result-0 mark")
    page.click("#nav-operations")
    expect(page.locator("#letters")).to_contain_text(f"dead {HOSTILE}")
    expect(page.locator("#letters img, #letters a, #letters script")).to_have_count(0)
    (number,) = [row[0] for row in served.workers.rows("select id from livedex.dead_letter where document_id like 'dead %'")]
    page.click(f"#discard-{number}")
    expect(page.locator("#discard-says")).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    page.goto(f"/?x=1#search?q={HOSTILE}&mode=<b>&collection=<img src=x onerror=hacked=1>")
    expect(page.locator("#query")).to_have_value(HOSTILE)
    assert page.evaluate("[window.hacked, {}.bad]") == [None, None]


@pytest.mark.accept
def test_a_busy_server_is_told_as_such(page: Page, served: Site, gates: Gates) -> None:
    """429 says when to ask again, 504 that it took too long; both let one try again, and then it works."""
    ask(page, "refund")

    def wait_there(number: int) -> int:
        body = {"query": f"w{number}", "timeout_ms": 40_000}
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        return httpx.post(f"{served.address}/v1/search", json=body, headers=headers, timeout=60, trust_env=False).status_code

    with ExitStack() as ended:
        pool = ended.enter_context(ThreadPoolExecutor(32))
        with gates.closed():
            page.fill("#query", "slow")
            page.keyboard.press("Enter")
            expect(page.locator(".skeleton")).to_be_visible()
            expect(page.locator("#results-state")).to_contain_text("No answer in time")
            waiting = [pool.submit(wait_there, number) for number in range(served.app._answering._admission._free)]
            until(lambda: served.app._answering._admission._free == 0, what="every slot to be taken")
            page.click("#again")
            expect(page.locator("#results-state")).to_contain_text("Too many searches at once")
            expect(page.locator("#results-state")).to_contain_text("Ask again in 1 s.")
            expect(page.locator("#summary")).to_have_text("Too many searches at once")
        assert {each.result() for each in waiting} == {200}
    page.click("#again")
    expect(page.locator("#summary")).to_contain_text("generation")


@pytest.mark.accept
def test_another_token_sees_its_own_only(chromium: Browser, served: Site, account: Account) -> None:
    """Its collections, no dead letters, and 403 in plain words elsewhere."""
    with signed_in(chromium, served, account, READER, "/#operations") as page:
        expect(page.locator("#letters-note")).to_contain_text("This token is none’s")
        expect(page.locator("#letters-state")).to_be_hidden()
        expect(page.locator("#tiles")).to_contain_text("for operators")
        expect(page.locator("#shown-field")).to_be_hidden()
        assert page.locator("#collection option").all_text_contents() == ["default"]
        page.goto("/?again#search?q=x&collection=archive")
        expect(page.locator("#results-state")).to_contain_text("This token may not do that")
        expect(page.locator("#results-state")).to_contain_text("may not search the collection archive")


@pytest.mark.accept
def test_a_generation_that_is_built_shows_how_far_it_is(page: Page, served: Site) -> None:
    """Of what the active one has; nobody builds it here."""
    served.workers.execute(
        """insert into livedex.chunking (collection_id, parameters, max_tokens, text_config)
           select collection_id, parameters || '{"context": "none"}', max_tokens, text_config
             from livedex.chunking join livedex.collection c using (collection_id) where c.name = 'default'""",
        """insert into livedex.generation (collection_id, chunking_id, model, model_revision, encoder, dimension, state)
           select collection_id, (select max(chunking_id) from livedex.chunking), 'hash-8', 'x', 'hash', 8, 'building'
             from livedex.collection where name = 'default'""",
        """insert into livedex.document_chunk (chunking_id, doc_key, ordinal, chunk_key)
           select (select max(chunking_id) from livedex.chunking), doc_key, ordinal, chunk_key
             from livedex.document_chunk order by doc_key limit 3""",
    )
    try:
        page.click("#nav-operations")
        building = page.locator("#generations .tags", has_text="building")
        expect(building).to_contain_text("hash-8")
        statement = "select count(*) from livedex.document_chunk where ordinal = 0 and chunking_id = 1"
        ((total,),) = served.workers.rows(statement)
        expect(building).to_contain_text(f"{300 // total} % of {total}")
    finally:
        served.workers.execute(
            "delete from livedex.generation where state = 'building'",
            "delete from livedex.chunking where parameters ->> 'context' = 'none'",
        )


@pytest.mark.accept
def test_a_database_that_is_down_is_told_as_such(chromium: Browser, account: Account) -> None:
    """By both views, with a worker that waits for it; without tokens there is no key to press."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    app = QueryApp(Settings(database_url=url, embedder="hash", http_port=0))
    thread = threading.Thread(target=app.run)
    thread.start()
    try:
        address = f"http://{app.http.address}"
        until(lambda: app.health.waiting_for and httpx.get(f"{address}/healthz", trust_env=False).is_success, what="the worker")
        with opened(chromium, address, account) as page:
            page.goto("/#search?q=anything")
            expect(page.locator("#results-state")).to_contain_text("Postgres does not answer", timeout=30_000)
            expect(page.locator("#token-open")).to_be_hidden()
            page.click("#nav-operations")
            expect(page.locator("#operations-state")).to_contain_text("Postgres does not answer", timeout=30_000)
            expect(page.locator("#pill")).to_contain_text("No answer")
            expect(page.locator("#operations-body")).to_be_hidden()
    finally:
        app.stop.ask("the test is over")
        thread.join(15)


@pytest.mark.accept
def test_without_tokens_dead_letters_are_only_read(chromium: Browser, account: Account, workers: Workers, served: Site) -> None:
    """The page says what a change needs, and has no buttons for it."""
    settings = served.workers.settings(served.config)
    app = QueryApp(settings)
    served.workers.execute(
        'insert into livedex.dead_letter (topic, partition, "offset", timestamp, stage, reason, detail)'
        f" values ('{served.topic}', 0, 100000, now(), 'decode', 'schema', 'made by the test') on conflict do nothing"
    )
    with workers.in_thread(app) as address, opened(chromium, address, account) as page:
        page.goto("/#operations")
        expect(page.locator("#letters")).to_contain_text("made by the test")
        expect(page.locator("#letters-note")).to_contain_text("LIVEDEX_API_TOKENS_FILE")
        expect(page.locator("#letters button")).to_have_count(0)
