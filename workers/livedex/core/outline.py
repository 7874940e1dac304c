"""The block structure of a document: where headings, paragraphs and blocks that must stay whole begin and end.

Contract: `outline` reads a text once, in linear time, and tells `boundaries` where a cut is good (`headings`,
`paragraphs`) and where it is bad (inside `blocks`), and `chunking` which headings are in force at a position (`path`).
Positions are indexes into the text, always at the start of a line.

The Markdown read here is what decides about cuts: ATX and setext headings, fences, tables, quotes and blank lines.
Two simplifications: a setext title has one line, and a heading inside a quote or list is text.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

#: Characters kept of a heading's title: it goes into the context of every chunk of its section.
_TITLE_LENGTH = 256

# Repetitions are possessive (`*+`): a line is read at most once an alternative, never backtracked into.
_QUOTE = r"(?:[ \t]*+>)*+[ \t]*+"
_LIST_ITEM = r"(?:[-*+]|[0-9]{1,9}[.)])[ \t]"
_LINE_END = r"[^\S\n]*+(?:\n|\Z)"
_LINE = re.compile(
    rf"""(?!\Z)(?:
      (?P<blank> (?:(?:[^\S\n]|>)*+\n)++ | [^\S\n]++\Z )
    | (?P<heading> [ ]{{0,3}}\#{{1,6}}+ (?=\s|\Z) )
    | (?P<fence> {_QUOTE}(?:{_LIST_ITEM}[ \t]*+)?+ (?: `{{3,}}+(?=[^`\n]*+(?:\n|\Z)) | ~{{3,}}+ ) )
    | (?P<underline> [ ]{{0,3}}(?:=++|-++) (?={_LINE_END}) )
    | (?P<delimiter> {_QUOTE}[|:-][|: \t-]*+ (?={_LINE_END}) )
    )?+ (?(blank)|[^\n]*+\n?)""",
    re.VERBOSE,
)
_FENCE_END = re.compile(rf"^{_QUOTE}(`{{3,}}+|~{{3,}}+){_LINE_END}", re.MULTILINE)
_QUOTED_FENCE_END = re.compile(rf"^(?![ \t]*+>)|{_FENCE_END.pattern}", re.MULTILINE)
_NO_TITLE = re.compile(rf"[ \t]*+(?:>|{_LIST_ITEM})")
_GAP = re.compile(r"\n(?:[^\S\n]*+\n)++")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Positions in ascending order. A place right after a heading is in no list: it belongs with what follows."""

    #: Starts of headings.
    headings: Sequence[int] = ()
    #: Starts of other blocks: paragraphs, fences, tables.
    paragraphs: Sequence[int] = ()
    #: Starts and ends of the blocks that should stay whole (fences and tables); they do not overlap.
    block_starts: Sequence[int] = ()
    block_ends: Sequence[int] = ()
    #: Where each section starts, and the titles from the outermost heading down to its own.
    section_starts: Sequence[int] = ()
    section_paths: Sequence[tuple[str, ...]] = ()

    def block_around(self, position: int) -> tuple[int, int] | None:
        """Return start and end of the block that a cut at `position` would tear."""
        index = bisect_left(self.block_starts, position) - 1
        if index < 0 or self.block_ends[index] <= position:
            return None
        return self.block_starts[index], self.block_ends[index]

    def path(self, position: int) -> tuple[str, ...]:
        """Return the titles of the headings in force at `position`, outermost first."""
        index = bisect_right(self.section_starts, position) - 1
        return self.section_paths[index] if index >= 0 else ()


def outline(text: str, *, markdown: bool) -> Outline:
    """Read the block structure of `text`; plain text has paragraphs only."""
    if not markdown:
        return Outline(paragraphs=[gap.end() for gap in _GAP.finditer(text)])
    return _MarkdownReader(text).read()


