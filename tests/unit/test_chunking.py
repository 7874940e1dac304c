"""What `livedex.core.chunking` promises: chunks tile the text, fit the model, and stay where they are after an edit."""

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livedex.core.chunking import Chunk, ChunkingSpec, ContextKind, TokenCounter, chunk
from livedex.core.outline import outline

SEED = 20261123

# Characters of several code points each, written out because editors tend to tidy them.
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
FLAG = "\U0001f1e9\U0001f1ea"
THUMB = "\U0001f44d\U0001f3fd"
HEART = "\u2764\ufe0f"
ACCENTS = "e\u0301\u0323"
DEVANAGARI = "\u0915\u093f\u0902"
HANGUL = "\u1112\u1161\u11ab"
PART = "### Part\n\n"
CODE = "```\n" + "x = 1\n" * 30 + "```\n"

reproducible = settings(
    derandomize=True, print_blob=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def words(texts: Sequence[str]) -> list[int]:
    """Count about as a word-piece tokenizer does, two special tokens included."""
    return [len(re.findall(r"\w+|[^\w\s]", text)) + 2 for text in texts]


def utf8(texts: Sequence[str]) -> list[int]:
    """Count as a byte-level tokenizer does at its worst."""
    return [len(text.encode()) for text in texts]


def unlimited(texts: Sequence[str]) -> list[int]:
    """Count nothing, so that only characters decide."""
    return [0 for _ in texts]


def cut(
    text: str,
    *,
    title: str | None = None,
    markdown: bool = True,
    spec: ChunkingSpec | None = None,
    count_tokens: TokenCounter = words,
    max_tokens: int = 256,
) -> tuple[Chunk, ...]:
    """Cut with defaults that no test depends on."""
    spec = spec or ChunkingSpec(context="none")
    return chunk(text, title=title, markdown=markdown, spec=spec, count_tokens=count_tokens, max_tokens=max_tokens)


def texts_of(chunks: Sequence[Chunk]) -> list[str]:
    """Return the slices."""
    return [c.text for c in chunks]


def prose(rng: random.Random, paragraphs: int, sentences: int = 6) -> list[list[str]]:
    """Return paragraphs of sentences of random words."""
    return [
        [
            " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(rng.randint(4, 18))) + "."
            for _ in range(rng.randint(2, sentences))
        ]
        for _ in range(paragraphs)
    ]


def joined(paragraphs: Sequence[Sequence[str]]) -> str:
    """Write paragraphs as text."""
    return "\n\n".join(" ".join(paragraph) for paragraph in paragraphs)


# --- any text ---------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *["# Heading\n", "## Two ##\n\n", "Title\n=====\n", "Sub\n---\n", "#", "---\n", "> quoted. Yes\n", "> ```\n"],
    *["```\n", "~~~~ rust\n", "let x = 1; // a. B\n", "| a | b |\n|---|---|\n", "| c. d | e |\n", "- item\n", "1. one\n"],
    *["A sentence. ", "Why? ", "word ", "\n", "\n\n", "\r\n", "\r", "\t", " ", "\u3000", "\u2028", "\x00", "a", "é", "e\u0301"],
    *["漢字。", "かな", "שלום ", "مرحبا؟ ", FAMILY, FLAG, THUMB, HEART, HANGUL, "ก็", "…", "\u200d", "\u0301"],
]
documents = st.lists(
    st.one_of(
        st.sampled_from(FRAGMENTS),
        st.tuples(st.sampled_from(FRAGMENTS), st.integers(2, 80)).map(lambda run: run[0] * run[1]),
        st.text(max_size=20),
    ),
    max_size=40,
).map("".join)
specs = st.builds(
    ChunkingSpec,
    smallest=st.integers(1, 40),
    largest=st.integers(80, 200),
    context=st.sampled_from(["title", "headings", "none"]),
)


