"""Partitions that change hands while somebody still works on them: there is one writer, and the work goes on."""

from collections.abc import Callable

import pytest

from support.faults import vitals
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.script import Mix

SLOW = 5.0  # seconds that an encoding takes where it is slow
SHORT_POLL_INTERVAL_MS = 3_000  # a member that does not poll for so long is out
TAKEOVER = 30.0  # seconds from the death of a transaction's owner to the end of its work by another
STATIC_SESSION_MS = 4_000


@pytest.mark.scenario(5, seconds=6)
@pytest.mark.parametrize("heir_is", ["claimed", "done"])
def test_05_a_zombie_wakes_up(open_arena: Callable[..., Arena], heir_is: str) -> None:
    """A worker that was stopped before its transaction until another one had claimed its partition, or even finished its work,
    is refused by the database when it wakes up, once, and then works as a member again.
    """
    arena = open_arena(partitions=1, max_poll_interval_ms=SHORT_POLL_INTERVAL_MS, collects=True)
    zombie = arena.worker(at=["applying:2=stop"])
    for _ in range(2):  # one batch each, so that no other is stopped half-way, with locks in the database
        arena.load(1).finish()
        arena.wait_for(lambda: arena.applied() == 1, what="the first event to be applied")
    arena.stopped_itself(zombie)
    arena.load(300).finish()
    before = arena.applied()
    assert before > 0, "it must have written before"
    heir = arena.worker(at=["claimed=stop"] if heir_is == "claimed" else [], wait=False)
    if heir_is == "claimed":
        arena.stopped_itself(heir)
        assert arena.applied() == before, "the heir must have written nothing yet: only the epoch tells the two apart"
    else:
        arena.settle()
    arena.go_on(zombie)

    def fenced() -> float:
        return vitals.gauge(zombie, "livedex_fenced_total")

    now = arena.applied()
    arena.wait_for(lambda: fenced() or arena.applied() > now, what="the zombie to be fenced")
    arena.go_on(heir)
    arena.load(100)
    arena.verify(arena.settle())
    assert fenced() == 1


@pytest.mark.scenario(6, seconds=18)
@pytest.mark.parametrize("moment", ["locked", "staging"])
def test_06_stopped_inside_a_transaction(open_arena: Callable[..., Arena], moment: str) -> None:
    """A worker that stands still inside a transaction, with a lock on the progress or on new chunks, is ended by the server's
    own time-out: another one takes over, and the sleeper finds out when it wakes up.
    """
    arena = open_arena(partitions=1, collects=True)
    arena.load(300).finish()
    sleeper = arena.worker(at=[f"{moment}:2=stop"], wait=False)
    arena.stopped_itself(sleeper)
    arena.worker(wait=False)
    arena.settle(timeout=TAKEOVER)
    arena.go_on(sleeper)
    arena.ready(sleeper)
    arena.load(100)
    arena.verify(arena.settle())


@pytest.mark.scenario(7, seconds=14)
def test_07_embedding_takes_longer_than_a_poll_may(open_arena: Callable[..., Arena]) -> None:
    """While a batch is embedded for longer than a member may go without polling, the worker stays a member."""
    arena = open_arena(partitions=1, max_poll_interval_ms=SHORT_POLL_INTERVAL_MS)
    worker = arena.worker()
    arena.wait_for(lambda: vitals.gauge(worker, "livedex_rebalances_total") == 1, what="the first assignment")
    arena.encoder.set(Behaviour(seconds=SLOW))
    arena.load(50).finish()
    arena.wait_for(arena.applied, what="the slow batch to be applied")
    arena.encoder.set(Behaviour())
    arena.verify(arena.settle())
    assert vitals.gauge(worker, "livedex_rebalances_total") == 1, "it must not have lost its membership"
    assert vitals.gauge(worker, "livedex_fenced_total") == 0


@pytest.mark.scenario(8, seconds=25)
@pytest.mark.parametrize("eager", [False, True], ids=["cooperative", "eager"])
def test_08_workers_come_and_go_under_load(open_arena: Callable[..., Arena], eager: bool) -> None:
    """One worker, then four, then one again under load, with either kind of rebalance: nothing is lost, nobody interferes, nor
    does the collection of chunks, which moves along with the upkeep.
    """
    arena = open_arena(partitions=6, mix=Mix(replay=0.3), collects=True)
    load = arena.load(6_000, rate=150)
    workers = [arena.worker(eager=eager)]
    for _ in range(3):
        before = arena.applied()
        workers.append(arena.worker(eager=eager))
        arena.wait_for(lambda: workers[-1].popen.pid in arena.owners(), what="the new worker to own something")
        arena.wait_for(lambda: arena.applied() > before + 50, what="the work to go on")  # noqa: B023
    for worker in workers[:3]:
        before = arena.applied()
        arena.terminate(worker)
        arena.wait_for(lambda: arena.applied() > before + 50, what="the work to go on")  # noqa: B023
    load.stop()
    arena.verify(arena.settle())
    assert arena.collected() > 0


@pytest.mark.scenario(10, seconds=18)
def test_10_static_members(open_arena: Callable[..., Arena]) -> None:
    """A static member that is back within the session time-out finds its partitions, and nobody else notices; after it, another
    has taken them; and of two with the same id, one ends with an error that says so.
    """
    arena = open_arena(partitions=4, session_timeout_ms=STATIC_SESSION_MS)
    configs = {name: arena.settings_file(group_instance_id=name) for name in ("one", "two")}
    first, second = (arena.worker(config=config) for config in configs.values())
    load = arena.load(6_000, rate=100)
    arena.wait_for(lambda: {first.popen.pid, second.popen.pid} == arena.owners(), what="both to own something")
    noticed = vitals.gauge(second, "livedex_rebalances_total")

    arena.kill(first)
    first = arena.worker(config=configs["one"])
    arena.wait_for(lambda: first.popen.pid in arena.owners(), what="the member that came back to have its partitions")
    assert vitals.gauge(second, "livedex_rebalances_total") == noticed, "nobody else may notice"

    arena.kill(first)
    arena.wait_for(lambda: arena.owners() == {second.popen.pid}, what="the other one to take over")
    first = arena.worker(config=configs["one"])
    arena.wait_for(lambda: first.popen.pid in arena.owners(), what="the late one to own something again")

    double = arena.worker(config=configs["two"], wait=False)
    arena.ended_itself(second, 1)
    assert "group_instance_id" in second.log()
    arena.wait_for(lambda: arena.owners() == {first.popen.pid, double.popen.pid}, what="the two that are left to own all")
    load.stop()
    arena.verify(arena.settle())
