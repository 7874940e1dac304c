"""Settings: the only reader of the environment and of livedex.toml. The environment wins; an unknown name is an error.

`load()` gives a frozen `Settings`. What concerns a collection or a source is read here but used by `livedex apply` only:
the workers take it from the database.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from livedex.errors import UsageError

PREFIX = "LIVEDEX_"
DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_COLLECTION = "default"
DEFAULT_TOPIC = "livedex.documents"
GROUP = "livedex"  # the Kafka consumer group of the index workers

EmbedderName = Literal["auto", "torch", "openvino", "http", "hash"]


# Names that Postgres, Kafka, addresses and metrics can carry.
CollectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
TopicName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,249}$")]


def duration(written: object) -> object:
    """The timedelta that a number with a unit names; ValueError for anything else."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if isinstance(written, timedelta):
        return written
    parts = re.fullmatch(r"([0-9]{1,9})([smhd])", written) if isinstance(written, str) else None
    if parts is None:
        raise ValueError('a number with a unit was expected, such as "90s", "30m", "24h" or "7d"')
    return timedelta(**{units[parts[2]]: int(parts[1])})


Duration = Annotated[timedelta, BeforeValidator(duration)]
Period = Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(days=1))]
_SECRET = Field(repr=False)  # it may have a password in it: whatever prints settings must not print that


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """How Kafka is reached."""

    bootstrap_servers: str = "localhost:9092"  # host:port, several separated by commas
    # any option of kafka-python's clients, security for instance; and sasl_plain_password_file, ssl_password_file
    client: Annotated[dict[str, Any], _SECRET] = {}


class CollectionSettings(_Section):
    """What `livedex apply` makes of a collection."""

    model: str | None = None  # folder, installed package or hub name, which may end with @revision; None: LIVEDEX_MODEL
    query_prompt: str | None = None  # None: the model's own
    document_prompt: str | None = None
    dimension: Annotated[int, Field(ge=1)] | None = None  # the first so many numbers of each vector; None: all
    precision: Literal["auto", "int8"] = "auto"
    metric: Literal["cosine", "dot", "l2"] = "cosine"
    storage: Literal["halfvec", "vector", "bit"] = "halfvec"
    reranker: str = ""
    text_config: str = "english"
    versions: Literal["log", "source"] = "log"
    context: Literal["title", "headings", "none"] = "title"
    orphan_grace: Duration = timedelta(hours=24)  # written as a number with a unit: s, m, h or d


class SourceSettings(_Section):
    """A topic that a collection follows."""

    collection: str
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 3  # when `livedex apply` creates the topic


