"""How the page looks, and whether everybody can use it: axe-core in every state, and pictures for docs/images.

TEST_SCREENSHOTS names the folder that the pictures go to, docs/images when they are to be renewed. They are looked at by
people: what is compared here is only that they are there, small, and not wider than the window.
"""

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from livedex.dev.stack import Addresses
from support.browser import NARROW, WIDE, Account, browser, executable, opened, wait_for
from support.site import OPERATOR, Site, event, site, unreadable

pytestmark = pytest.mark.accept

IMAGES = Path(__file__).parents[2] / "docs" / "images"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
MOST_BYTES = 150_000
CHANGES = 240  # that the charts show
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in ("wide", "narrow")]
SIZES: dict[str, Any] = {"wide": WIDE, "narrow": NARROW}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all."""
    with browser() as started:
        yield started


def ask(page: Page, text: str) -> None:
    """Search for this."""
    page.fill("#query", text)
    page.keyboard.press("Enter")
    expect(page.locator(".result").first).to_be_visible()


def serious(page: Page, where: str) -> list[str]:
    """The serious and critical faults that axe-core finds, and what reaches beyond the window."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    faults = [
        f"{where}: {each['impact']} {each['id']}: {[node['html'][:120] for node in each['nodes']][:3]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert len(found["passes"]) > 10, "axe-core looked at nothing"
    beyond = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return faults + ([f"{where}: {beyond} px beyond the window"] if beyond > 0 else [])


def locked(page: Page) -> None:
    """Before a token was typed."""
    expect(page.locator("#state-token")).to_be_visible()


def dialog(page: Page) -> None:
    """While one is typed, wrongly."""
    page.click("#token-open")
    page.keyboard.type("short")
    page.keyboard.press("Enter")
    expect(page.locator("#token-wrong")).not_to_be_empty()


def idle(page: Page) -> None:
    """With a token, before a search."""
    page.fill("#token", OPERATOR)
    page.keyboard.press("Enter")
    expect(page.locator(".about")).to_be_visible()


def results(page: Page) -> None:
    """A search with its filters and the details of a result."""
    ask(page, "reset my password")
    page.click("#filters-open")
    page.click("#details-0")
    page.keyboard.press("ArrowDown")


def nothing(page: Page) -> None:
    """A search that a filter leaves nothing of, and one whose filter is wrong."""
    page.fill("#filter", "team=nobody")
    page.keyboard.press("Enter")
    expect(page.locator("#drop-filters")).to_be_visible()
    page.fill("#filter", "{")
    page.keyboard.press("Enter")
    expect(page.locator("#filter-help")).to_contain_text("no object")


def refused(page: Page) -> None:
    """A search in a collection that is not there."""
    page.goto("/?refused#search?q=x&collection=absent")
    expect(page.locator("#again")).to_be_visible()


def operations(page: Page) -> None:
    """All panels with something in them."""
    page.goto("/?operations#operations")
    expect(page.locator("#letters tbody tr")).to_have_count(2)
    expect(page.locator("#partitions .stale")).not_to_have_text("–")


def discarding(page: Page) -> None:
    """The question before a dead letter is given up."""
    page.locator("#letters button", has_text="Discard").first.click()
    expect(page.locator("#discard-dialog")).to_be_visible()


def away(page: Page) -> None:
    """The worker does not answer any more."""
    page.keyboard.press("Escape")
    page.context.set_offline(True)
    page.click("#pause")
    page.click("#pause")
    expect(page.locator("#operations-again")).to_be_visible()
    page.context.set_offline(False)


def reference(page: Page) -> None:
    """What is drawn from the OpenAPI document."""
    page.goto("/docs")
    expect(page.locator("#form-SearchRequest")).to_be_visible()


