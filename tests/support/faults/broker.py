"""A broker of a scenario's own: with a second listener that is advertised at a proxy's port, and with any property changed.

Workers that bootstrap at the proxy stay behind it, because that listener tells them the proxy's address. The harness itself
uses the plain listener, so that what it reads is not disturbed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from livedex.config import KafkaSettings
from livedex.dev.kafka import Kafka, free_port
from support.faults.proxy import Proxy

BEHIND = "PROXIED"  # the listener behind the proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultBroker(Kafka):
    """The development stack's broker with properties of its own; the later ones win."""

    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def _command(self) -> list[str]:
        command = Kafka._command(self)  # without arguments, super() fails in a dataclass with slots
        path = self.directory / "kafka" / "server.properties"
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in self._merged(path).items())
        return command

    def _merged(self, path: Path) -> dict[str, str]:
        """The properties, a `+` before a name extends the list that is there."""
        written = dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
        return {
            name.removeprefix("+"): f"{written[name[1:]]},{value}" if name.startswith("+") else value
            for name, value in self.properties.items()
        }

    @property
    def settings(self) -> KafkaSettings:
        """For clients that no fault is meant for."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    @property
    def data(self) -> Path:
        """Where the segments are: a folder for each partition, `topic-0`."""
        return self.directory / "kafka" / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A broker and the proxy before it."""

    broker: FaultBroker
    proxy: Proxy

    @property
    def bootstrap_servers(self) -> str:
        """For the clients that faults are meant for."""
        return f"127.0.0.1:{self.proxy.port}"


def broker(directory: Path, **properties: str) -> FaultBroker:
    """A broker, not started; in the properties' names `_` stands for `.`."""
    return FaultBroker(
        directory=directory, port=free_port(), properties={name.replace("_", "."): text for name, text in properties.items()}
    )


@contextmanager
def running(own: FaultBroker) -> Iterator[FaultBroker]:
    """Start it, and stop it in the end."""
    own.start()
    try:
        own.wait_ready()
        yield own
    finally:
        own.stop()


@contextmanager
def behind_proxy(directory: Path, *, seed: int = 0, **properties: str) -> Iterator[Behind]:
    """A running broker with a proxy before it."""
    inner, outer = free_port(), free_port()
    listener = {
        "+listeners": f"{BEHIND}://127.0.0.1:{inner}",
        "+advertised.listeners": f"{BEHIND}://127.0.0.1:{outer}",
        "+listener.security.protocol.map": f"{BEHIND}:PLAINTEXT",
    }
    own = FaultBroker(
        directory=directory, port=free_port(), properties={n.replace("_", "."): v for n, v in properties.items()} | listener
    )
    with running(own), Proxy(inner, seed=seed, port=outer) as proxy:
        yield Behind(broker=own, proxy=proxy)
