"""docs/security.md claims nothing without a test, and names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_tests_that_are_named_are_there() -> None:
    """Each path in backquotes that ends with .py."""
    named = set(re.findall(r"`((?:unit|integration|faults|migrations|acceptance)/\w+\.py)`", PAGE))
    assert len(named) > 15
    assert sorted(path for path in named if not (ROOT / "tests" / path).is_file()) == []


def test_every_threat_names_a_test() -> None:
    """What livedex does against it is shown somewhere, or it does nothing and says so."""
    section = PAGE.partition("## Threats")[2].partition("## What is not protected")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 20
    untested = [row for row in rows if ".py`" not in row]
    assert [row.split(" | ")[0] for row in untested] == ["| a model's name leads to any folder"]
