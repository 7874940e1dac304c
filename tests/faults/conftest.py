"""Fixtures of the fault scenarios: one arena each, seeded by the run's seed and the scenario's number."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from livedex.dev.stack import Addresses
from support.faults import plugin
from support.faults.arena import Arena, World
from support.faults.nursery import Nursery


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The scenario's seed, the same for the same `--faults-seed`."""
    marker = request.node.get_closest_marker("scenario")
    drawn = random.Random(f"{plugin.seed_of(request.config)}/{marker.args[0] if marker else request.node.name}").randrange(
        2**32
    )
    print(f"--faults-seed={plugin.seed_of(request.config)}, of this scenario: {drawn}")  # noqa: T201
    return drawn


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the whole matrix runs, so that there is time."""
    return plugin.full(request.config)


@pytest.fixture
def world(stack: Addresses, database_url: str, tmp_path: Path, seed: int) -> World:
    """The session's servers, with a database of the scenario's own; workers reach them directly."""
    addresses = Addresses(kafka_bootstrap_servers=stack.kafka_bootstrap_servers, database_url=database_url)
    return World(direct=addresses, seen=addresses, folder=tmp_path, seed=seed)


@pytest.fixture
def open_arena(world: World, nursery: Nursery, request: pytest.FixtureRequest) -> Iterator[Callable[..., Arena]]:
    """Opens the scenario's arena, with what it wants differently. Its workers are forked, which saves seconds each."""
    usual = {"nursery": nursery, "without": request.config.getoption("--faults-without")}
    opened: list[Arena] = []
    with ExitStack() as held:

        def enter(**options: Any) -> Arena:
            opened.append(held.enter_context(Arena(world, **{**usual, **options})))
            return opened[-1]

        yield enter
        if plugin.failed(request.node):
            for arena in opened:
                arena.report()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where scenarios with many workers get them from."""
    with Nursery() as own:
        yield own


@pytest.fixture
def arena(open_arena: Callable[..., Arena]) -> Any:
    """An arena as most scenarios want it: one topic with three partitions, versions from the log."""
    return open_arena()
