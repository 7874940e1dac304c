"""Settings: file and environment, their defaults, and one clear line for every mistake."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from livedex.config import CollectionSettings, Settings, SourceSettings, load
from livedex.errors import UsageError

WHOLE = """
database_url = "postgresql://localhost/file"
embedder = "torch"
model = "from-the-file"
http_host = "0.0.0.0"
http_port = 8081
metrics_port = 9109
api_tokens_file = "tokens"
log_format = "json"

[kafka]
bootstrap_servers = "kafka:9092"
client = { security_protocol = "SSL", ssl_cafile = "ca.pem" }

[collections.docs]
model = "folder/model"
query_prompt = ""
document_prompt = "passage: "
metric = "dot"
storage = "vector"
reranker = "cross"
text_config = "simple"
versions = "source"
context = "none"
orphan_grace = "90m"

[sources."company.docs"]
collection = "docs"
partitions = 12
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a settings file."""

    def to_file(content: str) -> Path:
        path = tmp_path / "livedex.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return to_file


def refusal(path: Path | None) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(UsageError) as caught:
        load(path)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# --- what is taken ----------------------------------------------------------------------------------------------


def test_defaults() -> None:
    """Those of the contract: one collection `default`, fed by livedex.documents, loopback addresses."""
    found = load()
    assert found.kafka.bootstrap_servers == "localhost:9092"
    assert (found.database_url, found.embedder, found.model) == ("", "auto", "all-MiniLM-L6-v2")
    assert (found.http_host, found.http_port, found.metrics_port) == ("127.0.0.1", 8080, 9108)
    assert (found.api_tokens_file, found.log_format) == (None, "console")
    assert (found.canary_url, found.canary_every, found.canary_timeout) == ("", timedelta(seconds=30), timedelta(seconds=60))
    assert found.collections == {"default": CollectionSettings()}
    assert found.sources == {"livedex.documents": SourceSettings(collection="default", partitions=3)}
    assert CollectionSettings().model_dump() == {
        "model": None, "query_prompt": None, "document_prompt": None, "dimension": None, "precision": "auto",
            "metric": "cosine", "storage": "halfvec", "reranker": "",
        "text_config": "english", "versions": "log", "context": "title", "orphan_grace": timedelta(hours=24),
    }  # fmt: skip


def test_every_setting_of_a_file(write: Write) -> None:
    """Each arrives where it belongs, prompts that are empty stay empty."""
    found = load(write(WHOLE))
    assert found.kafka.client == {"security_protocol": "SSL", "ssl_cafile": "ca.pem"}
    assert (found.http_host, found.http_port, found.metrics_port) == ("0.0.0.0", 8081, 9109)
    assert (found.embedder, found.log_format, found.api_tokens_file) == ("torch", "json", Path("tokens"))
    assert found.collections == {
        "docs": CollectionSettings(
            model="folder/model", query_prompt="", document_prompt="passage: ", metric="dot", storage="vector",
            reranker="cross", text_config="simple", versions="source", context="none", orphan_grace=timedelta(minutes=90),
        )
    }  # fmt: skip
    assert found.sources == {"company.docs": SourceSettings(collection="docs", partitions=12)}


ENVIRONMENT: dict[str, tuple[str, Callable[[Settings], str]]] = {
    "KAFKA_BOOTSTRAP_SERVERS": ("other:1", lambda found: found.kafka.bootstrap_servers),
    "STANDBY_URLS": ("postgresql://one/a postgresql://two/b", lambda found: found.standby_urls),
    "DATABASE_URL": ("postgresql://localhost/environment", lambda found: found.database_url),
    "EMBEDDER": ("hash", lambda found: found.embedder),
    "EMBEDDER_URL": ("http://localhost:3000", lambda found: found.embedder_url),
    "EMBEDDER_TOKEN_FILE": ("secret", lambda found: str(found.embedder_token_file)),
    "EMBEDDER_MAX_TOKENS": ("8191", lambda found: str(found.embedder_max_tokens)),
    "EMBEDDER_CONCURRENCY": ("9", lambda found: str(found.embedder_concurrency)),
    "MODEL": ("from-the-environment", lambda found: found.model),
    "HTTP_HOST": ("::1", lambda found: found.http_host),
    "HTTP_PORT": ("0", lambda found: str(found.http_port)),
    "METRICS_PORT": ("65535", lambda found: str(found.metrics_port)),
    "HTTP_QUEUE": ("0", lambda found: str(found.http_queue)),
    "API_TOKENS_FILE": ("others", lambda found: str(found.api_tokens_file)),
    "CANARY_URL": ("http://localhost:8080", lambda found: found.canary_url),
    "CANARY_EVERY": ("5m", lambda found: f"{found.canary_every.seconds // 60}m"),
    "CANARY_TIMEOUT": ("2s", lambda found: f"{found.canary_timeout.seconds}s"),
    "API_TOKEN_FILE": ("mine", lambda found: str(found.api_token_file)),
    "WIRE_PORT": ("8432", lambda found: str(found.wire_port)),
    "WIRE_HOST": ("::1", lambda found: found.wire_host),
    "WIRE_PASSWORD_FILE": ("mine", lambda found: str(found.wire_password_file)),
    "WIRE_CERTIFICATE_FILE": ("mine", lambda found: str(found.wire_certificate_file)),
    "WIRE_KEY_FILE": ("mine", lambda found: str(found.wire_key_file)),
    "LOG_FORMAT": ("console", lambda found: found.log_format),
}


@pytest.mark.parametrize("name", ENVIRONMENT)
@pytest.mark.parametrize("content", ["", WHOLE], ids=["alone", "over a file"])
def test_the_environment_wins(write: Write, monkeypatch: pytest.MonkeyPatch, name: str, content: str) -> None:
    """Every variable of the contract is taken, with a file and without; the file's other settings stay."""
    value, read = ENVIRONMENT[name]
    file = load(write(content))
    monkeypatch.setenv(f"LIVEDEX_{name}", value)
    found = load(write(content))
    assert read(found) == value
    changed = {field for field in Settings.model_fields if getattr(found, field) != getattr(file, field)}
    assert len(changed) == 1 or (value == read(file) and not changed)
    assert found.kafka.client == file.kafka.client
    assert found.collections == file.collections


