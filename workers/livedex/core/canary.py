"""What a canary publishes, and by what it knows its document again. Its way is canary.py's."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from livedex.core.change import CANARY_PREFIX

LETTERS = "abcdefghijklmnop"  # sixteen: four bits each
WORD_BITS = 64
TEXT_PREFIX = "livedexcanary"  # by which the collector knows a chunk that only a canary had, see lock_expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One document of a canary: short, and with a word that no other text has, so that it has to be embedded and is found.

    A partition has one document of each `who` at a time: the next replaces it. So nothing piles up, however many canaries there
    are and however they end.
    """

    who: str  # index: index workers; command: `livedex canary`
    partition: int
    sent: int  # microseconds since 1970: the version where a source gives versions, and which of two is the later one
    word: str

    @classmethod
    def made(cls, who: str, partition: int, *, now: float, chance: int) -> "Probe":
        """The probe of this moment (seconds since 1970); `chance` are WORD_BITS random bits."""
        digits = f"{chance:0{WORD_BITS // 4}x}"
        word = "".join(LETTERS[int(digit, 16)] for digit in digits)
        return cls(who=who, partition=partition, sent=int(now * 1e6), word=word)

    @property
    def document_id(self) -> str:
        """The same for all probes of this place, which are always sent to the partition that it names."""
        return f"{CANARY_PREFIX}{self.who}/{self.partition}"

    @property
    def text(self) -> str:
        """What is embedded, and asked for: one word, which is in no other text, and so changes nothing of what is known of the
        words in users' texts.

        Another one each time, though each leaves a chunk that nothing refers to: one of a few texts that come again would be
        in the database already, and the encoder would not be measured. The collector takes such chunks after a minute.
        """
        return f"{TEXT_PREFIX}{self.word}"

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its event beside id and text."""
        return {"version": self.sent, "format": "text", "metadata": {"sent": self.sent}}

    def seen_in(self, found: Iterable[tuple[str, Mapping[str, Any], int]], offset: int) -> bool:
        """Whether this probe, which was published at `offset`, or one that replaced it, is among these document ids with their
        metadata and versions. Where the log orders, one that was made earlier may have come later.
        """
        for document_id, metadata, version in found:
            sent = metadata.get("sent")
            if document_id == self.document_id and type(sent) is int:
                by_log = version != sent  # else the version is the canary's own
                if sent >= self.sent or (by_log and version > offset):
                    return True
        return False


def turn(number: int, topics: Collection[str]) -> tuple[str, int]:
    """Whose turn it is in round `number`: one of the topics, of which there is at least one, and how many turns it had. None
    waits for the partitions of another.
    """
    ordered = sorted(topics)
    return ordered[number % len(ordered)], number // len(ordered)


def once_each(partitions: Mapping[str, int]) -> list[int]:
    """The rounds in which each partition of each topic has its turn once, in their order."""
    places = enumerate(sorted(partitions))
    return sorted(lap * len(partitions) + place for place, topic in places for lap in range(partitions[topic]))
