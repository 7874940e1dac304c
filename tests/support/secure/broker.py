"""A broker whose listeners ask for TLS, for a client's certificate, or for a password over TLS; one has a certificate that
ended.

The harness itself uses the plain listener, which only this machine reaches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from livedex.dev.kafka import free_port
from livedex.kafka import open_admin
from support.faults.broker import FaultBroker, running
from support.secure.certificates import HOST, Certificates

USER = "livedex"
PASSWORD = "of-the-broker-2718"
LOGIN_AGAIN_MS = 3_000  # so often a client has to show its password
_LOGIN = "org.apache.kafka.common.security"
_LISTENERS = {"TLS": "SSL", "MUTUAL": "SSL", "ENDED": "SSL", "LOGIN": "SASL_SSL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureBroker:
    """The running broker, its certificates and its ports by listener."""

    plain: FaultBroker
    certificates: Certificates
    ports: dict[str, int]

    def servers(self, listener: str, *, host: str = HOST) -> str:
        """Where the listener is; at another host than HOST its certificate does not fit."""
        return f"{host}:{self.ports[listener]}"

    def tls(self, **more: Any) -> dict[str, Any]:
        """Options of a client that trusts this broker's authority."""
        return {"security_protocol": "SSL", "ssl_cafile": str(self.certificates.authority), **more}

    def login(self, mechanism: str = "SCRAM-SHA-512", *, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        """Options of a client that shows a password over TLS."""
        own = {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": password}
        return {**self.tls(), "security_protocol": "SASL_SSL", **own, **more}

    def set_password(self, password: str) -> None:
        """Change the user's password of SCRAM."""
        admin = open_admin(self.plain.settings)
        try:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, password=password.encode(), iterations=4096)]
            )
        finally:
            admin.close()


@contextmanager
def secure_broker(directory: Path, certificates: Certificates) -> Iterator[SecureBroker]:
    """A running broker."""
    ports = {listener: free_port() for listener in _LISTENERS}
    properties = {
        "+listeners": ",".join(f"{listener}://127.0.0.1:{port}" for listener, port in ports.items()),
        "+advertised.listeners": ",".join(f"{listener}://{HOST}:{port}" for listener, port in ports.items()),
        "+listener.security.protocol.map": ",".join(f"{listener}:{protocol}" for listener, protocol in _LISTENERS.items()),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server().both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.ended.ssl.keystore.type": "PEM",
        "listener.name.ended.ssl.keystore.location": str(certificates.server("ended", ended=True).both),
        "listener.name.login.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.login.plain.sasl.jaas.config": f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
        "listener.name.login.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
        "listener.name.login.scram-sha-512.connections.max.reauth.ms": str(LOGIN_AGAIN_MS),
    }
    plain = FaultBroker(directory=directory, port=free_port(), properties=properties)
    with running(plain):
        own = SecureBroker(plain=plain, certificates=certificates, ports=ports)
        own.set_password(PASSWORD)
        yield own