@settings(reproducible, max_examples=300)
@given(
    text=documents,
    title=st.none() | st.text(max_size=40),
    markdown=st.booleans(),
    spec=specs,
    count_tokens=st.sampled_from([words, utf8]),
    max_tokens=st.integers(24, 120),
)
def test_chunks_tile_any_text_and_fit_the_model(
    text: str, title: str | None, markdown: bool, spec: ChunkingSpec, count_tokens: TokenCounter, max_tokens: int
) -> None:
    """Concatenated chunks are the text, none is empty, too long or above the token limit, and again gives the same."""

    def run() -> tuple[Chunk, ...]:
        return cut(text, title=title, markdown=markdown, spec=spec, count_tokens=count_tokens, max_tokens=max_tokens)

    chunks = run()

    assert "".join(texts_of(chunks)) == text
    assert all(1 <= len(c.text) <= spec.largest for c in chunks)
    assert all(count <= max_tokens for count in count_tokens([c.embedded_text for c in chunks]))
    assert run() == chunks


@settings(reproducible, max_examples=100)
@given(text=documents, spec=specs)
def test_plain_text_makes_no_fragments(text: str, spec: ChunkingSpec) -> None:
    """Without blocks and token limit every chunk has at least the smallest size, the last one too."""
    chunks = cut(text, markdown=False, spec=spec, count_tokens=unlimited)

    assert all(len(c.text) >= spec.smallest for c in chunks) or len(chunks) == 1


def test_an_empty_text_has_no_chunks() -> None:
    """An empty text is a visible document without chunks."""
    assert cut("", title="Title", spec=ChunkingSpec()) == ()


def test_a_small_text_is_one_chunk() -> None:
    """A text up to the largest size is not cut, not even at a heading."""
    text = "# One\n\nText.\n\n# Two\n\nText.\n"

    assert texts_of(cut(text)) == [text]


# --- locality ---------------------------------------------------------------------------------------------------


def changed_by_insert(rng: random.Random, paragraphs: list[list[str]], place: float) -> int:
    """Return how many chunks of the text are new after a sentence was inserted at `place` (0 to 1)."""
    edited = [list(paragraph) for paragraph in paragraphs]
    paragraph = edited[int(place * (len(edited) - 1))]
    paragraph.insert(rng.randint(0, len(paragraph)), "An inserted sentence moves only what is near it.")
    before = {c.digest for c in cut(joined(paragraphs))}
    return sum(c.digest not in before for c in cut(joined(edited)))


def test_an_edit_costs_about_one_chunk() -> None:
    """Over 150 one-sentence inserts at most 1.5 chunks have to be embedded on average."""
    rng = random.Random(SEED)
    changed = [changed_by_insert(rng, prose(rng, 30), rng.random()) for _ in range(150)]

    assert min(changed) >= 1
    assert sum(changed) / len(changed) <= 1.5, f"seed {SEED}: {changed}"


@settings(reproducible, max_examples=40)
@given(seed=st.integers(0, 2**32), place=st.floats(0, 1))
def test_an_edit_changes_only_what_is_near(seed: int, place: float) -> None:
    """One inserted sentence changes a few digests of a text of some fifty chunks, wherever it is."""
    rng = random.Random(seed)

    assert changed_by_insert(rng, prose(rng, 60), place) <= 8


def test_an_edit_in_a_text_without_spaces_is_local() -> None:
    """Characters are chosen by content too: inserting into base64 or Chinese moves only what is near."""
    rng = random.Random(SEED)
    for alphabet in ("ABCDEFabcdef0123456789+/", "的一是不了人我在有他这为之大来以个中上们"):
        text = "".join(rng.choices(alphabet, k=40_000))
        before = {c.digest for c in cut(text, count_tokens=unlimited)}
        after = cut(text[:20_000] + alphabet[:7] + text[20_000:], count_tokens=unlimited)
        assert 1 <= sum(c.digest not in before for c in after) <= 4, f"seed {SEED}"


def test_a_second_cut_is_local_too() -> None:
    """Chunks that the token limit cuts again keep their boundaries after an edit elsewhere."""
    paragraphs = prose(random.Random(SEED), 40)
    before = {c.digest for c in cut(joined(paragraphs), max_tokens=30)}
    paragraphs[20].insert(1, "Inserted.")
    after = cut(joined(paragraphs), max_tokens=30)

    assert len(after) > 40 * 2
    assert sum(c.digest not in before for c in after) <= 6


