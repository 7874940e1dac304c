"""The fold: how the events of a document make its state (design.md section 4).

A state has two parts with a version each, content and metadata, so that folding does not depend on the order of
arrival: an upsert 7 and a metadata 9 make content 7 and metadata 9, and a late upsert 8 still wins the content.
The statement `apply_documents` in schema/queries/index.sql is the same fold, in SQL.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from livedex.core.change import Change, Op
from livedex.core.record import Place, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentState:
    """What is known of a document after some of its events. At least one part is there."""

    content: Change | None  # the newest upsert or delete; None: never seen
    metadata: Change | None  # the newest event of any kind that carries metadata; a delete empties it

    @property
    def newest(self) -> Change:
        """The event with the highest version of both parts: it gives the document's place and event time."""
        parts = [part for part in (self.content, self.metadata) if part is not None]
        return max(parts, key=lambda part: part.version)

    @property
    def visible(self) -> bool:
        """Whether readers see the document."""
        return self.content is not None and self.content.op is Op.UPSERT

    @property
    def metadata_value(self) -> dict[str, Any]:
        """The metadata that readers see: empty after a delete and before the first event that has some."""
        if self.metadata is None or self.metadata.op is Op.DELETE:
            return {}
        return self.metadata.metadata

    @property
    def parts(self) -> list[Change]:
        """The events that this state keeps something of, each once."""
        return list({part.place: part for part in (self.content, self.metadata) if part is not None}.values())

    @property
    def winners(self) -> frozenset[Place]:
        """The places of the events that this state keeps something of."""
        return frozenset(part.place for part in self.parts)


def fold(state: DocumentState | None, change: Change) -> DocumentState:
    """The state after one more event; folding an event again, or an older one, changes nothing."""
    content = state.content if state else None
    metadata = state.metadata if state else None
    if change.op is not Op.METADATA and _newer(change, content):
        content = change
    if _newer(change, metadata):
        metadata = change
    return DocumentState(content=content, metadata=metadata)


def coalesce(changes: Iterable[Change]) -> dict[str, DocumentState]:
    """The state that a batch makes of each of its documents, by document id."""
    states: dict[str, DocumentState] = {}
    for change in changes:
        states[change.document_id] = fold(states.get(change.document_id), change)
    return states


def fence(state: DocumentState, content: Version | None, metadata: Version | None) -> DocumentState | None:
    """What of a state is newer than the stored versions (None: never stored), or None when nothing is."""
    newer_content = state.content if state.content and _above(state.content, content) else None
    newer_metadata = state.metadata if state.metadata and _above(state.metadata, metadata) else None
    if newer_content is None and newer_metadata is None:
        return None
    return DocumentState(content=newer_content, metadata=newer_metadata)


def _newer(change: Change, part: Change | None) -> bool:
    return part is None or change.version > part.version


def _above(part: Change, stored: Version | None) -> bool:
    return stored is None or part.version > stored
