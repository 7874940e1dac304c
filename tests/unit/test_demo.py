"""The pure parts of the demo: its corpus, its one-sentence edit, and the figures that it reads from /metrics."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from livedex.dev.demo.corpus import LARGEST, MODULES, SMALLEST, documents
from livedex.dev.demo.figures import Figures
from livedex.dev.demo.story import QUESTIONS, SENTENCE, with_sentence


def test_corpus_is_the_same_each_time_and_within_its_limits() -> None:
    """The corpus has as many documents as asked for, each once, none too short or too long, the same on each call."""
    found = documents(40)
    assert found == documents(40)
    assert len({document.id for document in found}) == len(found) == 40
    assert all(SMALLEST <= len(document.text) <= LARGEST for document in found)
    assert {document.metadata["kind"] for document in found} == {"module", "package"}


def test_smallest_corpus_answers_every_question() -> None:
    """Even the smallest demo has the documents that it asks about."""
    assert {question.answer for question in QUESTIONS} <= {document.id for document in documents(12)}


def test_corpus_is_read_and_not_imported() -> None:
    """Reading the documentation of a module does not run it: some open windows or sockets when they are imported."""
    program = (
        "import sys; from livedex.dev.demo.corpus import documents; before = set(sys.modules); documents(100);"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"turtle", "smtplib", "imaplib", "webbrowser"} & set(done.stdout.split())
    assert {"turtle", "smtplib", "imaplib", "webbrowser"} <= set(MODULES)


def test_edit_adds_the_sentence_and_nothing_else() -> None:
    """The edited document is the document with one sentence more, at the end of a paragraph."""
    for document in documents(12):
        edited = with_sentence(document, SENTENCE)
        assert edited.text.replace(f" {SENTENCE}", "", 1) == document.text
        after = edited.text.partition(SENTENCE)[2]
        assert after == "" or after.startswith("\n\n")


@pytest.fixture
def registry() -> CollectorRegistry:
    """Nine events, and nine observations: eight within 0.1 and one beyond every edge."""
    own = CollectorRegistry()
    events = Counter("events", "Events", ["collection", "outcome"], registry=own)
    events.labels("a", "applied").inc(6)
    events.labels("b", "applied").inc(2)
    events.labels("b", "stale").inc(1)
    events.labels("b", "dead_letter")
    seconds = Histogram("seconds", "Seconds", ["op"], buckets=(0.1, 0.2, 0.4), registry=own)
    for value in [0.05] * 4 + [0.15] * 4:
        seconds.labels("upsert").observe(value)
    seconds.labels("delete").observe(7)
    return own


def _figures(registry: CollectorRegistry) -> Figures:
    return Figures.parse(generate_latest(registry).decode())


def test_figures_are_summed_over_the_labels_that_were_not_named(registry: CollectorRegistry) -> None:
    """A total is over all series with the given labels, and nothing that was never counted is shown."""
    figures = _figures(registry)
    assert figures.total("events_total") == 9
    assert figures.total("events_total", collection="b") == 3
    assert figures.total("events_total", collection="nobody") == 0
    assert figures.by("events_total", "outcome") == {"applied": 8, "stale": 1}


def test_quantiles_lie_in_their_bucket_on_a_straight_line(registry: CollectorRegistry) -> None:
    """A quantile is where a straight line through its bucket puts it, as in Prometheus; beyond the edges it is the last."""
    figures = _figures(registry)
    assert figures.quantile(0.5, "seconds", op="upsert") == pytest.approx(0.1)
    assert figures.quantile(0.75, "seconds", op="upsert") == pytest.approx(0.15)
    assert figures.quantile(0.5, "seconds") == pytest.approx(0.1 + 0.1 * 0.5 / 4)
    assert figures.quantile(1.0, "seconds") == pytest.approx(0.4)
    assert figures.quantile(0.5, "seconds", op="metadata") is None
    assert figures.quantile(0.5, "minutes") is None


def test_difference_of_two_scrapes_is_what_happened_between(registry: CollectorRegistry) -> None:
    """What was counted before does not count."""
    before = _figures(registry)
    assert before.since(before).quantile(0.5, "seconds") is None
    more = Counter("more", "More", registry=registry)
    more.inc(5)
    between = _figures(registry).since(before)
    assert (between.total("more_total"), between.total("events_total")) == (5, 0)
