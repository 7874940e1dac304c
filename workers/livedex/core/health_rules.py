"""What `livedex doctor` takes for wrong, of what was read: a sentence that says what is wrong and what to do, or None."""

from collections.abc import Mapping, Sequence

SMALLEST_BUFFERS = 512 * 2**20  # bytes; below it an insert into the vector index is several times slower
LARGEST_CLOCK_DIFFERENCE = 2.0  # seconds; more spoils freshness figures
LEAST_FREE, LEAST_SHARE = 2**30, 0.03  # of a disk: bytes, and a share of it
SHORTEST_RETENTION = 24 * 3600  # seconds that a worker may be away without events being lost


def buffers(shared: int, maintenance: int, needed: Mapping[str, int]) -> str | None:
    """`shared_buffers` and `maintenance_work_mem` in bytes, and what building the index of each collection needs."""
    if shared < SMALLEST_BUFFERS:
        return f"shared_buffers is {_megabytes(shared)}: set at least {_megabytes(SMALLEST_BUFFERS)}"
    given = max(shared, maintenance)  # a build takes what it needs up to the buffers, and what the server gives anyhow
    most = max(needed, key=lambda name: needed[name], default=None)
    if most is not None and needed[most] > given:
        return (
            f"building the index of collection {most} needs {_megabytes(needed[most])} and gets {_megabytes(given)}, with "
            "which it takes several times as long: raise shared_buffers or maintenance_work_mem"
        )
    return None


def clocks(differences: Mapping[str, float]) -> str | None:
    """How many seconds other clocks are ahead of this one, by whose they are."""
    wrong = [
        f"{name} is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this clock"
        for name, seconds in differences.items()
        if abs(seconds) > LARGEST_CLOCK_DIFFERENCE
    ]
    return f"{', '.join(wrong)}: synchronise them" if wrong else None


def future(newest: Mapping[str, float]) -> str | None:
    """How many seconds after now the newest record of each topic is."""
    wrong = [f"{topic} by {seconds:.0f} s" for topic, seconds in newest.items() if seconds > LARGEST_CLOCK_DIFFERENCE]
    return f"records are from the future, in {', '.join(wrong)}: synchronise their producers' clocks" if wrong else None


def disks(free: Mapping[str, tuple[int, int]]) -> str | None:
    """(free, all) bytes of each disk, by what is on it."""
    short = [
        f"{name} has {_megabytes(left)} of {_megabytes(size)} left"
        for name, (left, size) in free.items()
        if left < LEAST_FREE or left < LEAST_SHARE * size
    ]
    return f"{', '.join(short)}: make room, or Postgres and Kafka stop" if short else None


def topic_settings(topic: str, settings: Mapping[str, str], *, largest: int, split: bool) -> list[str]:
    """What is wrong with a topic's settings, where events have up to `largest` bytes. `split`: of some documents the metadata
    came in a later event than the text.
    """
    wrong = []
    alter = f"kafka-configs.sh --alter --topic {topic} --add-config"
    size = int(settings.get("max.message.bytes", largest))
    if size < largest:
        wrong.append(f"{topic} takes records of {size} bytes, events have up to {largest}: {alter} max.message.bytes={largest}")
    policies = settings.get("cleanup.policy", "delete").replace(" ", "").split(",")
    if "compact" in policies and split:
        wrong.append(
            f"{topic} is compacted, which keeps the last event of a document, and of some that changes the metadata only: the "
            f"texts would be lost to a rebuild: {alter} cleanup.policy=delete, or publish whole documents"
        )
    retention = int(settings.get("retention.ms", -1))
    if "delete" in policies and 0 <= retention < SHORTEST_RETENTION * 1000:
        wrong.append(
            f"{topic} loses events after {retention / 3600_000:.1f} h, also those that no worker has read yet: {alter} "
            "retention.ms=-1, or some days"
        )
    return wrong


def rights(what: str, wanted: Sequence[str], granted: Sequence[str] | None, *, principal: str) -> str | None:
    """Kafka's rights that are missing; `granted` None: the broker does not say."""
    missing = [] if granted is None else [right for right in wanted if right not in granted]
    return f"{principal} lacks {', '.join(missing)} on {what}: kafka-acls.sh --add allows it" if missing else None


def _megabytes(size: int) -> str:
    return f"{size // 2**20} MB"
