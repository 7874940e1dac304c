"""Takes away what generations had that were dropped: the table of their vectors, and the map of their chunking.

Some seconds after the drop, so that no worker has a batch or a search in flight that was made for them. Their chunks become
orphans, and go like all others.
"""

from livedex.core.upkeep import Pace
from livedex.index.maintain_session import UpkeepSession
from livedex.lifecycle import Stop
from livedex.observe import logger

_log = logger("upkeep")


def take_away(session: UpkeepSession, pace: Pace, stop: Stop) -> None:
    """Of every generation that was dropped long enough ago. ConfigError when the session may not."""
    for row in session.rows("retired", {"seconds": pace.retire}):
        session.as_owner()
        chunking = {"chunking_id": row["chunking_id"]}
        while session.execute("unmap", {**chunking, "most": pace.slice}):
            if stop.asked:
                return
        with session.limited(pace.retire_limit):  # who reads chunks for long is not to hold up everybody behind it
            session.run("drop_embeddings", embeddings=f"embedding_{row['generation_id']}")
            session.execute("forget_generation", {"generation_id": row["generation_id"]})
            session.execute("forget_chunking", chunking)
        _log.info("upkeep.generation_gone", generation=row["generation_id"])
