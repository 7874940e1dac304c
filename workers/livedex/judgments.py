"""Queries and judgments for `livedex evaluate`, in the formats of BEIR (JSON Lines, TSV with a heading) and TREC."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from livedex.core.quality import Grades
from livedex.errors import UsageError

_TOPIC = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:Topic:)?\s*([^<]+)", re.IGNORECASE)


def read_queries(path: Path) -> dict[str, str]:
    """Texts by id, from BEIR's JSON Lines ({"_id", "text"}), TREC's topics (<num>, <title>), or lines of id, tab, text."""
    content = _content(path)
    if "<top>" in content[:10_000].lower():
        found = list(_topics(path, content))
    else:
        found = [_query(path, number, line) for number, line in _lines(content)]
    queries = dict(found)
    if not queries:
        raise UsageError(f"there is no query in {path}: JSON Lines with _id and text, TREC topics, or id, tab, text expected")
    if len(queries) < len(found):
        raise UsageError(f"{path} has {len(found) - len(queries)} queries with the id of another: each needs one of its own")
    return queries


def read_judgments(path: Path) -> dict[str, Grades]:
    """Grades by document by query, from BEIR's TSV (query-id, corpus-id, score) or TREC's qrels (query, 0, document, grade)."""
    grades: dict[str, dict[str, int]] = {}
    for number, line in _lines(_content(path)):
        fields = line.split("\t") if "\t" in line else line.split()
        if number == 1 and not _is_number(fields[-1]):
            continue  # BEIR's heading
        if len(fields) not in (3, 4) or not _is_number(fields[-1]):
            raise UsageError(
                f"line {number} of {path} is no judgment: query, document, grade (BEIR) or query, 0, document, grade (TREC) "
                "expected, with a whole number at the end"
            )
        grades.setdefault(fields[0].strip(), {})[fields[-2].strip()] = int(fields[-1])
    if not grades:
        raise UsageError(f"there is no judgment in {path}: lines of query, document, grade expected")
    return dict(grades)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no UTF-8 text") from None


def _lines(content: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip())


def _topics(path: Path, content: str) -> Iterator[tuple[str, str]]:
    for topic in _TOPIC.findall(content):
        number, title = _NUMBER.search(topic), _TITLE.search(topic)
        if number is None or title is None:
            raise UsageError(f"a topic of {path} has no <num> or no <title>: {' '.join(topic.split())[:60]}")
        yield number[1], " ".join(title[1].split())


def _query(path: Path, number: int, line: str) -> tuple[str, str]:
    if line.lstrip().startswith("{"):
        try:
            found = json.loads(line)
            return str(found["_id"]), str(found["text"])
        except (ValueError, KeyError):
            raise UsageError(f"line {number} of {path} is no JSON object with _id and text") from None
    name, tab, text = line.partition("\t")
    if not (tab and name.strip() and text.strip()):
        raise UsageError(f"line {number} of {path} is no query: JSON with _id and text, or id, tab, text expected")
    return name.strip(), text.strip()


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?[0-9]{1,9}\s*", text) is not None
