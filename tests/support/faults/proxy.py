"""A TCP proxy that does to connections what networks do, switched at run time. One thread a direction."""

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from livedex.dev.kafka import free_port
from support.faults.wire import Statements

CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass(slots=True)
class Faults:
    """What the proxy does now; attributes may be set from any thread."""

    latency: float = 0.0  # seconds that each chunk waits
    jitter: float = 0.0  # up to so many more
    resets: float = 0.0  # probability for each chunk that its connection is reset instead
    to_server: bool = True  # False: what clients send goes nowhere, for now
    to_client: bool = True


@dataclass(slots=True)
class _Cut:
    ending: bytes
    after: bytes
    times: int


@dataclass(eq=False, slots=True)
class _Link:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    statements: Statements | None
    ended: threading.Event = field(default_factory=threading.Event)
    swallow: bool = False  # the next reply of the server is not passed on, and the connection reset

    def reset(self) -> None:
        self.ended.set()
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in recv
            end.close()


class Proxy:
    """Listens on 127.0.0.1:`port` and forwards to `upstream`."""

    def __init__(self, upstream: int, *, seed: int = 0, port: int | None = None) -> None:
        self.port = port or free_port()
        self.faults = Faults()
        self.cut_replies = 0  # commits that reached the server and whose reply the client never got
        self.torn = self.delayed = 0  # how often a connection was reset, and bytes were held up
        self._upstream = upstream
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._cut: _Cut | None = None
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.reset_all()

    def redirect(self, upstream: int) -> None:
        """Forward to another port from now on; connections that there are end."""
        self._upstream = upstream
        self.reset_all()

    def reset_all(self) -> None:
        """Reset the connections that there are; new ones are taken."""
        with self._lock:
            links = list(self._links)
        for link in links:
            self._drop(link)

    def blackhole(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Take connections and bytes, and pass none on in these directions; healing delivers what was held."""
        self.set(to_server=not to_server, to_client=not to_client)

    def set(self, **changes: float) -> None:
        """Change some of the faults."""
        for name, value in changes.items():
            setattr(self.faults, name, value)
        with self._changed:
            self._changed.notify_all()

    def heal(self) -> None:
        """No more faults; take connections again. A cut of a reply that was asked for stays."""
        self.set(latency=0.0, jitter=0.0, resets=0.0, to_server=True, to_client=True)
        if self._listener is None:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), name="proxy", daemon=True).start()

    def cut_reply_of(self, ending: bytes, *, after: bytes, times: int = 1) -> None:
        """The next `times` transactions that sent a statement with `after` in it and end by `ending`, a COMMIT for example:
        the server does it, and the client loses the connection instead of reading so. Only for connections made later.
        """
        self._cut = _Cut(ending, after, times)
        self.reset_all()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            cut = self._cut
            link = _Link(client, server, Statements(cut.ending, cut.after) if cut else None)
            with self._lock:
                self._links.add(link)
            for pump in ((link, client, self._to_server, "to_server"), (link, server, self._to_client, "to_client")):
                threading.Thread(target=self._pump, args=pump, name="proxy", daemon=True).start()

    def _pump(self, link: _Link, source: socket.socket, forward: Callable[[_Link, bytes], bool], way: str) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if not self._weather(link, way) or not forward(link, data):
                    break
        self._drop(link)

    def _weather(self, link: _Link, way: str) -> bool:
        """Hold a chunk back as long as the faults say; False when its connection is to be reset."""
        if self.faults.resets and self._random.random() < self.faults.resets:
            self.torn += 1
            return False
        delay = self.faults.latency + self.faults.jitter * self._random.random()
        if delay:
            self.delayed += 1
            link.ended.wait(delay)
        with self._changed:
            self._changed.wait_for(lambda: getattr(self.faults, way) or link.ended.is_set())
        return not link.ended.is_set()

    def _to_server(self, link: _Link, data: bytes) -> bool:
        if link.statements is not None and link.statements.ends(data):
            with self._lock:
                if self._cut is not None and self._cut.times > 0:
                    self._cut.times -= 1
                    link.swallow = True
        link.server.sendall(data)
        return True

    def _to_client(self, link: _Link, data: bytes) -> bool:
        if link.swallow:
            self.cut_replies += 1
            return False
        link.client.sendall(data)
        return True

    def _drop(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)
        link.reset()
        with self._changed:
            self._changed.notify_all()
