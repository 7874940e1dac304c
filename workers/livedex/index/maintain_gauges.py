"""What the worker that does the upkeep tells of the indexes, in metrics."""

from dataclasses import dataclass

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

    def show(self, generations: list[Kept], measured: dict[int, Measured]) -> None:
        """Tell of the active generations, and how far those are that are being built."""
        metrics = self.metrics
        for gauge in (metrics.built_ratio, metrics.index_recall):  # of what there may be no more
            gauge.clear()
        for kept in generations:
            found = measured.get(kept.generation_id, Measured(at=0.0))
            if kept.active:
                self._show_index(kept)
                if found.documents is not None:
                    metrics.documents.labels(kept.collection).set(found.documents)
                metrics.vectors.labels(kept.collection).set(round(found.vectors))
            if kept.filling and found.built is not None:
                metrics.built_ratio.labels(kept.collection, str(kept.generation_id)).set(found.built)

    def _show_index(self, kept: Kept) -> None:
        metrics = self.metrics
        metrics.index_ready.labels(kept.collection).set(kept.ready is not None)
        for state in IndexState:
            metrics.index_state.labels(kept.collection, state).set(state is kept.index_state)
        metrics.unmapped_share.labels(kept.collection).set(kept.unmapped or 0.0)
        metrics.table_bytes.labels(kept.collection).set(kept.bytes)
        metrics.index_bytes.labels(kept.collection).set(kept.index_bytes)
        if kept.recall is not None:
            metrics.index_recall.labels(kept.collection).set(kept.recall)

    def forget(self) -> None:
        """Another worker shows them, or nobody knows."""
        metrics = self.metrics
        for gauge in (metrics.index_ready, metrics.index_state, metrics.index_recall, metrics.unmapped_share, metrics.documents,
                      metrics.vectors, metrics.table_bytes, metrics.index_bytes, metrics.built_ratio):  # fmt: skip
            gauge.clear()
