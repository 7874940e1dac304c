"""`livedex grant` and `revoke`: who may search what in SQL, with Postgres's own roles."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors, sql

from support.database import login_role
from support.synthetic import Document, Piece, connection_to, create_collection, fill, gaussian
from support.workers import Workers

SEARCH = "select document_id from livedex.search_vector(null, mode => 'text', query => 'zebra', collection => %s)"


@pytest.fixture(autouse=True)
def collections(database_url: str) -> None:
    """Two collections with a document each."""
    with connection_to(database_url) as connection:
        for name in ("one", "two"):
            generation = create_collection(connection, name, model="hash-8")
            vector = gaussian(1, 1, 8)[0]
            fill(
                connection,
                generation,
                [Document(name=f"in {name}", pieces=[Piece(text="a zebra", vector=vector)], metadata={})],
            )


@contextmanager
def asking(url: str) -> Iterator[psycopg.Connection]:
    """A session of a role."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_a_role_searches_what_it_was_granted_and_nothing_else(database_url: str, workers: Workers) -> None:
    """A grant opens one collection, a revoke closes it, and both may be said twice."""
    with login_role(database_url) as (role, as_role), asking(as_role) as session:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(SEARCH, ("one",))
        assert f"{role} may search one" in workers.run("grant", "one", role).stderr
        assert session.execute(SEARCH, ("one",)).fetchall() == [("in one",)]
        with pytest.raises(errors.InsufficientPrivilege, match=f"{role} may not search the collection two"):
            session.execute(SEARCH, ("two",))
        for name in ("document", "collection_access", "mailbox_secret"):
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(sql.SQL("select from livedex.{}").format(sql.Identifier(name)))
        assert f"{role} may search one already" in workers.run("grant", "one", role).stderr
        workers.run("grant", "two", role)
        assert f"{role} may no longer search one" in workers.run("revoke", "one", role).stderr
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(SEARCH, ("one",))
        assert session.execute(SEARCH, ("two",)).fetchall() == [("in two",)], "the other grant stays"
        workers.run("revoke", "two", role)
        assert f"{role} had no grant for two" in workers.run("revoke", "two", role).stderr
        with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
            session.execute(SEARCH, ("two",))


def test_who_has_the_granted_role_searches_with_it(database_url: str, workers: Workers) -> None:
    """A grant to a group holds for its members; and who acts as another role by SET ROLE has that role's grants only."""
    with (
        login_role(database_url) as (group, _),
        login_role(database_url, group) as (_, as_member),
        asking(as_member) as session,
    ):
        workers.run("grant", "one", group)
        assert session.execute(SEARCH, ("one",)).fetchall() == [("in one",)]
        session.execute(sql.SQL("set role {}").format(sql.Identifier(group)))
        assert session.execute(SEARCH, ("one",)).fetchall() == [("in one",)]


def test_a_grant_is_to_a_role_and_not_to_its_name(database_url: str, workers: Workers) -> None:
    """One that takes the name of a role that was dropped or renamed has none of its grants, and is granted anew."""
    with login_role(database_url) as (role, as_role), connection_to(database_url) as operator:
        other = sql.Identifier(f"{role}_once")
        name = sql.Identifier(role)
        for collection in ("one", "two"):
            workers.run("grant", collection, role)
        operator.execute(sql.SQL("alter role {} rename to {}").format(name, other))
        operator.execute(sql.SQL("create role {} login in role livedex_search").format(name))
        try:
            with asking(as_role) as session:
                for collection in ("one", "two"):
                    with pytest.raises(errors.InsufficientPrivilege, match="may not search the collection"):
                        session.execute(SEARCH, (collection,))
                assert f"{role} may search one" in workers.run("grant", "one", role).stderr
                assert session.execute(SEARCH, ("one",)).fetchall() == [("in one",)]
                with pytest.raises(errors.InsufficientPrivilege):
                    session.execute(SEARCH, ("two",))
            operator.execute(sql.SQL("set role {}").format(other))
            with pytest.raises(errors.InsufficientPrivilege, match="may not search the collection"):
                operator.execute(SEARCH, ("one",))
            operator.execute("reset role")
            operator.execute(sql.SQL("drop role {0}; create role {0} login in role livedex_search").format(name))
            with asking(as_role) as session, pytest.raises(errors.InsufficientPrivilege, match="may not search the collection"):
                session.execute(SEARCH, ("one",))
            assert f"{role} had no grant for one" in workers.run("revoke", "one", role).stderr
            assert operator.execute("select from livedex.collection_access").fetchall() == []
        finally:
            operator.execute("reset role")
            operator.execute(sql.SQL("drop role {}").format(other))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "livedex_search"), "the collection 'nowhere' does not exist"),
        (("one", "nobody-by-that-name"), "the role 'nobody-by-that-name' does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_what_is_not_there_is_named(workers: Workers, command: str, arguments: tuple[str, str], says: str) -> None:
    """An unknown collection or role ends with 1 and says so."""
    done = workers.run(command, *arguments)
    assert done.returncode == 1
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_who_may_not_grant_is_told_who_can(database_url: str, workers: Workers) -> None:
    """A role without the right gets one sentence with the remedy, and nothing half done."""
    with login_role(database_url) as (role, _), login_role(database_url, "livedex_owner") as (owner, as_owner):
        done = workers.run("grant", "one", role, LIVEDEX_DATABASE_URL=as_owner)
        assert done.returncode == 1
        message = " ".join(done.stderr.split())
        assert f"role {owner} may not grant or revoke livedex_search" in message
        assert "as a superuser" in message
        with connection_to(database_url) as connection:
            assert connection.execute("select from livedex.collection_access").fetchall() == []