class _MarkdownReader:
    """Reads a Markdown text line by line, except that a fence is skipped in one step."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._headings: list[int] = []
        self._paragraphs: list[int] = []
        self._block_starts: list[int] = []
        self._block_ends: list[int] = []
        self._section_starts: list[int] = []
        self._section_paths: list[tuple[str, ...]] = []
        self._titles: list[tuple[int, str]] = []  # headings in force with their levels, outermost first
        self._after_heading = False  # only blank lines since the last heading
        self._paragraph: int | None = None  # start of the open paragraph
        self._last_line = 0  # start of the open paragraph's last line
        self._table: int | None = None  # start of the open table

    def read(self) -> Outline:
        readers = {
            None: self._read_line,
            "blank": self._read_blank,
            "heading": self._read_heading,
            "fence": self._read_fence,
            "underline": self._read_underline,
            "delimiter": self._read_delimiter,
        }
        position = 0
        while line := _LINE.match(self._text, position):
            position = readers[line.lastgroup](line)
        self._close(len(self._text))
        return Outline(
            headings=self._headings,
            paragraphs=self._paragraphs,
            block_starts=self._block_starts,
            block_ends=self._block_ends,
            section_starts=self._section_starts,
            section_paths=self._section_paths,
        )

    # Each reader returns where the next line starts.

    def _read_line(self, line: re.Match[str]) -> int:
        if self._table is None:
            if self._paragraph is None:
                self._paragraph = line.start()
                self._open_block(line.start())
            self._last_line = line.start()
        return line.end()

    def _read_blank(self, line: re.Match[str]) -> int:
        self._close(line.start())
        return line.end()

    def _read_heading(self, line: re.Match[str]) -> int:
        self._close(line.start())
        if not self._after_heading:
            self._headings.append(line.start())
        title = self._text[line.end("heading") : line.end()].strip()
        self._open_section(line.start(), line["heading"].count("#"), title.rstrip("#"))
        return line.end()

    def _read_underline(self, line: re.Match[str]) -> int:
        start = self._paragraph
        if start is None or start != self._last_line or _NO_TITLE.match(self._text, start):
            return self._read_line(line)
        if self._paragraphs and self._paragraphs[-1] == start:
            self._headings.append(self._paragraphs.pop())
        self._paragraph = None
        self._open_section(start, 1 if "=" in line["underline"] else 2, self._text[start : line.start()])
        return line.end()

    def _read_delimiter(self, line: re.Match[str]) -> int:
        # In this order: the last line is measured only where it is one line above.
        if (
            self._paragraph is None
            or not {"-", "|"} <= set(line["delimiter"])
            or self._text.find("|", self._last_line, line.start()) < 0
        ):
            return self._read_line(line)
        if self._last_line != self._paragraph:
            self._open_block(self._last_line)
        self._table = self._last_line
        self._paragraph = None
        return line.end()

    def _read_fence(self, line: re.Match[str]) -> int:
        self._close(line.start())
        self._open_block(line.start())
        end = self._fence_end(line)
        self._block_starts.append(line.start())
        self._block_ends.append(end)
        return end

    def _fence_end(self, line: re.Match[str]) -> int:
        """Return where the line after the fence starts; a fence left open ends with its quote or with the text."""
        prefix = line["fence"].rstrip("`~")
        marks = line["fence"][len(prefix) :]
        ends = _QUOTED_FENCE_END if ">" in prefix else _FENCE_END
        for end in ends.finditer(self._text, line.end()):
            if end[1] is None:
                return end.start()
            if end[1].startswith(marks):
                return end.end()
        return len(self._text)

    def _open_block(self, start: int) -> None:
        if not self._after_heading:
            self._paragraphs.append(start)
        self._after_heading = False

    def _open_section(self, start: int, level: int, title: str) -> None:
        while self._titles and self._titles[-1][0] >= level:
            self._titles.pop()
        self._titles.append((level, " ".join(title.split())[:_TITLE_LENGTH]))
        self._section_starts.append(start)
        self._section_paths.append(tuple(title for _, title in self._titles))
        self._after_heading = True

    def _close(self, end: int) -> None:
        """End the open paragraph or table at `end`."""
        self._paragraph = None
        if self._table is not None:
            self._block_starts.append(self._table)
            self._block_ends.append(end)
            self._table = None
