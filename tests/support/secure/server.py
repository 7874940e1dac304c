"""A Postgres that takes connections over TLS only: by password, or by a client's certificate."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from support.contrib import Contrib, contrib_server
from support.database import create_template
from support.secure.certificates import CLIENT, HOST, Certificates, Pair

PASSWORD = "of-the-role/1618"  # with a sign that URLs must escape
TEMPLATE = "template_secure"
_RULES = f"""\
host    all postgres 127.0.0.1/32 scram-sha-256
hostssl all by_certificate 127.0.0.1/32 cert map=clients
hostssl all {CLIENT} 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureServer:
    """The running server, with a migrated database TEMPLATE and a role CLIENT that may be used over TLS only."""

    plain: Contrib
    certificates: Certificates

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        return self.plain.port

    def url(self, database: str, *, user: str = CLIENT, password: str = PASSWORD, host: str = HOST, **options: str) -> str:
        """As an operator would write it; by default verify-full with the server's authority."""
        given = {"sslmode": "verify-full", "sslrootcert": str(self.certificates.authority), **options}
        login = f"{user}:{quote(password, safe='')}" if password else user
        return f"postgresql://{login}@{host}:{self.port}/{database}?{urlencode(given)}"

    def execute(self, statement: str, *names: str) -> None:
        """As the superuser."""
        with psycopg.connect(self.plain.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def use(self, pair: Pair) -> None:
        """Show this certificate from now on."""
        with psycopg.connect(self.plain.url, autocommit=True) as connection:
            (folder,) = connection.execute("show data_directory").fetchone() or ("",)
            files = {"ssl_cert_file": pair.certificate, "ssl_key_file": pair.key, "ssl_ca_file": self.certificates.authority}
            for setting, path in files.items():
                own = Path(folder) / path.name
                shutil.copy(path, own)
                own.chmod(0o600)
                if os.geteuid() == 0:
                    shutil.chown(own, "nobody")
                connection.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(setting), path.name))
            connection.execute("alter system set ssl = on")
            connection.execute("select pg_reload_conf()")


@contextmanager
def secure_server(certificates: Certificates) -> Iterator[SecureServer]:
    """A running server; it is skipped where contrib_server is."""
    with contrib_server() as plain:
        own = SecureServer(plain=plain, certificates=certificates)
        own.use(certificates.server("postgres"))
        create_template(plain.url, TEMPLATE)
        with psycopg.connect(plain.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("create role {} login in role livedex_indexer password {}").format(sql.Identifier(CLIENT), PASSWORD)
            )
            connection.execute("create role by_certificate login in role livedex_query")
            (rules,) = connection.execute("show hba_file").fetchone() or ("",)
            (names,) = connection.execute("show ident_file").fetchone() or ("",)
            Path(rules).write_text(_RULES, encoding="utf-8")
            Path(names).write_text(f"clients {CLIENT} by_certificate\n", encoding="utf-8")
            connection.execute("select pg_reload_conf()")
        yield own
