"""How the pinned client (3.0.12) connects, with its faults mended, and why it did not: it keeps that to itself and waits.

It needs members that are private to the client, as `index/mending.py` does: the version is pinned, and a test for each fault
watches.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport

CLOSE_TIMEOUT_MS = 2_000
MOST_FAILURES = 16


class Link:
    """The network side of one client: give `make` to it as `kafka_client`. What `refuses` tells apart is not tried again by
    its constructor.
    """

    def __init__(self, refuses: Callable[[Exception], bool]) -> None:
        self._refuses = refuses
        self._client: KafkaNetClient | None = None
        self._net: NetworkSelector | None = None
        self.failures: deque[Exception] = deque(maxlen=MOST_FAILURES)  # since a broker last let this client in, oldest first
        self._opening = True
        self._refused: set[Any] = set()

    def make(self, **options: Any) -> KafkaNetClient:
        """What the client asks for, once, in its constructor."""
        self._net = NetworkSelector(**options)
        manager = _Manager(self._net, self, **options)
        self._client = KafkaNetClient(net=self._net, manager=manager)
        return self._client

    def failed(self, manager: "_Manager", node_id: Any, error: Exception) -> None:
        """A broker did not let the client in, or ended the connection."""
        self.failures.append(error)
        if self._opening and self._refuses(error):
            self._refused.add(node_id)
            if self._refused >= {broker.node_id for broker in manager.cluster.bootstrap_brokers()}:
                manager.close()

    def opened(self) -> None:
        """The constructor is through: from now on everything is waited for."""
        self._opening = False

    def close(self) -> None:
        """End what a constructor that failed has left behind: a thread and its sockets, or there would be more each time."""
        if self._client is not None and self._net is not None:
            self._client.close()
            self._net.stop(CLOSE_TIMEOUT_MS)


class _Manager(KafkaConnectionManager):  # type: ignore[misc] # the client has no types
    def __init__(self, net: NetworkSelector, link: Link, **options: Any) -> None:
        self._link = link
        super().__init__(net, **options)

    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> KafkaConnection:
        """See the client. A refused login is asked for again like everything that fails: the client remembers it for ever,
        and a password that was put right at the broker would not be noticed.
        """
        self._auth_failures.clear()
        known = self._conns.get(node_id)
        connection = super().get_connection(node_id, *args, **options)
        if connection is not known:
            connection.init_future.add_callback(lambda _: self._link.failures.clear())
            for future in (connection.init_future, connection.close_future):
                future.add_errback(lambda error: self._link.failed(self, node_id, error))
        return connection

    async def _build_transport(self, *args: Any, **options: Any) -> KafkaTCPTransport:
        transport = await super()._build_transport(*args, **options)
        receive = transport._sock_recv  # noqa: SLF001

        def received() -> tuple[bytes, Exception | None]:
            """Not the end of the stream before what came with it, which the client throws away: a broker that refuses a
            login says why, and closes.
            """
            content, error = receive()
            return content, None if content else error

        transport._sock_recv = received  # noqa: SLF001
        return transport
