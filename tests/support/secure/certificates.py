"""Certificates of an authority of the test's own, and wrong ones: of a stranger, for another host, past their end."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key

HOST = "localhost"  # what certificates are made out to; 127.0.0.1 leads to the same servers, and is another host
CLIENT = "livedex"  # the common name of the client's certificate: a role of the database
_NOW = datetime.now(UTC)
_FIRST_DAY = _NOW - timedelta(days=30)
KEY_PASSWORD = "of-the-encrypted-key-4711"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its key, in files: apart, as libpq wants them, and as Kafka does."""

    certificate: Path
    key: Path  # PKCS #8
    both: Path


class Certificates:
    """Makes them in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own, self._foreign = trustme.CA(organization_name="own"), trustme.CA(organization_name="foreign")
        self.authority, self.foreign_authority = folder / "ca.pem", folder / "foreign-ca.pem"
        self._own.cert_pem.write_to_path(self.authority)
        self._foreign.cert_pem.write_to_path(self.foreign_authority)

    def server(self, name: str = "server", *, ended: bool = False) -> Pair:
        """A server's, made out to HOST."""
        return self._write(name, self._own.issue_cert(HOST, not_before=_FIRST_DAY, not_after=_last_day(ended=ended)))

    def client(self, name: str = "client", *, common_name: str = CLIENT, foreign: bool = False, ended: bool = False) -> Pair:
        """A client's."""
        authority = self._foreign if foreign else self._own
        return self._write(
            name,
            authority.issue_cert(
                "client.example", common_name=common_name, not_before=_FIRST_DAY, not_after=_last_day(ended=ended)
            ),
        )

    def encrypted(self, pair: Pair) -> Path:
        """The pair's key under KEY_PASSWORD."""
        path = pair.key.with_suffix(".encrypted")
        key = load_key(pair.key.read_bytes(), password=None)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(KEY_PASSWORD.encode())))
        path.chmod(0o600)
        return path

    def _write(self, name: str, leaf: trustme.LeafCert) -> Pair:
        key = load_key(leaf.private_key_pem.bytes(), password=None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
        pair = Pair(
            certificate=self._folder / f"{name}.crt", key=self._folder / f"{name}.key", both=self._folder / f"{name}.pem"
        )
        for path, content in ((pair.certificate, chain), (pair.key, pem), (pair.both, pem + chain)):
            path.write_bytes(content)
            path.chmod(0o600)
        return pair


def _last_day(*, ended: bool) -> datetime:
    return _NOW + timedelta(days=-1 if ended else 30)
