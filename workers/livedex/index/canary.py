"""The canary of an index worker: a thread beside the others, see livedex/canary.py. What fails in it is said and counted, and
stops nothing.

All workers have the thread, and one has the canary: the one that does the upkeep, by its last word from the database. While the
database is away it stays so: that is when what a canary says matters.
"""

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from livedex.canary import Canary, Sources, rounds
from livedex.canary_metrics import CanaryMetrics, Run
from livedex.catalogue import Catalogue
from livedex.config import Settings
from livedex.lifecycle import Stop
from livedex.observe import logger

_log = logger("canary")


class CanaryThread:
    """`start` it, and `join` it after the stop was asked for."""

    def __init__(
        self, settings: Settings, registry: CollectorRegistry, *, catalogue: Callable[[], Catalogue],
        elected: Callable[[], bool], stop: Stop,
    ) -> None:  # fmt: skip
        self._every = settings.canary_every.total_seconds()
        self._stop = stop
        self._catalogue = catalogue
        self._elected = elected
        self._failing = False
        self._canary = Canary(
            settings.kafka, url=settings.canary_url, token_file=settings.api_token_file, who="index",
            every=self._every, timeout=settings.canary_timeout.total_seconds(), metrics=CanaryMetrics(registry), stop=stop,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        """Begin, with the first document one interval after it is this worker's turn: before, it has hardly joined the group,
        and the canary that was there deletes its documents.
        """
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the end; a search that takes longer is left to the end of the process."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.asked:
            try:
                for run in rounds(self._canary, self._sources, every=self._every, settle=self._every, stop=self._stop):
                    self._say(run)
            except Exception as error:  # noqa: BLE001 - a defect of the canary ends neither the worker nor the canary
                _log.error("canary.broke", error=type(error).__name__)
                self._stop.wait(self._every)
        self._canary.close()

    def _sources(self) -> Sources:
        """None where another worker has the canary. Of a stopped source it is known that nothing of it is indexed."""
        if not self._elected():
            return {}
        catalogue = self._catalogue()
        collections = {number: generation.collection for number, generation in catalogue.generations.items()}
        return {
            topic: collections[source.collection_id]
            for topic, source in catalogue.sources.items()
            if source.collection_id in collections and source.state != "stopped"
        }

    def _say(self, run: Run) -> None:
        """One line per change."""
        failed = run.error is not None
        if failed and not self._failing:
            _log.warning("canary.failed", topic=run.topic, partition=run.partition, why=str(run.error))
        elif self._failing and not failed:
            _log.info("canary.found", topic=run.topic, partition=run.partition, seconds=round(run.seconds, 3))
        self._failing = failed
