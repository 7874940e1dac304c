"""What the worker that does the upkeep tells of the indexes, in metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import Gauge

from livedex.core.upkeep import IndexState
from livedex.index.maintain_session import Kept
from livedex.observe import IndexMetrics


@dataclass(slots=True, kw_only=True)
class Measured:
    """When something of a generation was measured last (monotonic seconds), and what it was."""

    at: float
    vectors: float = 0.0  # about how many there are
    unmapped: float = 0.0  # share
    documents: int | None = None  # of the collection, visible ones; None: they were not counted yet
    built: float | None = None  # share of the documents that it has, while it is being built
    counted_at: float | None = None
    counting: float = 0.0  # seconds that it took to count
    probed_at: float | None = None


class UpkeepGauges:
    """For one thread."""

    def __init__(self, metrics: IndexMetrics) -> None:
        self.metrics = metrics
        self._passing: dict[Gauge, set[tuple[str, ...]]] = {metrics.built_ratio: set(), metrics.index_recall: set()}

    def show(self, generations: list[Kept], measured: dict[int, Measured]) -> None:
        """Tell of the active generations, and how far those are that are being built."""
        recall: dict[tuple[str, ...], float] = {}
        built: dict[tuple[str, ...], float] = {}
        for kept in generations:
            found = measured.get(kept.generation_id)
            if kept.active:
                self._show_index(kept)
                if kept.recall is not None:
                    recall[kept.collection,] = kept.recall
                if found is not None:
                    self._show_extent(kept, found)
            if kept.filling and found is not None and found.built is not None:
                built[kept.collection, str(kept.generation_id)] = found.built
        self._show_passing(self.metrics.index_recall, recall)
        self._show_passing(self.metrics.built_ratio, built)

    def _show_extent(self, kept: Kept, found: Measured) -> None:
        self.metrics.vectors.labels(kept.collection).set(round(found.vectors))
        if found.documents is not None:
            self.metrics.documents.labels(kept.collection).set(found.documents)

    def _show_passing(self, gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        """Tell these values, and no longer those that were told before and are not among them. A scrape may come in between, so
        that nothing is taken away that is told again.
        """
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        for labels in self._passing[gauge] - values.keys():
            gauge.remove(*labels)
        self._passing[gauge] = set(values)

    def _show_index(self, kept: Kept) -> None:
        metrics = self.metrics
        metrics.index_ready.labels(kept.collection).set(kept.ready is not None)
        for state in IndexState:
            metrics.index_state.labels(kept.collection, state).set(state is kept.index_state)
        metrics.unmapped_share.labels(kept.collection).set(kept.unmapped or 0.0)
        metrics.table_bytes.labels(kept.collection).set(kept.bytes)
        metrics.index_bytes.labels(kept.collection).set(kept.index_bytes)

    def forget(self) -> None:
        """Another worker shows them, or nobody knows."""
        metrics = self.metrics
        for gauge in (metrics.index_ready, metrics.index_state, metrics.index_recall, metrics.unmapped_share, metrics.documents,
                      metrics.vectors, metrics.table_bytes, metrics.index_bytes, metrics.built_ratio):  # fmt: skip
            gauge.clear()
        for told in self._passing.values():
            told.clear()