STATES: tuple[Callable[[Page], None], ...] = (
    locked, dialog, idle, results, nothing, refused, operations, discarding, away, reference,
)  # fmt: skip


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A worker that asks for tokens, with dead letters."""
    executable()
    with site(stack, template, tmp_path_factory.mktemp("page")) as made:
        with made.indexing():
            made.take(unreadable("about/zebras"), b"no event", key="broken")
        yield made


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_axe_finds_no_serious_fault(chromium: Browser, served: Site, scheme: Any, width: str) -> None:
    """In no state of the page, and nothing reaches beyond the window."""
    account, faults = Account(), []
    with opened(chromium, served.address, account, color_scheme=scheme, viewport=SIZES[width]) as page:
        page.goto("/")
        for state in STATES:
            state(page)
            faults += serious(page, state.__name__)
    assert faults == []
    account.assert_clean()


def test_the_page_has_its_pictures(
    chromium: Browser, stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Light and dark, wide and narrow, of both views, with the real model; each under 150 kB, and all kept in docs/images."""
    executable()
    folder = Path(os.environ.get("TEST_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    account = Account()
    with site(stack, template, tmp_path_factory.mktemp("looks"), embedder="auto") as shown:
        _fill(shown)
        with opened(chromium, shown.address, account) as page:
            page.add_init_script(f"sessionStorage.setItem('livedex.token', '{OPERATOR}')")
            page.goto("/")
            ask(page, "I forgot my password and cannot sign in")
            _pictures(page, folder, "search")
            page.click("#nav-operations")
            _stall(page, shown)
            _pictures(page, folder, "operations", full_page=True)
    account.assert_clean()
    names = {f"page-{view}-{scheme}-{width}.png" for view in ("search", "operations") for scheme, width in LOOKS}
    assert {path.name for path in folder.glob("page-*.png")} == names
    assert [path.name for path in folder.glob("page-*.png") if path.stat().st_size > MOST_BYTES] == []
    assert names <= {path.name for path in IMAGES.glob("*.png")}


def _fill(shown: Site) -> None:
    """Changes of the last quarter of an hour with times as a busy site has them, three bad records, and a second generation."""
    texts = [f"Entry {n} of the list of changes." for n in range(CHANGES)]
    with shown.indexing():
        shown.take(*({"id": f"changes/{n}", "title": f"Change {n}", "text": text} for n, text in enumerate(texts)))
        shown.take(b'{"id": "feed/17", "text": 17}', key="feed/17")
        shown.take(b'{"id": "feed/21", "text": "half of an ev', key="feed/21")
        shown.take(b'{"id": "feed/22", "text": "Another document."}', key="feed/23")
    seed = random.Random(8)
    with shown.workers.connect() as connection:
        for name, past in ((f"changes/{n}", seed.uniform(5, 880)) for n in range(CHANGES)):
            slow = 2.5 if 300 < past < 400 else 1.0
            fresh = slow * seed.lognormvariate(-0.7, 0.35)
            connection.execute(
                "update livedex.document set event_time = now() - make_interval(secs => %s),"
                " indexed_at = now() - make_interval(secs => %s) where document_id = %s",
                (past, past - fresh, name),
            )
    shown.workers.execute(
        "update livedex.document set event_time = now() - interval '20 minutes' where document_id not like 'changes/%'",
        """insert into livedex.chunking (collection_id, parameters, max_tokens, text_config)
           select collection_id, parameters || '{"context": "none"}', max_tokens, text_config from livedex.chunking""",
        """insert into livedex.generation (collection_id, chunking_id, model, model_revision, encoder, dimension, state)
           select collection_id, (select max(chunking_id) from livedex.chunking), 'multilingual-e5-small', 'x', 'torch', 384,
                  'failed' from livedex.collection""",
    )


def _stall(page: Page, shown: Site) -> None:
    """Let staleness rise for a while, and fall again."""
    expect(page.locator("#partitions .stale")).to_have_text("0 s")
    wait_for(page, lambda: len(page.locator("#chart-staleness path").all()) > 1, "a line of staleness")
    shown.send(event("billing/refunds", time="2026-01-01T00:00:00Z"))
    wait_for(page, lambda: page.locator("#tiles [data-level=warn] dt", has_text="Staleness").count(), "staleness", timeout=90)
    with shown.indexing():
        shown.caught_up()
        expect(page.locator("#partitions .stale")).to_have_text("0 s", timeout=60_000)
        shown.workers.execute("update livedex.generation set state = 'building' where state = 'failed'",
            """insert into livedex.document_chunk (chunking_id, doc_key, ordinal, chunk_key)
               select (select max(chunking_id) from livedex.chunking), doc_key, ordinal, chunk_key
                 from livedex.document_chunk order by doc_key limit 160""")  # fmt: skip
        expect(page.locator("#generations progress")).to_be_visible(timeout=60_000)
    page.click("#pause")


def _pictures(page: Page, folder: Path, view: str, *, full_page: bool = False) -> None:
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size(SIZES[width])
        page.wait_for_timeout(150)  # charts are drawn anew when their size was seen to change
        _keep(page.screenshot(full_page=full_page), folder / f"page-{view}-{scheme}-{width}.png")


def _keep(picture: bytes, path: Path) -> None:
    """As it is where that is small enough, else with fewer colours."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
