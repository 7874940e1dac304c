"""Queries and judgments are read in the formats of BEIR and TREC; what is none is told with its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from livedex.errors import UsageError
from livedex.judgments import read_judgments, read_queries

TOPICS = """
<top>
<num> Number: 301
<title> International
Organized Crime

<desc> Description:
Identify organizations that participate in international criminal activity.
</top>
<top><num>302</num><title>Topic: Polio</title></top>
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """A file of this text."""

    def write(text: str) -> Path:
        path = tmp_path / "file"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ('{"_id": "q1", "text": "one"}\n\n{"_id": 2, "text": "two", "metadata": {}}\n', {"q1": "one", "2": "two"}),
        ("1\twhat is one\n2\twhat is two\n", {"1": "what is one", "2": "what is two"}),
        (TOPICS, {"301": "International Organized Crime", "302": "Polio"}),
        ("\ufeff1\tone\r\n", {"1": "one"}),
    ],
)
def test_queries(written: Callable[[str], Path], text: str, queries: dict[str, str]) -> None:
    """JSON Lines, lines with a tab, and topics."""
    assert read_queries(written(text)) == queries


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        ("query-id\tcorpus-id\tscore\nq1\ta document\t1\nq1\tb\t0\n", {"q1": {"a document": 1, "b": 0}}),
        ("301 0 FT911-1 1\n301 0 FT911-2 -1\n302 Q0 a 2\n", {"301": {"FT911-1": 1, "FT911-2": -1}, "302": {"a": 2}}),
        ("301\t0\ta\t1\r\n", {"301": {"a": 1}}),
    ],
)
def test_judgments(written: Callable[[str], Path], text: str, grades: dict[str, dict[str, int]]) -> None:
    """TSV with a heading, and qrels with blanks or tabs."""
    assert read_judgments(written(text)) == grades


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no query in"),
        ('{"_id": "q1"}\n', "line 1 of .* is no JSON object with _id and text"),
        ("1\tone\nwords without a tab\n", "line 2 of .* is no query"),
        ("1\tone\n1\ttwo\n", "1 queries with the id of another"),
        ("<top><num>1</num></top>", "has no <num> or no <title>"),
    ],
)
def test_wrong_queries(written: Callable[[str], Path], text: str, why: str) -> None:
    """The line, and what was expected."""
    with pytest.raises(UsageError, match=why):
        read_queries(written(text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("query-id\tcorpus-id\tscore\n", "there is no judgment in"),
        ("q1\ta\t1\nq1\tb\tgood\n", "line 2 of .* is no judgment"),
        ("q1 a\n", "there is no judgment in"),
        ("q1 0 a 1\nq1 1\n", "line 2 of .* is no judgment"),
    ],
)
def test_wrong_judgments(written: Callable[[str], Path], text: str, why: str) -> None:
    """The line, and what was expected."""
    with pytest.raises(UsageError, match=why):
        read_judgments(written(text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Not there, or no text."""
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_queries(tmp_path / "absent")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is no UTF-8 text"):
        read_judgments(tmp_path / "bytes")
