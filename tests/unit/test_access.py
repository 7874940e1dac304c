"""The file of API tokens: what it may say, how it is refused, and that it follows the file without a restart."""

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from livedex.errors import ConfigError
from livedex.query.access import ANYBODY, Caller, ForbiddenError, Tokens, read

SECRET = "s3cret-0123456789abcdef"
OTHER = "0ther-0123456789abcdef"
HASHED = hashlib.sha256(OTHER.encode()).hexdigest()
WHOLE = f"""
[tokens.website]
token = "{SECRET}"
collections = ["docs", "blog"]

[tokens.operations]
sha256 = "{HASHED}"
collections = ["*"]
operator = true
"""

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the file, as a new one each time, with another time of change."""
    path = tmp_path / "tokens.toml"
    times = iter(range(1_000_000_000, 2_000_000_000))

    def to_file(content: str | bytes) -> Path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        now = next(times)
        os.utime(path, (now, now))
        return path

    return to_file


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """As time.monotonic."""
        return self.now


def refusal(path: Path) -> str:
    """The one line that says what is wrong, which quotes no token."""
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert not re.search("s3cret|0ther", message)
    return message


def test_each_token_is_known_by_what_it_may(write: Write) -> None:
    """In clear or as its SHA-256; some collections or all; operators are named as such. Others are nobody."""
    tokens = Tokens(write(WHOLE))
    assert tokens.caller(SECRET) == Caller(name="website", collections=frozenset({"docs", "blog"}))
    assert tokens.caller(OTHER) == Caller(name="operations", collections=None, operator=True)
    for wrong in ("", SECRET[:-1], f"{SECRET}x", HASHED, SECRET.upper(), "é", "\ud800"):
        assert tokens.caller(wrong) is None


def test_every_token_is_compared_every_time(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, whoever asks: how long it takes tells nothing."""
    tokens = Tokens(write(WHOLE))
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    for token in (SECRET, OTHER, "x"):
        compared.clear()
        tokens.caller(token)
        assert len(set(compared)) == 2


def test_a_caller_may_search_its_collections_only() -> None:
    """Whether another one exists is not told."""
    caller = Caller(name="website", collections=frozenset({"docs"}))
    caller.check("docs")
    with pytest.raises(ForbiddenError, match="the token website may not search the collection other"):
        caller.check("other")
    ANYBODY.check("other")


def test_no_token_is_kept(write: Write) -> None:
    """Neither the tokens nor who has them show one: digests are compared."""
    tokens = Tokens(write(WHOLE))
    assert SECRET not in repr(vars(tokens))


ENTRY = f'[tokens.a]\ntoken = "{SECRET}"\n'
WRONG: list[tuple[str | bytes, str]] = [
    ("", "tokens: is missing: a section [tokens.NAME]"),
    ("tokens = 5", "tokens: a section [tokens.NAME]"),
    (f'[tokens]\na = "{SECRET}"', "tokens.a: a section was expected"),
    (f"{ENTRY}collections", "is no TOML: look at"),
    (f'{ENTRY}collections = ["*"]\n[tokens.b]\ntoken = "{SECRET}', "is no TOML: look at"),
    (f'[tokens.a]\ntoken = {SECRET}\ncollections = ["*"]', "is no TOML: look at line 2, column 9"),
    (b"\xff\xfe", "it is not in UTF-8"),
    (ENTRY, "tokens.a.collections: is missing"),
    (f'{ENTRY}collections = "docs"', "tokens.a.collections: a list"),
    (f'{ENTRY}collections = ["*", "docs"]', "tokens.a.collections: a list"),
    (f'{ENTRY}collections = ["no such name"]', "tokens.a.collections: a list"),
    (f'{ENTRY}collections = ["*"]\noperator = "yes"', "tokens.a.operator: true or false"),
    (
        f'{ENTRY}collections = ["*"]\nexpires = 5',
        "tokens.a.expires is unknown, expected token, sha256, collections or operator",
    ),
    (f'{ENTRY}sha256 = "{HASHED}"\ncollections = ["*"]', "tokens.a: either token or sha256"),
    ('[tokens.a]\ncollections = ["*"]', "tokens.a: either token or sha256"),
    ('[tokens.a]\ntoken = "s3cret"\ncollections = ["*"]', "tokens.a.token: 16 to 512"),
    ('[tokens.a]\ntoken = "s3cret with blanks in it"\ncollections = ["*"]', "tokens.a.token: 16 to 512"),
    ('[tokens.a]\nsha256 = "s3cret"\ncollections = ["*"]', "tokens.a.sha256: 64 hexadecimal digits"),
    (f'{ENTRY}collections = ["*"]\n[tokens.b]\ntoken = "{SECRET}"\ncollections = ["*"]', "tokens.b and tokens.a are the same"),
    (f"{WHOLE}\n[other]", "other is unknown, expected tokens"),
    (b"#" * (2**20 + 1), "larger than"),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_told_without_its_tokens(write: Write, content: str | bytes, says: str) -> None:
    """The line or the field, and what was expected."""
    assert says in refusal(write(content))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Absent, or a folder; with the setting that named it."""
    for path in (tmp_path, tmp_path / "absent"):
        assert "check LIVEDEX_API_TOKENS_FILE" in refusal(path)
        with pytest.raises(ConfigError):
            Tokens(path)


def test_a_token_is_revoked_by_changing_the_file(write: Write) -> None:
    """At the next look, without a restart; others are added the same way. No token at all is a file that may be."""
    clock = Clock()
    tokens = Tokens(write(WHOLE), clock=clock)
    write(WHOLE.replace(SECRET, "new-one-0123456789abcdef"))
    assert tokens.caller(SECRET) is not None, "nobody looks at a file for every request"
    clock.now += 1
    assert tokens.caller(SECRET) is None
    assert tokens.caller("new-one-0123456789abcdef") is not None
    write("[tokens]\n")
    clock.now += 1
    assert tokens.caller(OTHER) is None


@pytest.mark.parametrize("content", ["", "[tokens", f"{WHOLE}\n[tokens.x]", None])
def test_a_broken_new_version_keeps_the_one_before(write: Write, content: str | None) -> None:
    """Said once, as an error; it is taken once it is sound again."""
    clock = Clock()
    path = write(WHOLE)
    tokens = Tokens(path, clock=clock)
    if content is None:
        path.unlink()
    else:
        write(content)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            clock.now += 1
            assert tokens.caller(SECRET) is not None
    assert [(line["event"], line["log_level"]) for line in logs] == [("access.tokens_refused", "error")]
    assert SECRET not in str(logs)
    write(WHOLE.replace(SECRET, "new-one-0123456789abcdef"))
    clock.now += 1
    assert tokens.caller(SECRET) is None


def test_a_file_that_all_may_read_is_warned_of(write: Write) -> None:
    """With the command that mends it; one that is private is not."""
    path = write(WHOLE)
    with structlog.testing.capture_logs() as logs:
        Tokens(path)
        assert logs == []
        path.chmod(0o644)
        Tokens(path)
    assert [(line["event"], line["log_level"]) for line in logs] == [("secrets.readable_by_all", "warning")]
    assert "chmod" in logs[0]["remedy"]
