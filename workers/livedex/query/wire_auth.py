"""SCRAM-SHA-256, the server's side (RFC 5802 and 7677): the password crosses no network and is kept nowhere.

An `Exchange` is one client's proof that it knows the password. Without TLS there is no channel to bind to.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from pathlib import Path

from livedex.errors import ConfigError

MECHANISM = b"SCRAM-SHA-256"
ITERATIONS = 4096  # what Postgres takes, and RFC 7677 asks for at least
MOST_BYTES = 1024  # of a password file
_FIRST = re.compile(rb"(?P<header>[ny],(?:a=[^,]*)?,)(?P<bare>n=[^,]*,r=(?P<nonce>[!-+\--~]+)(?:,.*)?)", re.DOTALL)
_FINAL = re.compile(rb"(?P<unproven>c=(?P<header>[^,]*),r=(?P<nonce>[^,]*)(?:,.*)?),p=(?P<proof>[^,]*)", re.DOTALL)


class ProofError(Exception):
    """The client does not know the password, or does not speak SCRAM."""


def read_password(path: Path) -> str:
    """The content of a password file; ConfigError without quoting it."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1).strip()
    except OSError as error:
        raise ConfigError(
            f"the password file {path} cannot be read: {error.strerror}; check LIVEDEX_WIRE_PASSWORD_FILE"
        ) from None
    # ASCII: what SASLprep makes of other letters depends on who asks
    if not re.fullmatch(rb"[!-~]{16,1024}", content):
        raise ConfigError(
            f"the password in {path} is not 16 to {MOST_BYTES} letters, digits and signs of ASCII without blanks: "
            "write one as `openssl rand -hex 32` makes it"
        )
    return content.decode()


class Password:
    """What a server keeps of a password."""

    def __init__(self, password: str) -> None:
        self.salt = secrets.token_bytes(16)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self.salt, ITERATIONS)
        self.stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        self.server_key = _hmac(salted, b"Server Key")


class Exchange:
    """One client's: its first message, then its final one. ProofError ends it."""

    def __init__(self, password: Password) -> None:
        self._password = password
        self._client_first = self._server_first = self._nonce = self._header = b""

    def first(self, message: bytes) -> bytes:
        """The answer to the client's first message."""
        found = _FIRST.fullmatch(message)
        if found is None:
            raise ProofError("no first message of SCRAM-SHA-256 without channel binding")
        self._header, self._client_first = found["header"], found["bare"]
        self._nonce = found["nonce"] + base64.b64encode(secrets.token_bytes(18))
        salt = base64.b64encode(self._password.salt)
        self._server_first = b"r=%s,s=%s,i=%d" % (self._nonce, salt, ITERATIONS)
        return self._server_first

    def final(self, message: bytes) -> bytes:
        """The answer to the client's final message: the server's own proof."""
        found = _FINAL.fullmatch(message)
        if found is None or found["nonce"] != self._nonce or _decoded(found["header"]) != self._header:
            raise ProofError("no final message to this exchange")
        exchanged = b",".join((self._client_first, self._server_first, found["unproven"]))
        signature = _hmac(self._password.stored_key, exchanged)
        proof = _decoded(found["proof"])
        if len(proof) != len(signature):
            raise ProofError("a proof of another length")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._password.stored_key):
            raise ProofError("another password")
        return b"v=" + base64.b64encode(_hmac(self._password.server_key, exchanged))


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ProofError("no base64") from None
