"""What goes to a terminal: nothing that is shown may steer it."""

import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest

from livedex.cli.session import _cell, print_json, readable

EVERY_CONTROL = "".join(map(chr, filter(lambda code: unicodedata.category(chr(code)) == "Cc", range(0x110000))))


def test_control_characters_are_written_out() -> None:
    """All of Unicode's category Cc but newline and tab; every other character stays."""
    assert len(EVERY_CONTROL) == 65
    left = {character for character in readable(EVERY_CONTROL) if unicodedata.category(character) == "Cc"}
    assert left == {"\n", "\t"}
    assert readable("a\x1b[31mb\x9b2J\x7f\tc\n") == "a\\x1b[31mb\\x9b2J\\x7f\tc\n"
    assert readable("[bold] é 索引 🙂 \\") == "[bold] é 索引 🙂 \\"


def test_json_has_no_control_character_in_its_texts(capsys: pytest.CaptureFixture[str]) -> None:
    """They are escaped, those above ASCII too, and read back as they were."""
    print_json({"text": EVERY_CONTROL})
    printed = capsys.readouterr().out
    assert {character for character in printed if unicodedata.category(character) == "Cc"} == {"\n"}
    assert json.loads(printed) == {"text": EVERY_CONTROL}


def test_a_cell_shows_texts_as_they_are_and_times_in_utc() -> None:
    """Markup, emoji names and backslashes are text; the ends of the calendar are shown."""
    assert _cell("\\[bold]x[/bold] :smile: \x1b").plain == "\\[bold]x[/bold] :smile: \\x1b"
    assert _cell(None).plain == "-"
    assert _cell(1.23456).plain == "1.235"
    assert _cell(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)).plain == "9999-12-31 23:59:59+00:00"
    assert _cell(datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))).plain == "2026-01-01 10:00:00+00:00"


def test_a_cell_does_not_depend_on_the_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last second that Python knows can be shown east and west of Greenwich."""
    import time

    for zone in ("Asia/Tokyo", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert _cell(datetime(1, 1, 1, tzinfo=UTC)).plain == "0001-01-01 00:00:00+00:00"
        assert _cell(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)).plain == "9999-12-31 23:59:59+00:00"
    monkeypatch.undo()
    time.tzset()
