"""Runs `livedex` with something turned off or at a moment's mercy: only tests start workers in this way.

    python -m support.faults.sabotage [--without PROTECTION]... [--at POINT[:N]=ACTION]... [--encoder FOLDER]
                                      [--eager] [--clock SECONDS] [--collect-every SECONDS | --keep-orphans] index

`--at staged:3=kill` sends SIGKILL to the worker itself when it reaches the point for the third time; other actions are stop
(SIGSTOP) and term (SIGTERM).
`--clock` is by how much the worker's clock is ahead, `--collect-every` how often its upkeep looks for orphans; with
`--keep-orphans` it waits for their grace however many they are. Nothing of this is in livedex: what is patched is named in
`removals` and `moments`.
"""

import argparse
import faulthandler
import functools
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Patch, then be `livedex`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--at", action="append", default=[])
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--clock", type=float, default=0.0)
    parser.add_argument("--collect-every", type=float, default=0.0)
    parser.add_argument("--keep-orphans", action="store_true")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()

    from support.faults import encoder, moments, removals

    for name in chosen.without:
        removals.REMOVALS[name]()
    for moment in chosen.at:
        moments.arm(moment)
    if chosen.encoder is not None:
        encoder.install(chosen.encoder)
    if chosen.eager:
        _eager()
    if chosen.collect_every:
        _pace(look=chosen.collect_every, shortest_sweep=chosen.collect_every)  # where a sweep comes after ten seconds at least
    if chosen.keep_orphans:
        _pace(most_unmapped=1.0)
    if chosen.clock:
        _shift_clock(chosen.clock)
    faulthandler.register(signal.SIGUSR1)  # the arena asks before it ends a worker of a scenario that failed
    sys.argv = ["livedex", *chosen.command]
    from livedex import cli

    cli.main()


def _eager() -> None:
    """Rebalances that take every partition from every member, as the older assignors do."""
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    from livedex.index import source

    source.SETTINGS["partition_assignment_strategy"] = [RangePartitionAssignor]


def _pace(**settings: Any) -> None:
    """Another pace of the upkeep."""
    from livedex.core.upkeep import Pace
    from livedex.index import app

    module: Any = app
    module.Pace = functools.partial(Pace, **settings)


def _shift_clock(ahead: float) -> None:
    """A clock that is wrong, as `time.time` tells it; what is measured by the monotonic clock stays."""
    right = time.time
    time.time = lambda: right() + ahead


if __name__ == "__main__":
    main()
