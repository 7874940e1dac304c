"""Takes away what generations had that were dropped, or failed: the table of their vectors, and the map of their chunking.

Some seconds after that, so that no worker has a batch or a search in flight that was made for them. Their chunks become
orphans, and go like all others. Of a failed one its row stays, which says why.
"""

from livedex.core.upkeep import Pace
from livedex.index.maintain_session import UpkeepSession
from livedex.lifecycle import Stop
from livedex.observe import logger

_log = logger("upkeep")


def take_away(session: UpkeepSession, pace: Pace, stop: Stop) -> None:
    """Of every generation that was given up long enough ago. ConfigError when the session may not."""
    for row in session.rows("retired", {"seconds": pace.retire}):
        session.as_owner()
        number, chunking = row["generation_id"], {"chunking_id": row["chunking_id"]}
        while session.execute("unmap", {**chunking, "most": pace.slice}):
            if stop.asked:
                return
        # the drop needs the table of chunks alone for a moment: who reads that for long must not hold up everybody behind it
        session.drop_quickly(f"embedding_{number}")
        if row["state"] == "retired":
            session.execute("forget_generation", {"generation_id": number})
            session.execute("forget_chunking", chunking)
        _log.info("upkeep.generation_gone", generation=number)