def test_a_moved_section_keeps_its_chunks() -> None:
    """A digest depends neither on the position nor on the document: swapped halves share nearly all chunks."""
    rng = random.Random(SEED)
    one, two = joined(prose(rng, 40)), joined(prose(rng, 40))
    before = {c.digest for c in cut(f"{one}\n\n{two}")}

    assert sum(c.digest not in before for c in cut(f"{two}\n\n{one}")) <= 8


# --- Markdown ---------------------------------------------------------------------------------------------------


def whole_in_one(chunks: Sequence[Chunk], block: str) -> bool:
    """Whether one chunk holds all of `block`."""
    return any(block in c.text for c in chunks)


FENCE = "```rust\n# not a heading\nlet x = 1. Then;\n\n" + 'println!("so. it goes");\n' * 24 + "```\n"
TABLE = "| name | meaning |\n|:-----|---:|\n" + "".join(f"| row {i}. Yes | v. {i} |\n" for i in range(28))
TILDES = "~~~~\n```\n# not a heading\n" + "a. B\n" * 130 + "```\n~~~~\n"
QUOTED = "> ```\n" + "> let x = 1. Then;\n" * 34 + "> ```\n"


@pytest.mark.parametrize("block", [FENCE, TABLE, TILDES, QUOTED], ids=["fence", "table", "tildes", "quoted"])
@pytest.mark.parametrize("lead", range(0, 1200, 97))
def test_a_block_that_fits_is_not_torn(block: str, lead: int) -> None:
    """A fence or table up to the largest size is whole in one chunk, wherever it lies in the text."""
    before = (joined(prose(random.Random(SEED), 8))[:lead].rpartition(".")[0] + ".\n\n") * (lead > 0)
    text = f"{before}{block}\n{joined(prose(random.Random(SEED + 1), 8))}"

    assert len(block) <= ChunkingSpec().largest
    assert whole_in_one(cut(text, count_tokens=unlimited), block)


@pytest.mark.parametrize("block", [FENCE, TABLE], ids=["fence", "table"])
def test_a_block_too_long_for_a_chunk_is_cut_at_line_ends(block: str) -> None:
    """What no chunk can hold is cut between its lines, never at the sentences in it."""
    opening, *rows, closing = block.splitlines(keepends=True)
    chunks = cut("".join([opening, *rows * 9, closing]), count_tokens=unlimited)

    assert len(chunks) > 3
    assert all(c.text.endswith("\n") for c in chunks)


@pytest.mark.parametrize(
    "parts",
    [("A word or two before the code.\n\n", CODE), (CODE + "\n", "A word or two after the code.\n")],
    ids=["before", "after"],
)
def test_a_block_above_the_token_limit_is_cut_apart_from_its_surroundings(parts: tuple[str, str]) -> None:
    """The second cut keeps a block whole too, if the model can read it alone."""
    (alone,) = words([CODE])

    assert texts_of(cut("".join(parts), max_tokens=alone)) == list(parts)


def test_a_block_that_must_be_torn_keeps_its_introduction() -> None:
    """Cutting off the sentence before a block would make a fragment and save nothing, if the block is too long alone."""
    first, *_ = cut(f"Like this:\n\n{CODE}", max_tokens=80)

    assert "x = 1" in first.text


def test_a_heading_goes_with_the_block_below_it() -> None:
    """Where a block must be kept whole, the cut is before its heading."""
    text = f"{'Some words make a sentence. ' * 9}\n\n## Usage\n\n{FENCE}\n{joined(prose(random.Random(SEED), 8))}"

    assert any(c.text.startswith("## Usage\n\n```rust") for c in cut(text, count_tokens=unlimited))


def test_lists_are_cut_between_items() -> None:
    """In a list without blank lines an item is not torn, nor its number taken for the end of a sentence."""
    items = "".join(f"{i}. an item of\n   two lines\n" for i in range(200))

    assert all(re.match(r"[0-9]+\. an item", c.text) for c in cut(items))


def test_a_table_starts_at_its_header() -> None:
    """A table needs a header with bars, may follow a line of text at once, and ends at a blank line."""
    table = outline("Text\n| a | b |\n|---|---|\n| c | d |\n\nText\n", markdown=True)
    no_table = outline("Text\n|---|---|\n| c | d |\n", markdown=True)

    assert (table.block_starts, table.block_ends, table.paragraphs) == ([5], [35], [0, 5, 36])
    assert no_table.block_starts == []


