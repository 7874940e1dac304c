"""What is wrong with the settings of a connection to Postgres, by what libpq says of a connect that failed; and the remedy.

libpq keeps the SQLSTATE of a failed connect to itself, so its class 28 and 3D000 can be told by their texts only. A server that
writes in another language is waited for, as one that is down.
"""

import re

# Patterns by their remedy. The first that fits: what is more particular comes first.
_REMEDIES = {
    "use a host that the server's certificate has, or renew the certificate with this host in it": (
        r"server certificate for .* does not match host name",
    ),
    "let sslrootcert name the certificate of the authority that signed the server's, or be system": (
        r"root certificate file .* does not exist",
        r"could not (read|load) root certificate",
    ),
    "set sslmode=verify-full, or name an authority's file in sslrootcert": (r"weak sslmode .* may not be used",),
    "let sslrootcert name the authority that signed the server's certificate, and see that it has not ended": (
        r"certificate verify failed",
    ),
    "turn ssl on in the server; with sslmode=disable everything would go in the clear": (r"server does not support SSL",),
    "let sslcert and sslkey name a valid certificate of an authority in the server's ssl_ca_file, made out to the role, and "
    "its key": (
        r"SSL error: .*alert .*(certificate|unknown ca)",
        r"connection requires a valid client certificate",
        r"certificate authentication failed",
    ),
    "correct sslcert, sslkey and sslpassword; the key's file is for its owner alone: chmod 0600": (
        r"could not (read|load|open) certificate file",
        r"private key file",
    ),
    "let the server ask for scram-sha-256, or change require_auth and channel_binding": (
        r"authentication method requirement",
        r"channel binding required",
    ),
    "set sslmode=verify-full, or check host, database and user, and the server's pg_hba.conf": (
        r"no pg_hba\.conf entry for .* no encryption",
    ),
    "check host, port, database, user and password": (
        r"authentication failed for user|no password supplied",
        r"no pg_hba\.conf entry for|pg_hba\.conf rejects",
        r"(role|database) \".*\" does not exist|role \".*\" is not permitted to log in",
        r"connection is bad: invalid ",  # libpq of its own options
        r"no such (database|user)",  # PgBouncer
    ),
}
_PATTERNS = tuple((re.compile(pattern), remedy) for remedy, patterns in _REMEDIES.items() for pattern in patterns)


def refusal(says: str) -> str | None:
    """The line that tells, and what to do; None when waiting may help."""
    lines = [line.strip() for line in says.splitlines()]
    for pattern, remedy in _PATTERNS:
        found = next((line for line in lines if pattern.search(line)), None)
        if found is not None:
            return f"{found}: {remedy} (in LIVEDEX_DATABASE_URL, or in libpq's PG* variables)"
    return None