def test_the_file_may_be_named_by_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LIVEDEX_CONFIG names it, an argument wins over it, and an empty one is none."""
    monkeypatch.setenv("LIVEDEX_CONFIG", str(write("http_port = 1")))
    assert load().http_port == 1
    other = tmp_path / "other.toml"
    other.write_text("http_port = 2")
    assert load(other).http_port == 2
    monkeypatch.setenv("LIVEDEX_CONFIG", "")
    assert load().http_port == 8080


def test_a_collection_needs_no_source(write: Write) -> None:
    """Whoever names collections gets these only, and no source that was not named."""
    found = load(write("[collections.x]\n"))
    assert (set(found.collections), found.sources) == ({"x"}, {})


def test_a_source_may_feed_the_default_collection(write: Write) -> None:
    """Naming a source alone replaces the built-in topic and keeps the built-in collection."""
    found = load(write('[sources.t]\ncollection = "default"\n'))
    assert (set(found.collections), set(found.sources)) == ({"default"}, {"t"})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
    ],
)
def test_durations(write: Write, written: str, expected: timedelta) -> None:
    """A number and a unit."""
    assert load(write(f'[collections.x]\norphan_grace = "{written}"')).collections["x"].orphan_grace == expected


def test_settings_do_not_change() -> None:
    """Whoever has them may pass them on."""
    with pytest.raises(ValidationError, match="frozen"):
        load().http_port = 1  # type: ignore[misc]


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LIVEDEX_HTTP_PROT", "LIVEDEX_HTTP_PORT"),
        ("LIVEDEX_KAFKA_BOOTSTRAP", "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS"),
        ("LIVEDEX_DATABASE", "LIVEDEX_DATABASE_URL"),
        ("LIVEDEX_MODELS", "LIVEDEX_MODEL"),
        ("LIVEDEX_CONFIGURATION", "LIVEDEX_CONFIG"),
        ("LIVEDEX_API_TOKENS", "LIVEDEX_API_TOKENS_FILE"),
    ],
)
def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch, name: str, nearest: str) -> None:
    """A typing error is never silently ignored."""
    monkeypatch.setenv(name, "x")
    assert refusal(None) == f"the setting {name} is unknown: did you mean {nearest}?"


def test_a_variable_that_is_near_to_none_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that could be meant; variables of others do not matter."""
    monkeypatch.setenv("LIVEDEXX", "x")
    monkeypatch.setenv("PATH_LIVEDEX_X", "x")
    load()
    monkeypatch.setenv("LIVEDEX_ZZZ", "x")
    message = refusal(None)
    assert all(f"LIVEDEX_{known}" in message for known in [*ENVIRONMENT, "CONFIG"])