def test_a_fence_left_open_ends_with_the_text() -> None:
    """Nothing after an unclosed fence is a heading, and its text is cut at line ends."""
    text = "```\n" + "# no heading. No sentence\n" * 200

    assert outline(text, markdown=True).section_starts == []
    assert all(c.text.endswith("\n") for c in cut(text))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("# One\n\n## Two ##\nText\n# Three\n", [("One",), ("One", "Two"), ("Three",)]),
        ("One\n===\n\nTwo\n---\n\nText\n", [("One",), ("One", "Two")]),
        ("### Deep\n\n# Top\n", [("Deep",), ("Top",)]),
        ("#hashtag\n\n    # code\n\n####### seven\n", []),
        ("two lines\nof text\n---\n", []),
        ("> quote\n---\n- item\n---\n\n---\n", []),
        ("| a | b |\n|---|---|\n| c | d |\n---\n", []),
        ("~~~\n# no\n```\n~~~\n# Yes\n", [("Yes",)]),
        ("````\n```\n# no\n````\n# Yes", [("Yes",)]),
        ("```inline``` code\n# Yes\n", [("Yes",)]),
        ("1. ```sh\n   # no\n   ```\n# Yes\n", [("Yes",)]),
        ("> ```\n> # no\n\n# Yes\n", [("Yes",)]),
        ("# CRLF\r\n\r\n## Two\r\n", [("CRLF",), ("CRLF", "Two")]),
        ("#\n# # #\n", [("",), ("#",)]),
    ],
)
def test_headings_are_those_of_markdown(text: str, paths: list[tuple[str, ...]]) -> None:
    """ATX and setext headings count, and nothing in a fence, table, quote or list does."""
    assert outline(text, markdown=True).section_paths == paths


