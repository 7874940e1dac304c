"""How a text travels from a SQL session to the query worker: in the keys of advisory locks, which others see before anything
is committed. The writing side is livedex.mailbox_keys in schema/sql/6_embed.sql; here its keys are read.

A key is 64 bits. Pieces, 94 in the highest byte: then a byte that counts them and 48 bits of nonce, payload and tag, one after
the other. One seal, 95 in the highest byte: 16 bits for the length of the payload in bytes, and 40 more bits of the tag. The
payload stands under a keystream, and its tag names the session, so that who copies the locks of another session gains nothing.
"""

import hmac
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice, product
from typing import Literal, get_args

PRESENCE_CLASS = 0x6C646571  # "ldeq": of the lock by which a query worker says that it has a generation's model
PIECE, SEAL = 94, 95
NONCE, TAG, TAG_IN_SEAL = 12, 12, 5  # bytes
BLOCK = 32  # bytes of keystream that one digest gives
PIECE_BYTES = 6
MOST_SEALS, MOST_CHOICES = 4, 64  # that are tried, where a session holds more keys than one text's
WIRE_TAG = 16  # bytes

_HEAD = struct.Struct(">iB")  # the generation, and what the vector is for
Purpose = Literal["embed", "hybrid", "vector"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
WirePurpose = Literal["embed", "hybrid", "vector", "rerank"]  # over a connection; passages do not fit into the mailbox
WIRE_PURPOSES: tuple[WirePurpose, ...] = get_args(WirePurpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A text that a session waits for the vector of. `nonce` tells it from others of the session."""

    pid: int
    nonce: bytes
    generation_id: int
    purpose: Purpose
    text: str


class ForgedError(ValueError):
    """The seal is not by who knows the secret."""


def collect(locks: Iterable[tuple[int, int]]) -> Mapping[int, list[int]]:
    """The keys of each session, from rows of (pid, key)."""
    keys: dict[int, list[int]] = defaultdict(list)
    for pid, key in locks:
        keys[pid].append(key)
    return keys


def read(pid: int, keys: Iterable[int], secret: bytes) -> Question | None:
    """The question in a session's keys, None while they are not complete; ForgedError when livedex did not write it.

    The session may hold locks of its application whose keys look like ours: then the tag says which belong together.
    """
    seals: list[int] = []
    pieces: dict[int, list[int]] = defaultdict(list)
    for key in keys:
        kind, rest = key >> 56, key & (1 << 56) - 1
        if kind == SEAL:
            seals.append(rest)
        elif kind == PIECE:
            pieces[rest >> 48].append(rest & (1 << 48) - 1)
    tried = False
    for seal in seals[:MOST_SEALS]:
        length = seal >> 40
        there = [pieces.get(place, []) for place in range(-(-(NONCE + length + TAG) // PIECE_BYTES))]
        for chosen in islice(product(*there), MOST_CHOICES):
            tried = True
            found = _opened(pid, length, chosen, (seal & (1 << 40) - 1).to_bytes(TAG_IN_SEAL), secret)
            if found is not None:
                return found
    if tried:
        raise ForgedError
    return None


def _opened(pid: int, length: int, pieces: Iterable[int], in_seal: bytes, secret: bytes) -> Question | None:
    sent = b"".join(piece.to_bytes(PIECE_BYTES) for piece in pieces)
    nonce, hidden, tag = sent[:NONCE], sent[NONCE : NONCE + length], sent[NONCE + length :][:TAG]
    place = struct.pack(">i", pid) + nonce
    payload = bytes(a ^ b for a, b in zip(hidden, _keystream(secret, place, length), strict=True))
    seal = _sealed(secret, b"seal", place + payload)
    if not hmac.compare_digest(seal[: TAG + TAG_IN_SEAL], tag + in_seal):
        return None
    generation_id, purpose = _HEAD.unpack_from(payload)
    text = payload[_HEAD.size :].decode()
    return Question(pid=pid, nonce=nonce, generation_id=generation_id, purpose=PURPOSES[purpose], text=text)


def digest_of(text: str) -> bytes:
    """What the cache of query vectors knows a text by."""
    return sha256(text.encode()).digest()


def is_tag_of(tag: bytes, secret: bytes, generation_id: int, purpose: WirePurpose, text: str) -> bool:
    """Whether livedex made this tag for a text that it asks over a connection of its own (query/wire.py)."""
    payload = _HEAD.pack(generation_id, WIRE_PURPOSES.index(purpose)) + text.encode()
    return hmac.compare_digest(tag, _sealed(secret, b"wire", payload)[:WIRE_TAG])


def _sealed(secret: bytes, kind: bytes, content: bytes) -> bytes:
    return sha256(secret + sha256(secret + kind + content).digest()).digest()


def _keystream(secret: bytes, place: bytes, length: int) -> bytes:
    blocks = range(-(-length // BLOCK))
    return b"".join(sha256(secret + b"stream" + struct.pack(">i", block) + place).digest() for block in blocks)[:length]
