"""docs/sql.md names every error that the functions raise, and every argument that they take."""

import re
from pathlib import Path

import pytest

from support.examples import DOCUMENT

ROOT = Path(__file__).parents[2]
SQL = "\n".join(path.read_text() for path in sorted((ROOT / "schema" / "sql").glob("[456]_*.sql")))
INTERNAL = {"08006"}  # never leaves livedex.ask_by_dblink
POSTGRES_OWN = {"42501"}  # also what Postgres says to who may not call a function
TEXT = DOCUMENT.read_text()


def section(heading: str) -> str:
    """The text below a heading, up to the next."""
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_sqlstate_is_explained() -> None:
    """Those that the functions raise, and no others."""
    raised = set(re.findall(r"(?:errcode = |failure := |sqlstate )'([0-9A-Z]{5})'", SQL)) - INTERNAL
    raised = {code for code in raised if not code.startswith("LX") or code == "LX001"}
    assert set(re.findall(r"(?m)^\| `([0-9A-Z]{5})`", section("Errors"))) == raised
    assert raised >= {"22023", "42704", "57P03", "57014", "54000", *POSTGRES_OWN}


@pytest.mark.parametrize("function", ["search", "search_vector", "embed", "wait_for"])
def test_every_argument_is_explained(function: str) -> None:
    """With its default, where it has one."""
    (signature,) = re.findall(rf"create function livedex\.{function}\((.*?)\) returns", SQL, re.DOTALL)
    rows = {
        name: row
        for row in section("Arguments").splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    for argument in signature.split(","):
        name, _, rest = argument.strip().partition(" ")
        if name == "token":
            continue
        assert name in rows, f"{function} takes {name}"
        _, has_default, default = rest.partition(" default ")
        if has_default:
            assert default in rows[name], f"{function} has {name} {rest}"
