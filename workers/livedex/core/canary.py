"""What a canary publishes, and by what it knows its document again. Its way is canary.py's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from livedex.core.change import CANARY_PREFIX

LETTERS = "abcdefghijklmnop"  # sixteen: four bits each
WORD_BITS = 64


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
        """What is embedded, and asked for."""
        return f"livedex canary {self.word}"

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its event beside id and text."""
        return {"version": self.sent, "format": "text", "metadata": {"sent": self.sent}}

    def seen_in(self, found: Iterable[tuple[str, Mapping[str, Any]]]) -> bool:
        """Whether this probe, or a later one that replaced it, is among these document ids with their metadata."""
        return any(
            document_id == self.document_id and type(metadata.get("sent")) is int and metadata["sent"] >= self.sent
            for document_id, metadata in found
        )


def turn(number: int, partitions: Mapping[str, int]) -> tuple[str, int]:
    """Whose turn it is in round `number`: a topic and one of its partitions, one after the other. There is at least one."""
    number %= sum(partitions.values())
    for topic in sorted(partitions):
        if number < partitions[topic]:
            return topic, number
        number -= partitions[topic]
    raise ValueError(f"no partition in {sorted(partitions)}")
