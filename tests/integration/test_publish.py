"""`livedex publish --wait` with a worker that follows: versions of files, and what became of the events."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from support.kafka import Log
from support.terminal import Terminal
from support.workers import Workers


@dataclass(frozen=True, slots=True)
class Followed:
    """A collection that takes versions from its source, an index worker that follows it, and a command line."""

    livedex: Terminal
    workers: Workers
    topic: str

    def documents(self) -> list[tuple[object, ...]]:
        """Id, version and text of what is visible."""
        statement = """select d.document_id, d.version, string_agg(c.text, '' order by c.ordinal)
                         from livedex.documents d join livedex.chunks c using (document_id) group by 1, 2 order by 1"""
        return self.workers.rows(statement)


@pytest.fixture
def followed(workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Followed:
    """The worker is a process, so that its log is not the command's output."""
    topic = log.topic()
    config = workers.config(topic, versions="source", model="hash-4")
    workers.apply(config)
    environment = {
        "LIVEDEX_CONFIG": str(config),
        "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": workers.stack.kafka_bootstrap_servers,
        "LIVEDEX_DATABASE_URL": workers.database_url,
        "LIVEDEX_EMBEDDER": "hash",
    }
    workers.start("index", config)
    return Followed(Terminal(environment, monkeypatch, capsys), workers, topic)


def test_files_are_published_with_a_version(followed: Followed, tmp_path: Path) -> None:
    """The newer version wins, whichever is sent last; lines of JSON Lines keep their own."""
    page, lines = tmp_path / "page.md", tmp_path / "lines.jsonl"
    lines.write_text('{"id": "line", "version": 3, "text": "A line."}\n')
    for version, text in (("7", "Seven."), ("6", "Six.")):
        page.write_text(text)
        assert followed.livedex("publish", str(page), str(lines), "--version", version, "--wait").code == 0
    assert followed.documents() == [("line", 3, "A line."), ("page.md", 7, "Seven.")]
    assert followed.livedex("publish", str(page), "--version", "-1").code == 2
    assert followed.livedex("publish", str(page), "--version", str(2**63)).code == 2


def test_what_became_a_dead_letter_is_said(followed: Followed, tmp_path: Path) -> None:
    """With --wait the number of dead letters among the sent events is told and the exit code is 1; others do not count."""
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("A text.")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"id": "line", "version": 3, "text": "A line."}\n')
    done = followed.livedex("publish", str(tmp_path), str(lines), "--wait")
    assert done.code == 1
    assert "of 3 events sent, 2 became dead letters" in done.err
    assert done.out == f"{followed.topic}:0:2\n"
    assert followed.livedex("publish", str(lines), "--wait").code == 0
    assert followed.livedex("publish", str(tmp_path)).code == 0, "without --wait nobody knows yet"
