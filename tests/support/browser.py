"""Headless Chromium at the page of the query worker, and an account of what the page did: errors, and which of its elements
were used.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, expect, sync_playwright

PATIENCE_MS = 15_000  # with whatever a page is expected to show
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
]
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}

# What a person can use, by id; numbers in ids are those of rows. Only what the browser reports as done by a person counts.
_RECORDER = """
(() => {
  const USABLE = 'a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex="-1"]), [contenteditable]';
  const name = (element) => element.id ? element.id.replace(/\\d+/, 'N') : 'without an id: ' + element.outerHTML.slice(0, 120);
  const seen = new Set();
  const look = () => {
    for (const element of document.querySelectorAll(USABLE)) {
      if (seen.has(name(element))) continue;
      seen.add(name(element));
      window.noted('seen', name(element));
    }
  };
  for (const kind of ['click', 'input', 'change', 'keydown']) {
    document.addEventListener(kind, (event) => {
      const used = event.isTrusted && event.target.closest?.(USABLE);
      if (used && !(kind === 'keydown' && event.key === 'Tab')) window.noted('used', name(used));
    }, true);
  }
  document.addEventListener('securitypolicyviolation', (event) =>
    window.noted('violations', `${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  document.addEventListener('DOMContentLoaded', () => {
    new MutationObserver(look).observe(document, { subtree: true, childList: true });
    look();
  });
})();
"""


@dataclass(slots=True)
class Account:
    """What pages did so far."""

    seen: set[str] = field(default_factory=set)  # elements that a person can use
    used: set[str] = field(default_factory=set)  # and those that one used
    violations: list[str] = field(default_factory=list)  # of the content security policy
    errors: list[str] = field(default_factory=list)  # in the console, or of scripts
    elsewhere: list[str] = field(default_factory=list)  # requests to anybody but the query worker

    def note(self, kind: str, text: str) -> None:
        """What a page tells."""
        found: set[str] | list[str] = getattr(self, kind)
        if isinstance(found, set):
            found.add(text)
        else:
            found.append(text)

    def assert_clean(self) -> None:
        """Nothing went wrong, and nobody else was asked."""
        assert (self.violations, self.errors, self.elsewhere) == ([], [], [])


def executable() -> Path:
    """Chromium; skips where there is none, and fails under CI."""
    if not CHROMIUM.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{CHROMIUM} is not there: apt-get install chromium")
    return CHROMIUM


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without anything in it."""
    path = executable()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def opened(browser: Browser, address: str, account: Account, **options: Any) -> Iterator[Page]:
    """A page of a context of its own: nobody's storage, no cookies."""
    usual = {"viewport": WIDE, "color_scheme": "light", "locale": "en-GB", "reduced_motion": "reduce"}
    chosen: dict[str, Any] = {**usual, **options}
    context: BrowserContext = browser.new_context(base_url=address, **chosen)
    context.set_default_timeout(PATIENCE_MS)
    context.expose_binding("noted", lambda _, kind, text: account.note(kind, text))
    context.add_init_script(_RECORDER)
    context.on("request", partial(_asked, account, address))
    page = context.new_page()
    page.on("pageerror", partial(_failed, account))
    page.on("console", partial(_said, account))
    try:
        yield page
    finally:
        context.close()


def _asked(account: Account, address: str, request: Request) -> None:
    if not request.url.startswith((f"{address}/", "data:")):
        account.note("elsewhere", request.url)


def _failed(account: Account, error: Error) -> None:
    account.note("errors", str(error))


def _said(account: Account, line: ConsoleMessage) -> None:
    """Answers that refuse are no fault of the page: the browser writes a line for each."""
    if line.type in ("error", "warning") and not line.text.startswith("Failed to load resource"):
        account.note("errors", line.text)


def wait_for(page: Page, condition: Callable[[], Any], what: str, *, timeout: float = 20.0) -> None:
    """Let the page go on until the condition holds."""
    waited = 0.0
    while not condition():
        assert waited < timeout, f"{what} did not come within {timeout} s"
        page.wait_for_timeout(50)
        waited += 0.05


def texts(page: Page, selector: str) -> list[str]:
    """What the elements say, blanks as one."""
    return [re.sub(r"\s+", " ", text).strip() for text in page.locator(selector).all_inner_texts()]
