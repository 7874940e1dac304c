"""Cuts a document into chunks that tile it, each small enough for the model to read whole.

Contract: `chunk` is a pure function of its arguments. `"".join(c.text for c in chunk(text, ...)) == text`, always.
Boundaries are chosen by content (see `boundaries`), so an edit moves only those near it, and a digest depends on
nothing but the chunking, the context and the text: equal chunks of any two documents are embedded once.

The sizes of the spec are characters, because counting characters is free. What the model can read is counted in
tokens, by the caller's function, after the cut: a chunk above the limit is cut again by the same rule.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, get_args

from livedex.core.boundaries import Boundaries, Window
from livedex.core.outline import Outline, outline

#: The algorithm here and in `boundaries` and `outline`. Whatever changes a boundary or a digest needs the next number.
VERSION = 1

#: Returns for each text the tokens the model would read, with its special tokens and the document prompt.
TokenCounter = Callable[[Sequence[str]], Sequence[int]]

ContextKind = Literal["title", "headings", "none"]

_CONTEXT_SEPARATOR = "\n\n"
_PATH_SEPARATOR = " > "

#: The part of the model's window that a context may take.
_CONTEXT_SHARE = 1 / 4

#: A first guess, on the long side, at how much text a token holds; `_Contexts` then counts.
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingSpec:
    """What a collection chooses about its chunks. Sizes are characters; `largest` is at least twice `smallest`.

    The defaults make chunks of about 160 tokens of English, of which few are above 256 tokens and cut again.
    """

    smallest: int = 300
    largest: int = 900
    context: ContextKind = "title"
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest // 2:
            raise ValueError(
                f"chunk sizes {self.smallest}..{self.largest} do not work: "
                "the smallest must be at least 1, and the largest at least twice the smallest"
            )
        if self.context not in get_args(ContextKind):
            raise ValueError(f"chunk context {self.context!r} is unknown: use one of {', '.join(get_args(ContextKind))}")

    @property
    def identity(self) -> str:
        """Name this chunking; part of every digest."""
        return f"content-defined/{self.version} {self.smallest}..{self.largest} context={self.context}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A slice of a document with what is put before it for the model."""

    text: str
    #: Not part of the slice; empty for none.
    context: str
    #: 32 bytes over chunking, context and text.
    digest: bytes = field(repr=False)

    @property
    def embedded_text(self) -> str:
        """Return what the model reads, apart from the document prompt."""
        return _embedded(self.context, self.text)


