"""The files of the page: nothing in them runs, loads or becomes markup but what the security policy allows anyway."""

import re
from pathlib import Path

import pytest

import livedex.query

FOLDER = Path(livedex.query.__file__).parent / "page"
SCRIPTS = sorted(FOLDER.glob("*.js"))
LONGEST_MODULE = 300  # lines

# Ways from text to markup or code; `dom.js` is the only one that sets attributes, of names that it checks.
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|\beval\b|Function\("
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_text(script: Path) -> None:
    """Nor runs text; and a module is short enough to be read."""
    text = script.read_text()
    assert MARKUP.search(text) is None
    assert len(text.splitlines()) <= LONGEST_MODULE


def test_the_page_has_no_inline_script_or_style() -> None:
    """Nor handlers in attributes: the policy would refuse them, and the page would not work."""
    page = (FOLDER / "index.html").read_text()
    assert re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) is None
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    """Every address in the files is one of this worker, or the name of the SVG namespace."""
    for path in FOLDER.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[a-z0-9][a-z0-9.-]+\.[a-z]+[^\s\"']*", path.read_text()))
        assert {address for address in addresses if "www.w3.org/2000/svg" not in address} == set(), path.name
