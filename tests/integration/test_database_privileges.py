"""What everybody may do in a database with livedex: nothing; and what acts for others looks at no table of the caller."""

import psycopg


def test_functions_that_act_for_others_keep_their_search_path(database_url: str) -> None:
    """Each SECURITY DEFINER function looks into pg_catalog and livedex first and into the caller's temporary tables last."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select proname, (select setting from unnest(proconfig) s (setting) where setting like 'search_path=%')"
            "  from pg_proc where prosecdef and pronamespace = 'livedex'::regnamespace"
        ).fetchall()
    assert len(rows) >= 5
    assert {setting for _, setting in rows} == {"search_path=pg_catalog, livedex, pg_temp"}, rows


def test_the_public_may_do_nothing(database_url: str) -> None:
    """No schema, table, view or function of livedex is open to a role that nothing was granted to."""
    with psycopg.connect(database_url) as connection:
        connection.execute("create role nobody_in_particular")  # taken back with the transaction
        open_to = connection.execute(
            "select 'schema' where has_schema_privilege('nobody_in_particular', 'livedex', 'usage, create')"
            " union all select relname from pg_class where relnamespace = 'livedex'::regnamespace and relkind in ('r', 'v')"
            "   and has_table_privilege('nobody_in_particular', oid, 'select, insert, update, delete, truncate')"
            " union all select proname from pg_proc where pronamespace = 'livedex'::regnamespace"
            "   and has_function_privilege('nobody_in_particular', oid, 'execute')"
        ).fetchall()
        connection.rollback()
    assert open_to == []
