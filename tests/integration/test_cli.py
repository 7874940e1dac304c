"""The command line as people and scripts use it: data on stdout, words on stderr, the documented exit codes, no traceback."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses
from support.database import fresh_database, login_role
from support.kafka import Log
from support.terminal import Terminal
from support.workers import Workers, free_port

COMMANDS = ["apply", "canary", "dead-letters", "delete", "dev", "doctor", "evaluate", "generation", "grant", "index", "migrate",
            "publish", "revoke", "search", "serve", "source", "status", "wait"]  # fmt: skip

GROUPS = {"dev": ["up", "env", "down"], "dead-letters": ["list", "show", "replay", "discard"], "source": ["list", "reset"],
          "generation": ["list", "switch", "rollback", "drop"]}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Running:
    """A topic, an index worker that follows it, and a query worker."""

    workers: Workers
    log: Log
    topic: str
    config: Path
    address: str  # of the query worker

    def environment(self) -> dict[str, str]:
        """What a shell of its operator has set."""
        return {
            "LIVEDEX_CONFIG": str(self.config),
            "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": self.workers.stack.kafka_bootstrap_servers,
            "LIVEDEX_DATABASE_URL": self.workers.database_url,
            "LIVEDEX_EMBEDDER": "hash",
            "LIVEDEX_HTTP_PORT": self.address.rpartition(":")[2],
        }

    def count(self) -> int:
        """How many records the topic has."""
        return len(self.log.records(self.topic))


@pytest.fixture(scope="module")
def running(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Both workers, as processes."""
    kafka = KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)
    folder = tmp_path_factory.mktemp("cli")
    with fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers, Log(kafka) as log:
        topic = log.topic()
        config = workers.config(topic, model="hash-16")
        workers.apply(config)
        workers.start("index", config)
        yield Running(workers, log, topic, config, workers.start("serve", config).address)