@pytest.mark.parametrize("name", ["COLLECTIONS", "SOURCES", "KAFKA", "KAFKA_CLIENT"])
def test_what_belongs_into_the_file_is_refused_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The library would take them; the contract does not have them."""
    monkeypatch.setenv(f"LIVEDEX_{name}", "{}")
    assert f"the setting LIVEDEX_{name} is unknown" in refusal(None)


@pytest.mark.parametrize(
    ("content", "setting", "nearest"),
    [
        ('embeder = "torch"', "embeder", "embedder"),
        ("[kafka]\nbootstrap_server = 'x'", "kafka.bootstrap_server", "bootstrap_servers"),
        ("[collection.x]", "collection", "collections"),
        ("[collections.x]\nmetrics = 'l2'", "collections.x.metrics", "metric"),
        ("[sources.t]\ncollection = 'default'\npartition = 1", "sources.t.partition", "partitions"),
    ],
)
def test_an_unknown_setting_of_a_file_names_the_nearest(write: Write, content: str, setting: str, nearest: str) -> None:
    """Of its own section, with the file and the way to it."""
    path = write(content)
    assert refusal(path) == f"the setting {setting} in {path} is unknown: did you mean {nearest}?"


@pytest.mark.parametrize(
    ("content", "setting", "says"),
    [
        ("http_port = 65536", "http_port", "65535"),
        ("http_port = -1", "http_port", "0"),
        ("http_port = 1.5", "http_port", "integer"),
        ("http_queue = -1", "http_queue", "0"),
        ("metrics_port = 'x'", "metrics_port", "integer"),
        ("embedder = 'cuda'", "embedder", "'auto', 'torch', 'openvino', 'http' or 'hash'"),
        ("log_format = 'xml'", "log_format", "'console' or 'json'"),
        ("model = 5", "model", "string"),
        ("database_url = []", "database_url", "string"),
        ("api_tokens_file = 5", "api_tokens_file", "path"),
        ("kafka = 5", "kafka", "dictionary"),
        ("[kafka]\nclient = 'x'", "kafka.client", "dictionary"),
        ("[kafka]\nbootstrap_servers = 9092", "kafka.bootstrap_servers", "string"),
        ("collections = 5", "collections", "dictionary"),
        ("[collections]\nx = 5", "collections.x", "dictionary"),
        ("[collections.x]\nmetric = 'l1'", "collections.x.metric", "'cosine', 'dot' or 'l2'"),
        ("[collections.x]\nstorage = 'float'", "collections.x.storage", "'halfvec', 'vector' or 'bit'"),
        ("[collections.x]\nversions = 'none'", "collections.x.versions", "'log' or 'source'"),
        ("[collections.x]\ncontext = 'all'", "collections.x.context", "'title', 'headings' or 'none'"),
        *(
            (f"[collections.x]\norphan_grace = {value}", "collections.x.orphan_grace", "a number with a unit")
            for value in (
                "'24'",
                "'h'",
                "''",
                "'1.5h'",
                "'-5h'",
                "'5 h'",
                "'5w'",
                "'²h'",
                "'9999999999d'",
                "-5",
                "3600",
                "true",
            )
        ),
        ("[sources.t]\ncollection = 'default'\npartitions = 0", "sources.t.partitions", "1"),
        ("[sources.t]\ncollection = 'default'\npartitions = 10001", "sources.t.partitions", "10000"),
        ("[sources.t]\npartitions = 1", "sources.t.collection", "required"),
    ],
)
def test_a_wrong_value_is_one_clear_line(write: Write, content: str, setting: str, says: str) -> None:
    """It names the setting, the file and what was expected."""
    path = write(content)
    message = refusal(path)
    assert message.startswith(f"the setting {setting} in {path} is wrong: ")
    assert says in message


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LIVEDEX_HTTP_PORT", "http", "integer"),
        ("LIVEDEX_HTTP_PORT", "", "integer"),
        ("LIVEDEX_METRICS_PORT", "70000", "65535"),
        ("LIVEDEX_EMBEDDER", "TORCH", "'torch'"),
        ("LIVEDEX_LOG_FORMAT", "text", "'json'"),
    ],
)
def test_a_wrong_variable_is_named_as_such(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """By the variable, not by the file whose setting it replaces."""
    monkeypatch.setenv(name, value)
    message = refusal(write(WHOLE))
    assert message.startswith(f"the setting {name} is wrong: ")
    assert says in message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql//user:s3cret@host/docs", "neither a URL"),
        ("postgresql://user:s3cret%zz@host/docs", "neither a URL"),
        ("user s3cret", "neither a URL"),
        ("postgresql://user:s3cret@host/docs?s3cret=1", "neither a URL"),
        ("postgresql://user:s3cret@host:notaport/docs", "port"),
        ("postgresql://user:s3cret@host:0/docs", "port"),
        ("postgresql://user:s3cret@a:5432,b:99999/docs", "port"),
        ("host=a password=s3cret port=5432,x", "port"),
    ],
)
def test_a_database_url_that_libpq_cannot_read_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    """Before anything is connected to; no part of the value is printed, since any may be the password."""
    monkeypatch.setenv("LIVEDEX_DATABASE_URL", url)
    message = refusal(None)
    assert message.startswith("the setting LIVEDEX_DATABASE_URL is wrong: it")
    assert says in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host=a,b port=5432,5433 dbname=x",
        "postgresql://a,b:5433/x?sslmode=require",
        "postgresql:///x?host=/run/sock",
        "dbname=x",
    ],
)
def test_a_database_url_may_have_any_form_of_libpq(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A URL, keys and values, several hosts, a socket, or nothing."""
    monkeypatch.setenv("LIVEDEX_DATABASE_URL", url)
    assert load().database_url == url


def test_every_mistake_is_told_at_once(write: Write) -> None:
    """Separated by semicolons, still on one line."""
    message = refusal(write("http_port = 'x'\nembeder = 'x'\n[collections.x]\nmetric = 'x'"))
    assert all(f"the setting {name} in" in message for name in ("http_port", "embeder", "collections.x.metric"))
    assert message.count("; ") == 2


def test_a_source_names_a_collection_that_is_there(write: Write) -> None:
    """The default collection is not there once others are named."""
    path = write('[collections.x]\n[sources.t]\ncollection = "default"')
    assert refusal(path) == f"the settings in {path} are wrong: sources.t.collection is 'default', which no [collections] names"


@pytest.mark.parametrize("content", [b"x = [", b"\xff", b"http_port = 1\nhttp_port = 2"])
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    """Or not UTF-8, or says a thing twice."""
    path = tmp_path / "livedex.toml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"the settings file {path} is no TOML: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Absent, or a folder."""
    absent = tmp_path / "absent.toml"
    assert refusal(absent) == f"the settings file {absent} does not exist: check --config and LIVEDEX_CONFIG"
    assert refusal(tmp_path).startswith(f"the settings file {tmp_path} cannot be read: ")
