"""Questions whose answers are known, made of text that is on every machine where the tests run."""

import gettext
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from support.docstrings import QUESTION, docstrings

LANGUAGES = ("de", "es", "fr", "ja", "ru", "zh_Hans")
LONGEST = 4000  # characters of a document
SHORTEST_MESSAGE = 40  # characters: of shorter ones several mean the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Texts by id of documents, questions by id, and the documents that answer each."""

    documents: Mapping[str, str]
    questions: Mapping[str, str]
    answers: Mapping[str, set[str]]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Queries and judgments in BEIR's format."""
        queries, qrels = folder / "queries.jsonl", folder / "qrels.tsv"
        queries.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in self.questions.items()))
        lines = [f"{name}\t{document}\t1\n" for name, found in self.answers.items() for document in sorted(found)]
        qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        return queries, qrels


def first_lines(documents: int, questions: int) -> Judged:
    """Documentation strings, of which some lost their first line: that is asked, and the rest is the only answer. The same on
    machines with the same packages.
    """
    drawn = sorted(docstrings(), key=lambda found: hashlib.sha256(found[1].encode()).digest())
    times = Counter(string.partition("\n")[0] for _, string in drawn)
    texts: dict[str, str] = {}
    asked: dict[str, str] = {}
    for name, string in drawn:
        first, _, rest = string.partition("\n\n")
        good = len(rest) >= 2 * len(first) and times[first] == 1 and QUESTION.fullmatch(first)
        if good and len(asked) < questions:
            asked[name] = first
        texts[name] = (rest if name in asked else string)[:LONGEST]
        if len(texts) >= documents:
            break
    names = {name: f"q{number}" for number, name in enumerate(asked)}
    return Judged(
        documents=texts,
        questions={names[name]: first for name, first in asked.items()},
        answers={names[name]: {name} for name in asked},
    )


def translations() -> Judged:
    """Messages of Django in other languages; the English one is asked, and its translations are the answers."""
    documents: dict[str, str] = {}
    questions: dict[str, str] = {}
    answers: dict[str, set[str]] = defaultdict(set)
    for language in LANGUAGES:
        for message, translated in _catalogue(language).items():
            name = f"q{hashlib.sha256(message.encode()).hexdigest()[:12]}"
            documents[f"{language}/{name}"] = translated
            questions[name] = message
            answers[name].add(f"{language}/{name}")
    return Judged(documents=documents, questions=questions, answers=answers)


def _catalogue(language: str) -> dict[str, str]:
    """Translations by message; those with places to fill in say less, and are left out."""
    found: dict[str, str] = {}
    with resources.as_file(resources.files("django")) as folder:
        for path in sorted(folder.rglob(f"locale/{language}/LC_MESSAGES/django.mo")):
            with path.open("rb") as stream:
                catalogue = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
            found |= {
                message: translated
                for message, translated in catalogue.items()
                if isinstance(message, str) and len(message) >= SHORTEST_MESSAGE and "%" not in message
            }
    return found
