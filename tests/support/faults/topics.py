"""Topics that are replaced, and what an operator does about a source that stopped for it."""

from collections.abc import Callable

from kafka.admin import KafkaAdminClient, NewTopic

from livedex import reset as resetting
from livedex.kafka import MAX_REQUEST_BYTES
from support.faults.arena import Arena
from support.waiting import until


def state(arena: Arena) -> tuple[str, str]:
    """State of the arena's source, and why."""
    found, reason = arena.rows("select state, coalesce(reason, '') from livedex.source where topic = %s", arena.topic)[0]
    return found, reason


def stopped(arena: Arena, *words: str) -> Callable[[], bool]:
    """Whether the source is stopped, with all these words and the remedy in the reason."""

    def there() -> bool:
        found, reason = state(arena)
        return found == "stopped" and all(word in reason for word in (*words, f"livedex source reset {arena.topic}"))

    return there


def make_again(admin: KafkaAdminClient, arena: Arena, partitions: int) -> None:
    """Delete the topic, and make one of the same name as soon as the broker lets one."""
    admin.delete_topics([arena.topic])
    until(lambda: arena.topic not in admin.list_topics(), what="the topic to be gone")
    options = {"max.message.bytes": str(MAX_REQUEST_BYTES)}
    admin.create_topics([NewTopic(arena.topic, num_partitions=partitions, replication_factor=1, topic_configs=options)])
    admin.wait_for_topics([arena.topic])


def reset(arena: Arena) -> int:
    """`livedex source reset`, and wait until the source is live; its epoch from now on."""
    with arena.connect() as connection:  # in this process: a command takes two seconds
        epoch = resetting.reset(arena.settings, connection, arena.topic, versions_restarted=False)
    arena.oplog.note("arena", "source reset", epoch=epoch)
    arena.wait_for(lambda: state(arena) == ("live", ""), what="the source to be live again")
    return epoch
