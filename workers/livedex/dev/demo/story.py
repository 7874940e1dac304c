"""The demo, step by step. Each step shows something and checks it: what does not hold is an InvariantError.

start > set up > publish > ask > edit > delete > break > figures
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from livedex.config import DEFAULT_TOPIC
from livedex.core.record import Place
from livedex.dev.demo.corpus import Document
from livedex.dev.demo.figures import Figures
from livedex.dev.demo.system import READY_SECONDS, System, until
from livedex.errors import InvariantError
from livedex.events import Event

SEARCHABLE_SECONDS = 300.0  # for the whole corpus, on a machine that has other things to do
NEAR_THE_TOP = 3  # where an answer must stand
MOST_EMBEDDED = 3  # chunks: the one with the edit, and a neighbour on each side whose boundary may move
SENTENCE = "The cat of the office is called Tabby and sleeps on the warm router."
WHERE_IS_THE_CAT = "where does the cat of the office sleep?"
BROKEN = b'{"op": "upsert", "id": "demo/broken", "text": "this JSON ends in the mid'


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question and the document that answers it."""

    text: str
    answer: str


QUESTIONS = (
    Question(text="compare two texts and show the lines that differ", answer="python/difflib"),
    Question(text="split a command line the way a shell does", answer="python/shlex"),
    Question(text="priority queue that always gives the smallest element first", answer="python/heapq"),
    Question(text="remember the results of earlier calls of a function, least recently used", answer="python/functools"),
    Question(text="create a temporary file that is deleted when it is closed", answer="python/tempfile"),
)