@settings(reproducible, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_heading_stays_with_what_follows_it(seed: int) -> None:
    """No chunk ends with a heading, and a chapter heading stays with the section heading below it."""
    rng = random.Random(seed)
    parts = [
        f"{rng.choice(['# Chapter', '## Section'])} {i}\n\n{rng.choice(['', PART])}{joined(prose(rng, 2))}\n\n"
        for i in range(20)
    ]
    chunks = cut("".join(parts), count_tokens=unlimited)

    assert not [c.text[-60:] for c in chunks if c.text.rstrip().rpartition("\n")[2].startswith("#")]


def test_sections_of_a_good_size_are_chunks() -> None:
    """Where every section has the size of a chunk, headings win over all other boundaries."""
    rng = random.Random(SEED)
    sections = [f"## Section {i}\n\n{joined(prose(rng, 9))[:500]}\n\n" for i in range(12)]

    assert texts_of(cut("".join(sections))) == sections


def test_a_title_of_any_length_is_shortened() -> None:
    """A heading keeps 256 characters, because the path of every section below it carries them."""
    structure = outline(f"# {'x' * 10_000}\n\n## Two\n", markdown=True)

    assert structure.section_paths == [("x" * 256,), ("x" * 256, "Two")]


def test_plain_text_has_neither_headings_nor_fences() -> None:
    """In the text format the marks of Markdown mean nothing."""
    structure = outline("# One\n\n```\na. B\n```\n\nText\n===\n", markdown=False)

    assert structure.headings == structure.block_starts == structure.section_starts == ()
    assert structure.paragraphs == [7, 21]


def test_cuts_are_at_paragraphs_then_sentences() -> None:
    """A paragraph end wins over a sentence end, and a sentence end over any other place."""
    sentence = "Some words make a sentence. "
    paragraph = sentence * 12 + "\n\n"

    assert set(texts_of(cut(paragraph * 4))) <= {paragraph, paragraph * 2}
    assert all(c.text.endswith(". ") for c in cut(sentence * 200))


# --- scripts and marks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", [FAMILY, FLAG, THUMB, HEART, ACCENTS, DEVANAGARI, "\r\n", HANGUL, " \u0301"], ids=ascii)
def test_characters_are_not_torn(character: str) -> None:
    """A run of one composed character is cut between them only."""
    for size in range(24, 60):
        spec = ChunkingSpec(smallest=size // 3, largest=size, context="none")
        chunks = cut(character * 100, spec=spec, count_tokens=utf8, max_tokens=60)
        assert all(len(c.text) % len(character) == 0 for c in chunks), size


def test_a_character_longer_than_a_chunk_is_torn_at_last() -> None:
    """Marks without end do not stop the chunker."""
    text = "e" + "\u0301" * 5_000

    assert "".join(texts_of(cut(text, count_tokens=utf8, max_tokens=64))) == text


# --- contexts ---------------------------------------------------------------------------------------------------

BOOK = "Preface.\n\n# Guide\n\n" + "Words here. " * 120 + "\n\n## Install\n\n" + "More words. " * 120 + "\n\n# End\n\nBye.\n"


def contexts(kind: ContextKind, title: str | None, text: str = BOOK, max_tokens: int = 256) -> list[str]:
    """Return the contexts of the chunks in order, repeated ones once."""
    chunks = cut(text, title=title, spec=ChunkingSpec(context=kind), max_tokens=max_tokens)
    return list(dict.fromkeys(c.context for c in chunks))


def test_no_context_means_the_slice_alone() -> None:
    """With `none` the model reads the text of the chunk and nothing else."""
    chunks = cut(BOOK, title="Title", spec=ChunkingSpec(context="none"))

    assert [c.embedded_text for c in chunks] == texts_of(chunks)


def test_the_title_is_put_before_each_chunk() -> None:
    """With `title` the model reads the title with single spaces, a blank line, and the text."""
    chunks = cut(BOOK, title=" The\n \tTitle ", spec=ChunkingSpec(context="title"))

    assert {c.context for c in chunks} == {"The Title"}
    assert [c.embedded_text for c in chunks] == [f"The Title\n\n{c.text}" for c in chunks]
    assert contexts("title", None) == [""]


def test_headings_are_those_in_force_where_the_chunk_starts() -> None:
    """With `headings` the path of the chunk's start follows the title; a title that is the first heading counts once."""
    assert contexts("headings", "Book") == ["Book", "Book > Guide", "Book > Guide > Install"]
    assert contexts("headings", "Guide") == ["Guide", "Guide > Install"]
    assert contexts("headings", None) == ["", "Guide", "Guide > Install"]


@pytest.mark.parametrize("count_tokens", [words, utf8])
@pytest.mark.parametrize("title", ["word " * 5_000, "x" * 50_000, "A title > with arrows " * 50])
def test_a_context_takes_a_quarter_of_the_window(count_tokens: TokenCounter, title: str) -> None:
    """A context that is too long is shortened, at a word end if it has one, until it takes a quarter at most."""
    (context,) = {c.context for c in cut(BOOK, title=title, spec=ChunkingSpec(), count_tokens=count_tokens, max_tokens=128)}

    (tokens,), (overhead,) = count_tokens([context]), count_tokens([""])
    assert tokens - overhead <= 128 // 4
    assert title.startswith(context)
    assert len(context) >= 16
    assert " " not in title or title[len(context)] == " "


def test_a_window_too_small_for_the_context_drops_it() -> None:
    """Where one character fits only without its context, it goes without."""

    def grudging(texts: Sequence[str]) -> list[int]:
        return [9 if "\n\n" in text else len(text) for text in texts]

    chunks = cut("ab", title="t", spec=ChunkingSpec(), count_tokens=grudging, max_tokens=8)
    assert texts_of(chunks) == ["a", "b"]
    assert {c.context for c in chunks} == {""}


@pytest.mark.parametrize(("counter", "count"), [(utf8, 4), (words, 2)])
def test_a_window_too_small_for_a_character_is_an_error(counter: TokenCounter, count: int) -> None:
    """The error names what is needed and what there is, at once even for a long text."""
    with pytest.raises(ValueError, match=rf"takes? {count} tokens, but the model reads at most 2:"):
        cut("😀" * 10_000, title="t", spec=ChunkingSpec(), count_tokens=counter, max_tokens=2)


# --- specs and digests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("smallest", "largest"), [(0, 900), (500, 900), (-1, 2)])
def test_sizes_that_cannot_work_are_refused(smallest: int, largest: int) -> None:
    """The largest size is at least twice the smallest, or a rest could be neither kept nor cut."""
    with pytest.raises(ValueError, match=rf"chunk sizes {smallest}\.\.{largest} do not work"):
        ChunkingSpec(smallest=smallest, largest=largest)


def test_an_unknown_context_or_version_is_refused() -> None:
    """A spec from the database that this livedex cannot follow is never followed nearly."""
    with pytest.raises(ValueError, match=r"chunk context 'path' is unknown: use one of title, headings, none"):
        ChunkingSpec(context="path")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunking version 2 is not known here"):
        cut("text", spec=ChunkingSpec(version=2))


def test_identities_tell_all_specs_apart() -> None:
    """Each parameter is part of the identity."""
    spec = ChunkingSpec()
    others = [replace(spec, smallest=301), replace(spec, largest=901), replace(spec, context="none")]

    assert len({s.identity for s in [spec, *others, replace(spec, version=2)]}) == 5


def test_a_digest_covers_chunking_context_and_text() -> None:
    """Digests differ when one of the three does, even when their concatenations agree, and only then."""

    def digest(title: str, text: str, spec: ChunkingSpec, max_tokens: int = 256) -> bytes:
        (only,) = cut(text, title=title, spec=spec, max_tokens=max_tokens)
        return only.digest

    spec = ChunkingSpec()
    different = [
        digest("ab", "c", spec),
        digest("a", "bc", spec),
        digest("abc", "d", spec),
        digest("", "abc", spec),
        digest("ab", "c", replace(spec, largest=901)),
    ]
    assert len(set(different)) == len(different)
    assert {len(d) for d in different} == {32}
    assert digest(" ab ", "c", spec, max_tokens=99) == different[0]


GOLDEN_TEXT = "\n\n".join(
    (
        "# Guide",
        *(" ".join(f"Sentence {n} of {p} says {n * p * 7919 % 1000} things." for n in range(5)) for p in range(9)),
        f"{FENCE}\n## Usage",
        TABLE,
        "漢字かな混じり文。" * 120,
        "0123456789abcdef" * 100,
        (FAMILY + FLAG + ACCENTS) * 60,
    )
)


GOLDEN_LENGTHS = [
    656,
    327,
    326,
    163,
    647,
    219,
    478,
    207,
    72,
    99,
    126,
    171,
    225,
    182,
    488,
    224,
    656,
    234,
    211,
    72,
    108,
    144,
    185,
]


def test_the_algorithm_is_version_1() -> None:
    """Golden digests: when this fails, stored chunks would no longer be found, so the change needs a new VERSION."""
    chunks = cut(GOLDEN_TEXT, title="Golden", spec=ChunkingSpec(context="headings"), count_tokens=utf8, max_tokens=700)

    assert [len(c.text) for c in chunks] == GOLDEN_LENGTHS
    assert chunks[0].digest.hex() == "95c1f1a583a562e61afb0dd70382e715855fcc6568fb65a12f4279b1507860a1"
    assert (
        sha256(b"".join(c.digest for c in chunks)).hexdigest()
        == "1d32be6df77b781f0d9b4272cd37483380d8d4b5e43c0038644ee4366326d2bc"
    )


# --- cost -------------------------------------------------------------------------------------------------------


def test_tokens_are_counted_in_few_calls_with_many_texts() -> None:
    """Counting takes a call for the contexts and one a round, and no text is counted more than a few times."""
    calls: list[int] = []

    def counted(texts: Sequence[str]) -> list[int]:
        calls.append(sum(map(len, texts)))
        return utf8(texts)

    text = joined(prose(random.Random(SEED), 300))
    chunks = cut(text, title="Title", spec=ChunkingSpec(), count_tokens=counted, max_tokens=200)

    assert len(chunks) > 300
    assert len(calls) <= 8
    assert sum(calls) <= 5 * len(text)


def hostile() -> Iterator[tuple[str, Callable[[int], str]]]:
    """Yield names and functions from a size to a text of about that many characters."""
    rng = random.Random(SEED)
    units = {
        "letter": "a", "space": " ", "newline": "\n", "crlf": "\r\n", "sentences": "a. ", "dots": "a.", "periods": ".",
        "ideographic stops": "。", "words": "word ", "headings": "# H\n", "setext": "T\n=\n", "delimiters": "|-\n",
        "headers": "a|b\n|-|-|\n", "fences": "```\n", "quoted fences": "> ```\n", "quotes": ">", "quote lines": "> ",
        "hashes": "#", "dashes": "-", "lists": "- ", "numbers": "1. ", "backticks": "`", "tildes": "~", "bars": "|",
        "families": FAMILY, "flags": FLAG, "closers": ".\"'", "blank lines": " \n",
        "open quotes": "> ```\n\n", "paragraphs": "a.\n\n",
    }  # fmt: skip
    for name, unit in units.items():
        yield name, lambda size, unit=unit: unit * (size // len(unit))  # type: ignore[misc]
    yield "table", lambda size: "| a | b |\n|---|---|\n" + "| cell. Yes | v |\n" * (size // 17)
    yield "fence", lambda size: "```\n" + "let x = 1; // a. B\n" * (size // 19) + "```\n"
    yield "open fence", lambda size: "````\n" + "```\n" * (size // 4)
    yield "base64", lambda size: "".join(rng.choices("ABCDEFGHabcdefgh0123+/", k=size))
    yield "chinese", lambda size: "".join(map(chr, rng.choices(range(0x4E00, 0x9FFF), k=size)))
    yield "marks", lambda size: "e" + "\u0301" * size
    yield "nested quotes", lambda size: "\n".join(">" * n + " a. B" for n in range(int((2 * size) ** 0.5)))
    yield "long heading", lambda size: "# " + "x" * (size // 2) + "\n" + "a. B\n" * (size // 10)
    yield "spaces then letter", lambda size: ("\n" + " " * (size // 4) + "x") * 4


HOSTILE = dict(hostile())


def cpu_seconds(text: str) -> float:
    """Return the least of three runs, so that a busy machine does not count."""

    def once() -> float:
        started = time.process_time()
        chunks = cut(text, title="T", spec=ChunkingSpec(context="headings"), count_tokens=utf8, max_tokens=2_000)
        taken = time.process_time() - started
        assert "".join(texts_of(chunks)) == text
        return taken

    return min(once() for _ in range(3))


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_in_hostile_texts(name: str) -> None:
    """Eight times the text takes about eight times the time, where quadratic work would take sixty-four."""
    small, large = HOSTILE[name](4_000), HOSTILE[name](32_000)

    assert cpu_seconds(large) <= 24 * cpu_seconds(small) + 0.01


AT_SIZE = {
    "10 MB of one letter": lambda: "a" * 10_000_000,
    "100,000 headings": lambda: "".join(f"# Heading {number}\n" for number in range(100_000)),
    "1 MB of whitespace": lambda: " \n\t" * 333_333,
    "1 MB from right to left, without spaces": lambda: "".join(
        random.Random(SEED).choices("אבגדהוזחטיכלמנסעפצקרשת", k=500_000)
    ),
    "1 MB of Chinese": lambda: HOSTILE["chinese"](333_333),
    "1 MB of combining marks": lambda: HOSTILE["marks"](500_000),
    "a code file of 20,000 lines": lambda: "".join(f"    value_{n} = call(value_{n - 1}, '{n}')\n" for n in range(20_000)),
    "a table of 5,000 rows": lambda: "| a | b |\n|---|---|\n" + "".join(f"| row {n}. Yes | {n * n} |\n" for n in range(5_000)),
}


@pytest.mark.accept
@pytest.mark.parametrize("name", AT_SIZE)
def test_bad_input_is_cut_at_its_size(name: str) -> None:
    """It tiles, no chunk is above the limit, and cutting takes about the time per character that a tenth of it takes."""
    text = AT_SIZE[name]()
    seconds = []
    for part in (text[: len(text) // 10], text):
        started = time.process_time()
        chunks = cut(part, title="T", spec=ChunkingSpec(context="headings"), count_tokens=utf8, max_tokens=512)
        seconds.append(time.process_time() - started)
        assert "".join(texts_of(chunks)) == part
        assert max(utf8([c.embedded_text for c in chunks])) <= 512
    assert seconds[1] <= 30 * seconds[0] + 0.1
    print(f"{name}: {len(text.encode()) / seconds[1] / 1e6:.1f} MB/s")  # noqa: T201