def chunk(
    text: str, *, title: str | None, markdown: bool, spec: ChunkingSpec, count_tokens: TokenCounter, max_tokens: int
) -> tuple[Chunk, ...]:
    """Cut `text` into chunks whose concatenation is `text`; an empty text has none.

    `text` has no lone surrogates. `count_tokens` is called a few times, each time with many texts.
    Raises ValueError where `max_tokens` cannot hold one character, or where `spec` names another version.
    """
    if spec.version != VERSION:
        raise ValueError(f"chunking version {spec.version} is not known here: this livedex makes version {VERSION}")
    if not text:
        return ()
    structure = outline(text, markdown=markdown)
    boundaries = Boundaries(text=text, outline=structure, markdown=markdown)
    contexts = _Contexts(title or "", spec.context, structure, count_tokens, max_tokens)
    pieces = _fit(list(_pieces(boundaries, spec)), boundaries, contexts, count_tokens, max_tokens)
    return tuple(_make_chunk(spec.identity, piece.context or "", text[piece.start : piece.end]) for piece in pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A chunk to be; `context` is None until it is known."""

    start: int
    end: int
    context: str | None = None


def _pieces(boundaries: Boundaries, spec: ChunkingSpec) -> Iterator[_Piece]:
    """Cut by characters. The last piece is not smaller than the smallest either, unless the text is."""
    start, end = 0, len(boundaries.text)
    while end - start > spec.largest:
        window = Window(
            start=start,
            low=start + spec.smallest,
            high=min(start + spec.largest, end - spec.smallest),
            end=start + spec.largest,
            longest_block=spec.largest,
        )
        cut = boundaries.best_cut(window) or window.high
        yield _Piece(start=start, end=cut)
        start = cut
    yield _Piece(start=start, end=end)


def _fit(
    pieces: Sequence[_Piece], boundaries: Boundaries, contexts: "_Contexts", count_tokens: TokenCounter, max_tokens: int
) -> list[_Piece]:
    """Cut again what is above `max_tokens`, all such pieces of a round at once, so that counts come in batches."""
    fitting: list[_Piece] = []
    while pieces:
        pieces = contexts.add_to(pieces)
        counts = count_tokens([_embedded(p.context or "", boundaries.text[p.start : p.end]) for p in pieces])
        too_long: list[_Piece] = []
        for piece, count in zip(pieces, counts, strict=True):
            if count <= max_tokens:
                fitting.append(piece)
            else:
                too_long += _split(piece, boundaries, count, max_tokens)
        pieces = too_long
    return sorted(fitting, key=lambda piece: piece.start)


def _split(piece: _Piece, boundaries: Boundaries, count: int, max_tokens: int) -> list[_Piece]:
    """Cut in two; where only the marks of one character would be torn, drop the context first."""
    start, end = piece.start, piece.end
    if end - start > 1:
        margin = max(1, (end - start) // 4)
        longest_block = (end - start) * max_tokens // count
        for low, high in ((start + margin, end - margin), (start + 1, end - 1)):
            cut = boundaries.best_cut(Window(start=start, low=low, high=high, end=end, longest_block=longest_block))
            if cut is not None:
                return [_Piece(start=start, end=cut), _Piece(start=cut, end=end)]
    if piece.context:
        return [_Piece(start=start, end=end, context="")]
    if end - start == 1:
        raise ValueError(
            f"one character takes {count} tokens, but the model reads at most {max_tokens}: "
            "use a model with a longer window or a shorter document prompt"
        )
    middle = (start + end) // 2
    return [_Piece(start=start, end=middle), _Piece(start=middle, end=end)]


class _Contexts:
    """The contexts of one document's chunks, each shortened to its share of the model's window."""

    def __init__(self, title: str, kind: ContextKind, structure: Outline, count_tokens: TokenCounter, max_tokens: int) -> None:
        self._kind = kind
        self._outline = structure
        self._count_tokens = count_tokens
        self._room = int(max_tokens * _CONTEXT_SHARE)
        self._longest = self._room * _CHARACTERS_PER_TOKEN
        self._title = " ".join(title.lstrip()[: 2 * self._longest].split())
        self._known: dict[tuple[str, ...], str] = {}
        (self._overhead,) = count_tokens([""])
        if self._overhead >= max_tokens:
            raise ValueError(
                f"special tokens and document prompt take {self._overhead} tokens, but the model reads at most "
                f"{max_tokens}: use a model with a longer window or a shorter document prompt"
            )

    def add_to(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Return `pieces` with the contexts that they lack."""
        paths = [self._path(piece) for piece in pieces]
        unknown = dict.fromkeys(path for path in paths if path not in self._known)
        self._known.update(zip(unknown, self._shortened([_PATH_SEPARATOR.join(path) for path in unknown]), strict=True))
        return [
            _Piece(start=piece.start, end=piece.end, context=self._known[path]) if piece.context is None else piece
            for piece, path in zip(pieces, paths, strict=True)
        ]

    def _path(self, piece: _Piece) -> tuple[str, ...]:
        if self._kind == "none":
            return ()
        headings = self._outline.path(piece.start) if self._kind == "headings" else ()
        # Many documents repeat their title as the first heading.
        titles = headings if headings[:1] == (self._title,) else (self._title, *headings)
        return tuple(title for title in titles if title)

    def _shortened(self, contexts: Sequence[str]) -> list[str]:
        """Shorten what is too long: by characters first, then in proportion to the tokens counted."""
        shortened = [_first_words(context, self._longest) for context in contexts]
        unsure = [index for index, context in enumerate(shortened) if context]
        while unsure:
            counts = self._count_tokens([shortened[index] for index in unsure])
            long = [(index, count) for index, count in zip(unsure, counts, strict=True) if self._excess(count) > 0]
            for index, count in long:
                # At least a quarter goes, so that a few rounds are enough for any counter.
                length = len(shortened[index]) * min(3 / 4, self._room / (count - self._overhead))
                shortened[index] = _first_words(shortened[index], int(length))
            unsure = [index for index, _ in long if shortened[index]]
        return shortened

    def _excess(self, count: int) -> int:
        return count - self._overhead - self._room


def _first_words(text: str, length: int) -> str:
    """Return the words that fit into `length` characters, or the start of a word that is longer alone."""
    if len(text) <= length:
        return text
    word_end = text.rfind(" ", 0, length + 1)
    return text[: word_end if word_end > 0 else length].removesuffix(_PATH_SEPARATOR.rstrip())


def _embedded(context: str, text: str) -> str:
    return f"{context}{_CONTEXT_SEPARATOR}{text}" if context else text


def _make_chunk(identity: str, context: str, text: str) -> Chunk:
    digest = blake2b(digest_size=32)
    for part in (identity, context, text):
        encoded = part.encode()
        # Lengths first: no two triples frame to the same bytes.
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return Chunk(text=text, context=context, digest=digest.digest())
