"""The examples of docs/sql.md run as they are written, and find what there is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from livedex.dev.postgres import binary
from livedex.dev.stack import Addresses
from support.asking import TEXTS, SlowEncoder, fill_collection, serving
from support.clients.foreign import NodePostgres, Pgjdbc
from support.database import fresh_database
from support.examples import example, examples
from support.workers import Workers

pytestmark = pytest.mark.accept
QUESTION = "how do I reset my password"


@pytest.fixture(scope="module")
def encoder() -> SlowEncoder:
    """The worker's."""
    return SlowEncoder()


@pytest.fixture(scope="module")
def url(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory, encoder: SlowEncoder) -> Iterator[str]:
    """A database with three documents and a query worker."""
    with (
        fresh_database(stack.database_url, template) as own,
        Workers(stack, own, tmp_path_factory.mktemp("document")) as workers,
    ):
        fill_collection(own)
        with serving(workers, own, encoder):
            yield own


@pytest.fixture(autouse=True)
def asked(encoder: SlowEncoder, url: str) -> Iterator[None]:
    """The question was embedded, in this or an earlier test."""
    yield
    assert encoder.times(QUESTION) == 1


def assert_finds_all(output: str, times: int = 1) -> None:
    """Each of the three documents was printed so often."""
    assert [output.count(name) for name in TEXTS] == [times] * len(TEXTS), output


def run_psql(url: str, script: str) -> str:
    """What psql prints."""
    done = subprocess.run(
        [str(binary("psql")), "--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", url], input=script, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(url: str, script: str) -> str:
    """What a program prints."""
    alchemy = urlsplit(url)._replace(scheme="postgresql+psycopg").geturl()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env={**os.environ, "DATABASE_URL": url, "SQLALCHEMY_URL": alchemy},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_psql(url: str) -> None:
    """Once in each protocol."""
    output = run_psql(url, example("psql"))
    assert [output.count(f" {name} ") for name in TEXTS] == [2, 2, 2]


@pytest.mark.parametrize("heading", ["psycopg", "asyncpg", "SQLAlchemy"])
def test_drivers_of_python(url: str, heading: str) -> None:
    """Each example is a program."""
    assert_finds_all(run_python(url, example(heading)))


def test_django(url: str) -> None:
    """The functions, in a project with a database and one model."""
    parts = urlsplit(url)
    database = {
        "ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username, "PASSWORD": parts.password,
        "HOST": parts.hostname, "PORT": parts.port,
    }  # fmt: skip
    before = f"""
import django
from django.conf import settings
settings.configure(DATABASES={{'default': {database!r}}})
django.setup()
from django.db import models
class Article(models.Model):
    id = models.TextField(primary_key=True)
    class Meta:
        app_label, db_table = "help", "help_article"
"""
    after = f"""
with connection.schema_editor() as editor:
    editor.create_model(Article)
for name in {list(TEXTS)!r}:
    Article(id=name).save(force_insert=True)
for row in search({QUESTION!r}, 3):
    print(row[0])
for article in articles({QUESTION!r}):
    print(article.id, article.score)
connection.close()
"""
    assert_finds_all(run_python(url, before + "\n".join(examples("Django")) + after), times=2)


def test_node_postgres(url: str, tmp_path: Path) -> None:
    """As a program of node."""
    script = tmp_path / "example.js"
    script.write_text(example("node-postgres"))
    assert_finds_all(NodePostgres().run(script, url))


def test_jdbc(url: str, tmp_path: Path) -> None:
    """Its statements, one after the other."""
    script = tmp_path / "example.bsh"
    script.write_text(example("JDBC"))
    assert_finds_all(Pgjdbc().run(script, url))


def test_the_view(url: str) -> None:
    """Made and read."""
    output = run_psql(url, example("A view for reports"))
    assert [output.count(f" {name} ") for name in TEXTS] == [2, 2, 2]
    assert output.count(QUESTION) == len(TEXTS)