class Story:
    """Tells the demo on a console, about a system and the documents that go into it."""

    def __init__(self, system: System, documents: list[Document], console: Console) -> None:
        self._system = system
        self._documents = {document.id: document for document in documents}
        self._console = console
        # the hash encoder of tests knows no meaning: then only words can be found
        self._mode = "text" if os.environ.get("LIVEDEX_EMBEDDER") == "hash" else "hybrid"

    def tell(self) -> None:
        """Everything, in order."""
        self.start()
        self.set_up()
        self.publish()
        loaded = self._index_figures()
        self.ask()
        self.edit()
        self.delete()
        self.break_one()
        self.show_figures(loaded)

    def start(self) -> None:
        """A broker and a database in a folder of their own."""
        self._heading("Start a Kafka broker and a Postgres server, on ports of their own")
        with self._timed() as seconds:
            addresses = self._system.stack.up()
        self._say(f"kafka    {addresses.kafka_bootstrap_servers}")
        self._say(f"postgres {addresses.database_url.rpartition('@')[2]}   both answer after {seconds():.1f} s")

    def set_up(self) -> None:
        """Tables, a collection with its model, a topic; then the two workers."""
        self._heading("Set up the database and the topic, and start the two workers")
        self._run("migrate")
        self._run("apply")
        with self._timed() as seconds:
            for command in ("index", "serve"):
                self._system.start(command)
            for command, worker in self._system.workers.items():
                until(worker.ready, f"livedex {command} to be ready", timeout=READY_SECONDS)
                self._say(f"[bold]$ livedex {command} &[/bold]   ready at {worker.address} after {seconds():.1f} s")
        ((model, dimension),) = self._rows("select model, dimension from livedex.generation")
        self._say(f"model    {model}, {dimension} dimensions")

    def publish(self) -> None:
        """The corpus through Kafka, until all of it is searchable."""
        self._heading(f"Publish {len(self._documents)} documents: standard library and packages of this machine")
        path = self._system.folder / "corpus.jsonl"
        path.write_bytes(b"".join(document.event + b"\n" for document in self._documents.values()))
        with self._timed() as seconds:
            tokens = self._run("publish", str(path)).split()
            self._watch_them_appear()
            self._wait_for(tokens)
        ((chunks,),) = self._rows("select count(*) from livedex.chunks")
        texts = dict(self._rows("select document_id, string_agg(text, '' order by ordinal) from livedex.chunks group by 1"))
        _check(
            texts == {document.id: document.text for document in self._documents.values()},
            "the chunks of every document, put together, are its text",
        )
        self._say(f"{chunks} chunks are searchable after {seconds():.1f} s; put together they are the texts, byte for byte")

    def ask(self) -> None:
        """Questions over HTTP."""
        self._heading("Ask: POST /v1/search")
        for question in self._questions():
            answer = self._system.search(question.text, mode=self._mode)
            self._show_answer(question.text, answer)
            found = [row["document_id"] for row in answer["results"]]
            _check(question.answer in found[:NEAR_THE_TOP], f"{question.answer} answers {question.text!r}, found {found}")

    def edit(self) -> None:
        """One sentence more in the document with the most chunks."""
        self._heading("Change one sentence")
        ((name,),) = self._rows("select document_id from livedex.chunks group by 1 order by count(*) desc, 1 limit 1")
        edited = with_sentence(self._documents[name], SENTENCE)
        before = self._index_figures()
        place, milliseconds = self._send_and_wait(Event(key=name, value=edited.event))
        answer = self._system.search(WHERE_IS_THE_CAT, mode=self._mode, after=str(place))
        best = answer["results"][0]
        _check(best["document_id"] == name and SENTENCE in best["chunk"], f"the new sentence of {name} is found")
        counted = self._after(before, events=1)
        embedded = counted.total("livedex_chunks_total", outcome="embedded")
        reused = counted.total("livedex_chunks_total", outcome="reused")
        ((chunks,),) = self._rows("select count(*) from livedex.chunks where document_id = %s", name)
        _check(
            1 <= embedded <= MOST_EMBEDDED and embedded + reused == chunks,
            f"of {chunks} chunks an edit embeds 1 to {MOST_EMBEDDED}, reuses the rest; found {embedded:.0f} and {reused:.0f}",
        )
        self._say(f"in the middle of {name}: [italic]{SENTENCE}[/italic]")
        self._say(f"searchable [bold]{milliseconds:.0f} ms[/bold] after Kafka acknowledged it; "
                  f"embedded [bold]{embedded:.0f}[/bold] of {chunks} chunks")  # fmt: skip
        self._show_answer(WHERE_IS_THE_CAT, answer, around=SENTENCE)

    def delete(self) -> None:
        """A document goes, and with it every answer that it gave."""
        self._heading("Delete a document")
        question = self._questions()[0]
        self._run("delete", question.answer, "--wait")
        answer = self._system.search(question.text, mode=self._mode)
        found = [row["document_id"] for row in answer["results"]]
        left = self._rows("select count(*) from livedex.documents where document_id = %s", question.answer)
        _check(question.answer not in found and left == [(0,)], f"{question.answer} is gone, found {found}")
        self._show_answer(question.text, answer)
        self._say(f"{question.answer} is gone: not in the answer, not in livedex.documents")

    def break_one(self) -> None:
        """A record that is no event, between two good ones of its partition."""
        self._heading("Send one broken record, between two good ones")
        partition, neighbours = self._two_of_one_partition()
        first, last = (self._reviewed(name) for name in neighbours)
        before = self._index_figures()
        places = self._system.send(first, Event(key="demo/broken", value=BROKEN), last, partition=partition)
        self._wait_for([str(place) for place in places])
        counted = self._after(before, events=3)
        reviewed = self._rows("select document_id from livedex.documents where metadata @> %s order by 1", '{"reviewed": true}')
        _check(reviewed == [(name,) for name in neighbours], f"the neighbours {neighbours} are applied, found {reviewed}")
        letters = self._rows("select id, \"offset\", reason, value from livedex.dead_letter where state = 'open'")
        _check(letters == [(1, places[1].offset, "invalid-json", BROKEN)], f"one dead letter with the record, found {letters}")
        _check(counted.total("livedex_chunks_total", outcome="embedded") == 0, "a change of metadata embeds nothing")
        self._run("dead-letters", "show", "1")
        self._say(f"the record is kept with its reason; {' and '.join(neighbours)} got their new metadata, 0 chunks embedded")

    def show_figures(self, loaded: Figures) -> None:
        """What the workers measured, from their own /metrics."""
        self._heading("What the workers measured: GET /metrics")
        index, serve = self._index_figures(), self._system.workers["serve"].figures()
        ((records,),) = self._rows("select sum(next_offset) from livedex.progress where topic = %s", DEFAULT_TOPIC)
        _check(index.total("livedex_events_total") == records, f"each of {records} records is counted exactly once")
        table = Table(box=None, show_header=False, pad_edge=False)
        changes = index.since(loaded)
        for name, value in (
            ("freshness p50, one change at a time", _duration(changes.quantile(0.5, "livedex_freshness_seconds"))),
            ("freshness p50, whole corpus at once", _duration(loaded.quantile(0.5, "livedex_freshness_seconds"))),
            ("events", _counts(index.by("livedex_events_total", "outcome"))),
            ("chunks", _counts(index.by("livedex_chunks_total", "outcome"))),
            ("search p50 over HTTP", _duration(serve.quantile(0.5, "livedex_search_seconds"))),
            ("searches", _counts(serve.by("livedex_search_requests_total", "code"))),
        ):
            table.add_row(name, value)
        self._console.print(table)

    def _questions(self) -> list[Question]:
        return [question for question in QUESTIONS if question.answer in self._documents]

    def _two_of_one_partition(self) -> tuple[int, list[str]]:
        ((partition, names),) = self._rows(
            "select partition, (array_agg(document_id order by document_id))[1:2] from livedex.documents"
            " group by partition order by count(*) desc limit 1"
        )
        return partition, names

    def _reviewed(self, name: str) -> Event:
        event = {"op": "metadata", "id": name, "metadata": {**self._documents[name].metadata, "reviewed": True}}
        return Event(key=name, value=json.dumps(event).encode())

    def _watch_them_appear(self) -> None:
        columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as bar, self._system.connect() as connection:
            task = bar.add_task("searchable", total=len(self._documents))

            def all_there() -> bool:
                row = connection.execute("select count(*) from livedex.documents").fetchone()
                bar.update(task, completed=row[0] if row else 0)
                return row == (len(self._documents),)

            until(all_there, "the corpus to be searchable", timeout=SEARCHABLE_SECONDS)

    def _send_and_wait(self, event: Event) -> tuple[Place, float]:
        """Send an event; its place, and the milliseconds from Kafka's acknowledgement until it was searchable."""
        with self._system.connect() as connection:
            (place,) = self._system.send(event)
            acknowledged = time.perf_counter()
            found = connection.execute("select livedex.wait_for(%s, timeout => '30 s')", (str(place),)).fetchone()
            milliseconds = (time.perf_counter() - acknowledged) * 1000
        _check(found == (True,), f"the event {place} is searchable within 30 s")
        return place, milliseconds

    def _wait_for(self, tokens: list[str]) -> None:
        for token in tokens:
            found = self._rows("select livedex.wait_for(%s, timeout => '30 s')", token)
            _check(found == [(True,)], f"the event {token} is searchable within 30 s")

    def _after(self, before: Figures, *, events: int) -> Figures:
        """What the index worker counted since then, once it has counted so many events: it counts after the commit."""
        name = "livedex_events_total"
        until(lambda: self._index_figures().since(before).total(name) >= events, f"{events} events to be counted", timeout=10)
        return self._index_figures().since(before)

    def _index_figures(self) -> Figures:
        return self._system.workers["index"].figures()

    def _rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self._system.rows(statement, *arguments)

    def _run(self, *arguments: str) -> str:
        self._say(f"[bold]$ livedex {escape(' '.join(arguments))}[/bold]")
        output = self._system.run(*arguments, columns=self._console.width)
        if output:
            self._console.print(output.rstrip(), markup=False, highlight=False, soft_wrap=True)
        return output

    def _heading(self, text: str) -> None:
        self._console.print()
        self._console.print(text, style="bold cyan")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _show_answer(self, question: str, answer: dict[str, Any], *, around: str = "") -> None:
        self._say(f"[bold]? {escape(question)}[/bold]   [dim]{answer['took_ms']['total']:.0f} ms[/dim]")
        for row in answer["results"][:2]:
            start = max(0, row["chunk"].find(around))
            excerpt = " ".join(row["chunk"][start:].split())
            line = f"  [green]{escape(row['document_id'])}[/green]  {escape(excerpt)}"
            self._console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")

    @contextmanager
    def _timed(self) -> Iterator[Callable[[], float]]:
        started = time.perf_counter()
        yield lambda: time.perf_counter() - started


def with_sentence(document: Document, sentence: str) -> Document:
    """The document with this sentence more, at the end of the paragraph in its middle."""
    middle = len(document.text) // 2
    place = document.text.find("\n\n", middle)
    place = place if place >= 0 else len(document.text)
    return replace(document, text=f"{document.text[:place]} {sentence}{document.text[place:]}")


def _check(holds: bool, what: str) -> None:  # noqa: FBT001, RUF100 - reads as a sentence
    if not holds:
        raise InvariantError(f"expected: {what}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        raise InvariantError("a histogram that the demo shows has no observation")
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _counts(found: dict[str, float]) -> str:
    return ", ".join(f"{count:.0f} {name}" for name, count in found.items())