class Settings(BaseSettings):
    """Everything that can be set. Field names are the settings' names in lower case, without the prefix."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    database_url: Annotated[str, _SECRET] = ""  # libpq's URL or key=value form; empty: libpq's own PG* variables
    # of hot standbys whose sessions search by text, separated by blanks; for `livedex serve`
    standby_urls: Annotated[str, _SECRET] = ""
    embedder: EmbedderName = "auto"
    embedder_url: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$"), _SECRET] = (
        ""  # of an embedding server, for http
    )
    embedder_token_file: Path | None = None  # its bearer token
    embedder_max_tokens: Annotated[int, Field(ge=16)] | None = None  # that its model reads; None: the server says it
    embedder_concurrency: Annotated[int, Field(ge=1, le=256)] = 4  # requests to it at a time, of each worker
    model: str = DEFAULT_MODEL  # for collections that name none
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080  # of `livedex serve`; 0: any free port
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9108  # of `livedex index`; 0: any free port
    # of `livedex index`: so many records that fail one after another are no bad records but a fault of encoder or database
    failures_in_a_row: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    http_queue: Annotated[int, Field(ge=0, le=100_000)] = 128  # searches of `livedex serve` that may wait for their turn
    api_tokens_file: Path | None = None  # who may ask `livedex serve`; None: everybody on this machine
    api_token_file: Path | None = None  # the token that `livedex search` shows
    # of `livedex index`: the query worker that its canary asks, see canary.py; "": there is no canary
    canary_url: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = ""
    canary_every: Period = timedelta(seconds=30)
    canary_timeout: Period = timedelta(seconds=60)  # after which a canary that is not found has failed
    # of `livedex serve`: the endpoint that databases ask by dblink; None: there is none
    wire_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    wire_host: str = "127.0.0.1"
    wire_password_file: Path | None = None  # the password that is asked for there
    wire_certificate_file: Path | None = None  # with it the endpoint speaks TLS, and nothing else; PEM, the chain included
    wire_key_file: Path | None = None  # of that certificate, not encrypted
    log_format: Literal["console", "json"] = "console"
    collections: dict[CollectionName, CollectionSettings] = {DEFAULT_COLLECTION: CollectionSettings()}
    sources: dict[TopicName, SourceSettings] = {DEFAULT_TOPIC: SourceSettings(collection=DEFAULT_COLLECTION)}

    @field_validator("database_url")
    @classmethod
    def _libpq_reads_it(cls, value: str) -> str:
        return _connection_string(value)

    @field_validator("standby_urls")
    @classmethod
    def _libpq_reads_each(cls, value: str) -> str:
        if not all("://" in _connection_string(url) for url in value.split()):
            raise ValueError("one of its parts is no URL such as postgresql://user:password@host:5432/database")
        return value

    @model_validator(mode="before")
    @classmethod
    def _own_collections_without_the_default_source(cls, values: Any) -> Any:
        if isinstance(values, dict) and "collections" in values:
            return {"sources": {}, **values}
        return values

    @model_validator(mode="after")
    def _sources_name_collections(self) -> "Settings":
        for topic, source in self.sources.items():
            if source.collection not in self.collections:
                raise ValueError(f"sources.{topic}.collection is {source.collection!r}, which no [collections] names")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file, whose content arrives as arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def _connection_string(value: str) -> str:
    try:
        port = str(conninfo_to_dict(value).get("port") or "")
    except ProgrammingError:  # its message may quote the password
        raise ValueError(
            "it is neither a URL such as postgresql://user:password@host:5432/database, special characters in it written "
            "as %40 and the like, nor libpq's key=value form"
        ) from None
    if any(part and not (part.isdecimal() and 1 <= int(part) <= 65535) for part in port.split(",")):
        raise ValueError("its port is not a number from 1 to 65535")
    return value


# Settings that are not fields: read before the others, or by the test suite.
_FOR_LOADING = ("CONFIG",)
_FROM_ENVIRONMENT = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "STANDBY_URLS", "EMBEDDER", "EMBEDDER_URL",
                     "EMBEDDER_TOKEN_FILE", "EMBEDDER_MAX_TOKENS", "EMBEDDER_CONCURRENCY", "MODEL", "HTTP_HOST", "HTTP_PORT",
                     "METRICS_PORT", "FAILURES_IN_A_ROW", "HTTP_QUEUE", "API_TOKENS_FILE", "API_TOKEN_FILE",
                     "CANARY_URL", "CANARY_EVERY", "CANARY_TIMEOUT", "WIRE_PORT", "WIRE_HOST", "WIRE_PASSWORD_FILE",
                     "WIRE_CERTIFICATE_FILE", "WIRE_KEY_FILE", "LOG_FORMAT", *_FOR_LOADING)  # fmt: skip


def opentelemetry() -> dict[str, str]:
    """The variables of OpenTelemetry, which are not livedex's to name or to check."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


def load(path: Path | None = None) -> Settings:
    """The settings of `path` (default: LIVEDEX_CONFIG, else none) under the environment's; UsageError when any is wrong."""
    _refuse_unknown(os.environ)
    if path is None and os.environ.get(f"{PREFIX}CONFIG"):
        path = Path(os.environ[f"{PREFIX}CONFIG"])
    content = _read(path) if path else {}
    try:
        return Settings(**content)
    except ValidationError as error:
        raise UsageError("; ".join(_explain(error, path))) from None


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        setting = name.removeprefix(PREFIX)
        if setting != name and setting not in _FROM_ENVIRONMENT:
            raise UsageError(f"the setting {name} is unknown{_nearest(setting, _FROM_ENVIRONMENT, prefix=PREFIX)}")


def _nearest(name: str, known: Sequence[str], *, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    named = [prefix + setting for setting in near or known]
    return f": did you mean {named[0]}?" if near else f", expected one of {', '.join(named)}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the settings file {path} does not exist: check --config and {PREFIX}CONFIG") from None
    except OSError as error:
        raise UsageError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the settings file {path} is no TOML: {error}") from None


def _explain(error: ValidationError, path: Path | None) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        origin = f" in {path}" if path else ""
        variable = PREFIX + where.replace(".", "_").upper()
        if problem["type"] == "extra_forbidden":
            yield f"the setting {where}{origin} is unknown{_nearest(str(problem['loc'][-1]), _known(problem['loc'][:-1]))}"
            continue
        subject = f"the setting {where}{origin} is" if where else f"the settings{origin} are"
        if variable in os.environ:
            subject = f"the setting {variable} is"
        message = problem["msg"].removeprefix("Value error, ")
        yield f"{subject} wrong: {message[:1].lower()}{message[1:]}"


def _known(parents: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "kafka": KafkaSettings, "collections": CollectionSettings, "sources": SourceSettings,
    }  # fmt: skip
    return list(sections.get(str(parents[0]), Settings).model_fields if parents else Settings.model_fields)