@pytest.fixture
def livedex(running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """The command line, set up for the running workers."""
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal(running.environment(), monkeypatch, capsys)


# --- what there is


def test_help_lists_exactly_the_commands_that_exist(livedex: Terminal) -> None:
    """Commands of later versions are not there before they work."""
    assert listed(livedex("--help").out) == COMMANDS
    for group, commands in GROUPS.items():
        assert listed(livedex(group, "--help").out) == sorted(commands)


def listed(text: str) -> list[str]:
    """The commands in a help text, in the order of the alphabet."""
    return sorted(line.split()[1] for line in text.splitlines() if line.startswith("│ ") and line[2] not in " -")


def test_every_command_explains_itself(livedex: Terminal) -> None:
    """--help ends with 0 for each; without a command the help is shown and the code is 2."""
    for command in COMMANDS:
        done = livedex(command, "--help")
        assert done.code == 0
        assert "Usage" in done.out
    assert livedex().code == 2


def test_the_version_is_printed(running: Running) -> None:
    """As a process: `python -m livedex --version` prints one line."""
    done = running.workers.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(".") == 2


def test_a_wait_that_takes_too_long_is_exit_4(livedex: Terminal, running: Running) -> None:
    """At the timeout, with the token named."""
    done = livedex("wait", f"{running.topic}:0:1000000", "--timeout", "0.2")
    assert (done.code, done.out) == (4, "")
    assert f"{running.topic}:0:1000000 was not searchable within 0.2 s" in done.err


def test_a_search_that_takes_too_long_is_exit_4(livedex: Terminal, running: Running) -> None:
    """The worker's 504 is the command's exit 4."""
    assert livedex("search", "x", "--timeout", "0.001").code in (0, 4)  # a fast machine may be in time


# --- documents


def test_publish_sends_files_folders_and_json_lines(livedex: Terminal, running: Running, tmp_path: Path) -> None:
    """A file is a document of its name, a folder one of each text file's path, a line of JSON an event; stdout is tokens."""
    folder = tmp_path / "guide"
    (folder / "deep").mkdir(parents=True)
    (folder / "install.md").write_text("# Installing\n\nAn unusual aardvark.")
    (folder / "deep" / "notes.txt").write_text("Notes.")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("Hidden.")
    lines = tmp_path / "events.jsonl"
    lines.write_text('{"id": "line/1", "text": "One."}\n\n{"id": "line/2", "op": "delete"}\n')
    done = livedex("publish", str(folder), str(lines), str(folder / "install.md"), "--wait")
    assert done.code == 0
    (token,) = done.out.splitlines()
    sent = [(json.loads(record.value or b"null")["id"], record.key) for record in running.log.records(running.topic)[-5:]]
    assert sent == [(name, name.encode()) for name in ("deep/notes.txt", "install.md", "line/1", "line/2", "install.md")]
    assert token == f"{running.topic}:0:{running.count() - 1}"
    statement = "select title from livedex.documents where document_id = 'install.md'"
    assert running.workers.rows(statement) == [("install",)], "--wait returns when it is searchable"


def test_publish_as_a_process_prints_tokens_alone(running: Running, tmp_path: Path) -> None:
    """In a pipe the progress bar is on stderr, and the token can be given to `livedex wait`."""
    path = tmp_path / "piped.md"
    path.write_text("A piped text.")
    done = running.workers.run("publish", str(path), config=running.config)
    assert done.returncode == 0
    assert done.stdout == f"{running.topic}:0:{running.count() - 1}\n"
    waited = running.workers.run("wait", done.stdout.strip(), config=running.config)
    assert (waited.returncode, waited.stdout) == (0, "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "b", "text": 7}', "schema"),
        (b"no json", "invalid-json"),
        (b'{"text": "x"}', "missing-id"),
        (b'{"id": "b", "text": "\xff"}', "invalid-utf8"),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_sent(
    livedex: Terminal, running: Running, tmp_path: Path, line: bytes, reason: str
) -> None:
    """Everything is checked before anything is sent."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"id": "a", "text": "Good."}\n' + line + b"\n")
    before = running.count()
    done = livedex("publish", str(path))
    assert (done.code, done.out) == (2, "")
    assert f"{path} line 2 is no change event" in done.err
    assert reason in done.err
    assert running.count() == before


def test_a_file_that_is_no_text_is_named(livedex: Terminal, running: Running, tmp_path: Path) -> None:
    """So is a folder without a document."""
    path = tmp_path / "latin1.md"
    path.write_bytes("für".encode("latin-1"))
    assert f"{path} is not UTF-8 text: byte 1" in livedex("publish", str(path)).err
    (tmp_path / "empty").mkdir()
    done = livedex("publish", str(tmp_path / "empty"))
    assert done.code == 2
    assert "there is no document in" in done.err


def test_a_topic_that_is_not_there_is_named(livedex: Terminal, tmp_path: Path) -> None:
    """At once, with the remedy."""
    path = tmp_path / "a.md"
    path.write_text("A text.")
    done = livedex("publish", str(path), "--topic", "absent")
    assert (done.code, done.out) == (1, "")
    assert "the topic absent does not exist: run livedex apply" in done.err


def test_delete_removes_documents(livedex: Terminal, running: Running, tmp_path: Path) -> None:
    """`delete --wait` returns when they are gone."""
    for name in ("x.md", "y.md"):
        (tmp_path / name).write_text("To be deleted.")
    assert livedex("publish", str(tmp_path), "--wait").code == 0
    done = livedex("delete", "x.md", "y.md", "--wait")
    assert done.code == 0
    assert done.out == f"{running.topic}:0:{running.count() - 1}\n"
    assert running.workers.rows("select count(*) from livedex.documents where document_id in ('x.md', 'y.md')") == [(0,)]


# --- search


def test_a_search_is_the_same_through_the_query_worker_and_without_one(
    livedex: Terminal, running: Running, tmp_path: Path
) -> None:
    """--json prints the whole answer; where no worker listens, the command searches itself and says so on stderr."""
    (tmp_path / "zebra.md").write_text("Stripes of a zebra.")
    assert livedex("publish", str(tmp_path), "--wait").code == 0
    arguments = ["search", "Stripes of a zebra.", "-k", "2", "--filter", "{}", "--json"]
    through = livedex(*arguments)
    alone = livedex(*arguments, LIVEDEX_HTTP_PORT=str(free_port()))
    assert (through.code, through.err) == (0, "")
    assert alone.code == 0
    assert "searching in this process" in alone.err
    answers = [json.loads(done.out) for done in (through, alone)]
    assert answers[0].keys() == answers[1].keys() == {"results", "took_ms", "generation", "degraded"}
    for answer in answers:
        assert answer["results"][0]["document_id"] == "zebra.md"
    assert [row["document_id"] for row in answers[0]["results"]] == [row["document_id"] for row in answers[1]["results"]]
    assert answers[0]["results"][0].keys() == answers[1]["results"][0].keys()


def test_a_wrong_search_is_a_usage_error_with_and_without_a_query_worker(livedex: Terminal) -> None:
    """What the worker refuses is refused the same when the command searches itself."""
    for more in ({}, {"LIVEDEX_HTTP_PORT": str(free_port())}):
        for arguments, field in ((["x", "--filter", "[]"], "filter"), (["x", "--mode", "fuzzy"], "mode"), ([""], "query")):
            done = livedex("search", *arguments, **more)
            assert (done.code, done.out) == (2, "")
            assert field in done.err


def test_a_search_for_people_is_a_table(livedex: Terminal, tmp_path: Path) -> None:
    """Documents with score and text; brackets in a text are text; nothing found is said on stderr."""
    (tmp_path / "brackets.md").write_text("A [bold]quagga[/bold] in brackets.")
    assert livedex("publish", str(tmp_path), "--wait").code == 0
    done = livedex("search", "quagga", "--mode", "text")
    assert "brackets.md" in done.out
    assert "[bold]quagga[/bold]" in done.out
    nothing = livedex("search", "xylophone", "--mode", "text")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing found" in nothing.err


def test_an_unknown_collection_is_exit_1(livedex: Terminal) -> None:
    """Through the worker and without one."""
    for port in ({}, {"LIVEDEX_HTTP_PORT": str(free_port())}):
        done = livedex("search", "x", "--collection", "absent", **port)
        assert (done.code, done.out) == (1, "")
        assert "the collection absent does not exist" in done.err


# --- operation


def test_status_says_how_far_each_source_is(livedex: Terminal, running: Running, tmp_path: Path) -> None:
    """As JSON for programs, with lag and staleness, and as tables for people."""
    (tmp_path / "status.md").write_text("A text.")
    assert livedex("publish", str(tmp_path), "--wait").code == 0
    done = livedex("status", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    (source,) = found["sources"]
    assert (source["topic"], source["partition"], source["next_offset"]) == (running.topic, 0, running.count())
    assert (source["lag"], source["staleness_seconds"]) == (0, 0)
    (collection,) = found["collections"]
    assert (collection["collection"], collection["model"], collection["dimension"]) == ("default", "hash-16", 16)
    assert collection["documents"] == running.workers.rows("select count(*) from livedex.documents")[0][0]
    assert collection["index"]["state"] in ("none", "building", "ready")
    shown = livedex("status").out
    assert running.topic in shown
    assert "upkeep by" in shown


def test_status_goes_on_without_kafka(livedex: Terminal) -> None:
    """What Postgres knows is shown; that lag is unknown is said."""
    done = livedex("status", "--json", LIVEDEX_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert done.code == 0
    assert json.loads(done.out)["collections"]
    assert "lag and staleness are unknown" in done.err


def test_sources_are_listed(livedex: Terminal, running: Running) -> None:
    """With collection, state and epoch."""
    (source,) = json.loads(livedex("source", "list", "--json").out)
    assert source == {
        "topic": running.topic,
        "collection": "default",
        "state": "live",
        "epoch": 0,
        "reason": None,
        "partitions": 1,
    }
    assert running.topic in livedex("source", "list").out


def test_dead_letters_are_listed_and_shown(livedex: Terminal, running: Running) -> None:
    """The list names place and reason; `show` gives the record's exact bytes, as base64 in JSON."""
    value = b'{"id": "dead", "text": \x1b[31m}'
    place = running.log.send(running.topic, value, key="dead", headers=[("origin", b"\xff")])
    assert livedex("wait", str(place)).code == 0
    rows = json.loads(livedex("dead-letters", "list", "--json").out)
    assert (rows[0]["place"], rows[0]["reason"], rows[0]["state"]) == (str(place), "invalid-json", "open")
    assert str(place) in livedex("dead-letters", "list").out
    number = str(rows[0]["id"])
    shown = json.loads(livedex("dead-letters", "show", number, "--json").out)
    assert base64.b64decode(shown["value"]) == value
    assert [base64.b64decode(part) for part in shown["headers"]] == [b"origin", b"\xff"]
    assert shown["document_id"] == "dead"
    readable = livedex("dead-letters", "show", number)
    assert "\x1b" not in readable.out, "a terminal must not obey a document"
    assert "invalid-json" in readable.out
    absent = livedex("dead-letters", "show", "1000000")
    assert (absent.code, absent.out) == (1, "")
    assert json.loads(livedex("dead-letters", "list", "--state", "discarded", "--json").out) == []


def test_doctor_finds_everything_in_order(livedex: Terminal) -> None:
    """One ok line for each check, and exit 0."""
    done = livedex("doctor")
    assert done.code == 0, done.out
    checks = ["kafka", "postgres", "topics", "settings", "rights", "pgvector", "migrations", "roles", "permissions", "buffers",
              "texts", "clock", "disk", "model"]  # fmt: skip
    assert [line.split()[:2] for line in done.out.splitlines()] == [["ok", check] for check in checks]


def test_doctor_says_what_to_do(livedex: Terminal, running: Running, empty_database_url: str) -> None:
    """What is wrong has its line and its remedy; the other checks are made all the same; exit 1."""
    done = livedex(
        "doctor", LIVEDEX_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}", LIVEDEX_DATABASE_URL=empty_database_url
    )
    assert done.code == 1
    marks = {line.split()[1]: line.split()[0] for line in done.out.splitlines()}
    sound = {check for check, mark in marks.items() if mark == "ok"}
    assert sound == {"postgres", "roles", "buffers", "clock", "disk", "texts"}
    assert marks.keys() - sound == {"kafka", "pgvector", "migrations", "permissions", "model"}
    assert done.out.count("run livedex migrate") >= 3, done.out
    other = livedex("doctor", LIVEDEX_EMBEDDER="auto")
    assert other.code == 1
    assert "set LIVEDEX_EMBEDDER=hash" in other.out


@pytest.mark.parametrize(
    ("groups", "mark", "says"),
    [
        (["livedex_indexer"], "ok", "may run livedex index"),
        (["livedex_query"], "ok", "may run livedex serve"),
        (["livedex_indexer", "livedex_query"], "ok", "may run livedex index and livedex serve"),
        (["livedex_owner"], "ok", "may run livedex index and livedex serve"),
        (["livedex_search"], "fail", "may run no worker: grant it livedex_indexer"),
        ([], "fail", "may run no worker: grant it livedex_indexer"),
    ],
)
def test_doctor_says_what_the_role_may_do(livedex: Terminal, running: Running, groups: list[str], mark: str, says: str) -> None:
    """By the roles that it is a member of; it fails when the role can run neither worker."""
    with login_role(running.workers.database_url, *groups) as (name, url):
        out = livedex("doctor", LIVEDEX_DATABASE_URL=url).out
    (line,) = [line for line in out.splitlines() if line.split()[1] == "permissions"]
    assert line.split()[0] == mark
    assert line.endswith(f"{name} {says}") or mark == "fail"
    assert f"{name} {says}" in line


def test_a_terminal_does_not_obey_a_document(livedex: Terminal, running: Running) -> None:
    """Ids, titles, texts and rejected records go out with their control characters written out, C1 too."""
    steering = "\x1b]0;owned\x07\x9b2J"
    place = running.log.send(running.topic, {"id": f"id{steering}", "title": f"title{steering}", "text": f"okapi {steering}"})
    letter = running.log.send(running.topic, {"id": f"dead{steering}", "text": 7, "title": steering})
    assert livedex("wait", str(letter)).code == 0
    assert livedex("wait", str(place)).code == 0
    number = str(json.loads(livedex("dead-letters", "list", "--json").out)[0]["id"])
    shown = [
        livedex("search", "okapi", "--mode", "text"),
        livedex("search", "okapi", "--mode", "text", "--json"),
        livedex("dead-letters", "list"),
        livedex("dead-letters", "show", number),
        livedex("delete", f"id{steering}", "--topic", f"absent{steering}"),
    ]
    for done in shown:
        assert not {"\x1b", "\x07", "\x9b"} & set(done.out + done.err)
        assert "owned" in done.out + done.err
