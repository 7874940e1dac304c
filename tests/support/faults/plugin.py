"""Options of the test run: which scenarios, and from which seed.

An ordinary run takes a random choice of the scenarios that fits into CHOICE_SECONDS; `--faults=all` takes all of them.
"""

import random
from collections.abc import Generator
from typing import Any

import pytest

CHOICE_SECONDS = 60
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("faults")
    group.addoption("--faults", choices=("choice", "all", "none"), default=None,
                    help="fault scenarios to run: a choice that depends on the seed (default), all, or none; "
                         "scenarios that are named as test ids always run")  # fmt: skip
    group.addoption("--faults-without", action="append", default=[],
                    help="take a protection away from the workers of all scenarios: they must then fail")  # fmt: skip
    group.addoption("--faults-seed", type=int, default=None, help="repeat the choice and the load of an earlier run")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed, or take that of the run which this process has a part of."""
    if config.option.faults_seed is None:
        drawn = random.SystemRandom().randrange(2**32)
        config.option.faults_seed = getattr(config, "workerinput", {}).get("faults_seed", drawn)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give the seed to a process that shares the run: all must choose the same scenarios."""
    node.workerinput["faults_seed"] = seed_of(node.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember failures for the fixtures, which are not told."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


def failed(item: pytest.Item) -> bool:
    """Whether a test has failed so far."""
    return item.stash.get(_failed, False)


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to repeat the run."""
    return f"faults: --faults-seed={seed_of(config)}"


def seed_of(config: pytest.Config) -> int:
    """The seed of this run."""
    return int(config.option.faults_seed)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the scenarios that were not chosen."""
    scenarios = [item for item in items if item.get_closest_marker("scenario")]
    wanted = config.getoption("--faults") or ("all" if _named(config) else "choice")
    kept = {item.nodeid for item in _choice(scenarios, seed_of(config), wanted)}
    left_out = [item for item in scenarios if item.nodeid not in kept]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _named(config: pytest.Config) -> bool:
    """Whether all that was asked for are tests of the harness, by file or by id."""
    return all("tests/faults" in argument for argument in config.args)


def _choice(scenarios: list[pytest.Item], seed: int, wanted: str) -> list[pytest.Item]:
    if wanted != "choice":
        return scenarios if wanted == "all" else []
    ordered = sorted(scenarios, key=lambda item: item.nodeid)
    random.Random(seed).shuffle(ordered)
    chosen, left = [], float(CHOICE_SECONDS)
    for item in ordered:
        seconds = seconds_of(item)
        if seconds <= left:
            chosen.append(item)
            left -= seconds
    return chosen


def seconds_of(item: pytest.Item) -> float:
    """How long a scenario says that it takes on two cores, in an ordinary run; a case may say that it takes longer."""
    return float(max(marker.kwargs["seconds"] for marker in item.iter_markers("scenario")))


def full(config: pytest.Config) -> bool:
    """Whether scenarios are to be as long as they can be."""
    return bool(config.getoption("--faults") == "all")
