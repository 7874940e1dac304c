"""The world of a scenario that stops or damages its broker: one of its own, on the session's Postgres."""

from collections.abc import Callable

from livedex.dev.stack import Addresses
from support.faults.arena import World
from support.faults.broker import FaultBroker


def with_broker(world: World, own: FaultBroker) -> World:
    """The same world, where everybody uses this broker."""
    addresses = Addresses(kafka_bootstrap_servers=own.bootstrap_servers, database_url=world.direct.database_url)
    return World(direct=addresses, seen=addresses, folder=world.folder, seed=world.seed)


def restart(own: FaultBroker, end: Callable[[], None], meanwhile: Callable[[], object]) -> None:
    """End the broker in this way, look at what must hold while it is away, and start it again with the same data."""
    end()
    try:
        meanwhile()
    finally:
        own.start()
        own.wait_ready()
