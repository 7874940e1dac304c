"""What `livedex apply` makes of a collection: the collection itself with its first generation, or a generation beside the
active one where a collection that has documents gets another model, chunking or metric. Vectors of two models never mix.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from livedex import catalogue
from livedex.catalogue import Generation, Live
from livedex.config import CollectionSettings, Settings
from livedex.core.chunking import ChunkingSpec
from livedex.database import Connection, query
from livedex.encoders import Encoder, ModelSpec, open_encoder, server_of
from livedex.encoders.models import find_reranker
from livedex.encoders.probe import probe, to_bytes
from livedex.errors import ConfigError
from livedex.generations import take_alone

MAX_INDEXED_DIMENSION = {"halfvec": 4000, "vector": 2000, "bit": 4000}  # pgvector's limits for HNSW; a page, for bit
SAME_LENGTH = 0.01  # how much vectors may differ in length, as a share, and still count as normalised
FIXED = ("versions", "text_config", "encoder")  # what a collection that has documents keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One difference between what is and what the settings say, and how it is removed."""

    say: str
    do: Callable[[], None] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A collection as the settings say, its model opened."""

    name: str
    settings: CollectionSettings
    text_config: str  # as Postgres writes it
    encoder: Encoder

    @property
    def spec(self) -> ChunkingSpec:
        """How its documents are cut."""
        return ChunkingSpec(context=self.settings.context)

    def differences(self, generation: Generation) -> dict[str, str]:
        """What of the generation is not as wanted, in words, by setting."""
        wanted, pinned = self.encoder.identity, generation.identity
        pairs = {
            "model": (pinned.model, wanted.model),
            "revision of the model": (pinned.revision, wanted.revision),
            "dimension": (pinned.dimension, wanted.dimension),
            "encoder": (pinned.encoder, wanted.encoder),
            "query_prompt": (pinned.query_prompt, wanted.query_prompt),
            "document_prompt": (pinned.document_prompt, wanted.document_prompt),
            "precision": (generation.precision, self.settings.precision),
            "metric": (generation.metric, self.settings.metric),
            "storage": (generation.storage, self.settings.storage),
            "text_config": (generation.text_config, self.text_config),
            "chunking": (generation.spec, self.spec),
        }
        # torch and its like give the same vectors; hash gives others under any name
        if "hash" not in (pinned.encoder, wanted.encoder):
            del pairs["encoder"]
        if "http" in (pinned.encoder, wanted.encoder):  # a server does not show its model's files
            del pairs["revision of the model"]
        return {name: f"{name} from {old!r} to {new!r}" for name, (old, new) in pairs.items() if old != new}


def wanted(settings: Settings, connection: Connection, name: str) -> Wanted:
    """A collection as the settings say. Loads its model; ConfigError for what cannot be."""
    collection = settings.collections[name]
    text_config = _text_config(connection, name, collection.text_config)
    return Wanted(name=name, settings=collection, text_config=text_config, encoder=_open(settings, name, collection))


def _text_config(connection: Connection, collection: str, name: str) -> str:
    """The text search configuration of this name, as Postgres writes it."""
    try:
        row = connection.execute("select %s::regconfig::text", (name,)).fetchone()
    except (errors.UndefinedObject, errors.InvalidName, errors.InvalidSchemaName, errors.SyntaxError) as error:
        raise ConfigError(
            f"text_config {name!r} of collection {collection} is no text search configuration of this Postgres: "
            "psql's \\dF lists them; simple works for any language"
        ) from error
    assert row is not None
    return str(row[0])


def _open(settings: Settings, name: str, collection: CollectionSettings) -> Encoder:
    if collection.storage == "bit" and collection.metric != "cosine":
        raise ConfigError(
            f"collection {name} asks for storage bit with metric {collection.metric}: signs compare directions only, so set "
            'metric = "cosine" or another storage'
        )
    if collection.reranker and settings.embedder != "hash":
        find_reranker(collection.reranker)  # who reranks with it loads it; here it is only looked for
    encoder = open_encoder(
        settings.embedder,
        ModelSpec(
            model=collection.model or settings.model,
            query_prompt=collection.query_prompt,
            document_prompt=collection.document_prompt,
            normalise=collection.metric == "cosine",
            dimension=collection.dimension,
            precision=collection.precision,
        ),
        server=server_of(settings),
    )
    prompt, window = encoder.count_tokens([""])[0], encoder.identity.max_tokens
    if prompt > window // 2:
        raise ConfigError(
            f"the document_prompt of collection {name} takes {prompt} of the {window} tokens that its model reads: shorten it"
        )
    if collection.dimension is not None and collection.dimension > encoder.identity.dimension:
        raise ConfigError(
            f"the model of collection {name} has {encoder.identity.dimension} dimensions, and dimension = "
            f"{collection.dimension} asks for more: set fewer, or none for all"
        )
    dimension, limit = encoder.identity.dimension, MAX_INDEXED_DIMENSION[collection.storage]
    if dimension > limit:
        raise ConfigError(
            f"the model of collection {name} has {dimension} dimensions, storage {collection.storage} indexes at most {limit}: "
            "set dimension where the model was trained for that, or choose storage halfvec or a smaller model"
        )
    return encoder


def collection_steps(connection: Connection, wanted: Wanted, live: Live) -> list[Step]:
    """What is to be done about a collection whose live generations these are; ConfigError for what must not be."""
    if not live:
        create = Step(say=f"create collection {wanted.name} {_describe(wanted)}", do=lambda: _create(connection, wanted))
        return [*_warnings(wanted), create]
    active = live[0]
    steps = _update_steps(connection, wanted, active)
    differences = wanted.differences(active)
    if active.version_mode != wanted.settings.versions:
        differences["versions"] = f"versions from {active.version_mode.value!r} to {wanted.settings.versions!r}"
    if not differences:
        return steps
    changes = ", ".join(differences.values())
    if _has_documents(connection, active.collection_id):
        begin = _begin_steps(connection, wanted, live, differences)
        return [*steps, *(_warnings(wanted) if begin else []), *begin]
    return [*steps, *_warnings(wanted), Step(say=f"change {changes} of the empty collection {wanted.name}",
                         do=lambda: _recreate(connection, wanted, active))]  # fmt: skip


def _begin_steps(connection: Connection, wanted: Wanted, live: Live, differences: Mapping[str, str]) -> list[Step]:
    """Begin a generation beside the active one, unless that was done before."""
    fixed = [differences[name] for name in FIXED if name in differences]
    if fixed:
        raise ConfigError(
            f"collection {wanted.name} has documents and would change {', '.join(fixed)}: that cannot change in place; make a "
            "collection of another name with a source of its own, or keep the setting"
        )
    collection_id, *others = live[0].collection_id, *live[1:]
    for failed in catalogue.live(connection, states=("active", "failed"))[collection_id][1:]:
        if not wanted.differences(failed):
            raise ConfigError(
                f"generation {failed.generation_id} of collection {wanted.name} is as the settings say, and failed: livedex "
                f"generation list says why; once that is mended, livedex generation drop {failed.generation_id} makes room"
            )
    for other in others:
        alike = not wanted.differences(other)
        number, command = other.generation_id, f"livedex generation {{}} {wanted.name}"
        if alike and other.state == "building":
            return []
        if alike:
            raise ConfigError(
                f"generation {number} of collection {wanted.name}, which is kept, is as the settings say: "
                f"{command.format('switch')} {number} searches it again; or set back {', '.join(differences.values())}"
            )
        if other.state == "building":
            raise ConfigError(
                f"generation {number} of collection {wanted.name} is being built, and is not as the settings say: "
                f"livedex generation drop {number} first, or set back {', '.join(wanted.differences(other).values())}"
            )
    changes = ", ".join(differences.values())
    say = (
        f"begin a generation of collection {wanted.name} beside the active one, to change {changes}: index workers build it, "
        "livedex generation list shows how far it is, and livedex generation switch makes it the active one"
    )
    return [Step(say=say, do=lambda: _begin(connection, wanted, collection_id))]


def _warnings(wanted: Wanted) -> list[Step]:
    """What is allowed and may surprise: a metric that goes by lengths, and a model that gives vectors of any length."""
    if wanted.settings.metric == "cosine":
        return []
    lengths = np.linalg.norm(probe(wanted.encoder), axis=1)
    if np.ptp(lengths) <= SAME_LENGTH * lengths.max():
        return []
    say = (
        f"warning: metric {wanted.settings.metric} of collection {wanted.name} goes by the lengths of vectors too, and its "
        f"model gives lengths from {lengths.min():.2f} to {lengths.max():.2f}: unless it was trained for that, set "
        'metric = "cosine"'
    )
    return [Step(say=say, do=lambda: None)]


def _describe(wanted: Wanted) -> str:
    identity = wanted.encoder.identity
    return f"(model {identity.model}, {identity.dimension} dimensions, {wanted.settings.metric}, {wanted.settings.storage})"


def _update_steps(connection: Connection, wanted: Wanted, present: Generation) -> list[Step]:
    """What of a collection changes at once."""
    where = (present.collection_id,)
    row = connection.execute("select orphan_grace, reranker from livedex.collection where collection_id = %s", where).fetchone()
    assert row is not None
    pairs = {"orphan_grace": (row[0], wanted.settings.orphan_grace), "reranker": (row[1], wanted.settings.reranker)}
    differ = {name: new for name, (old, new) in pairs.items() if old != new}

    def update() -> None:
        for name, value in differ.items():
            statement = sql.SQL("update livedex.collection set {} = %s where collection_id = %s").format(sql.Identifier(name))
            connection.execute(statement, (value, *where))

    said = ", ".join(f"{name} of collection {wanted.name} to {value or 'none'}" for name, value in differ.items())
    return [Step(say=f"set {said}", do=update)] if differ else []


def _has_documents(connection: Connection, collection_id: int) -> bool:
    statement = "select exists (select from livedex.document where collection_id = %s)"
    return connection.execute(statement, (collection_id,)).fetchone() == (True,)


def _create(connection: Connection, wanted: Wanted) -> None:
    with connection.transaction():
        arguments = {
            "name": wanted.name,
            "version_mode": wanted.settings.versions,
            "orphan_grace": wanted.settings.orphan_grace,
            "reranker": wanted.settings.reranker,
        }
        _create_generation(connection, wanted, _returned(connection, "create_collection", arguments))


def _recreate(connection: Connection, wanted: Wanted, present: Generation) -> None:
    """A new generation in the place of one that holds nothing yet."""
    with connection.transaction():
        take_alone(connection, present.collection_id, wanted.name)
        if catalogue.generations(connection)[present.collection_id].generation_id != present.generation_id:
            raise ConfigError(f"another change of collection {wanted.name} came first: run livedex apply again")
        if _has_documents(connection, present.collection_id):
            raise ConfigError(f"collection {wanted.name} got its first documents meanwhile: run livedex apply again")
        connection.execute(query("generations", "retire"), {"generation_id": present.generation_id})
        _create_generation(connection, wanted, present.collection_id)
        connection.execute(
            "update livedex.collection set version_mode = %s where collection_id = %s",
            (wanted.settings.versions, present.collection_id),
        )


def _begin(connection: Connection, wanted: Wanted, collection_id: int) -> None:
    """A generation beside the active one. From now on no batch is applied that was not made for both."""
    with connection.transaction():
        take_alone(connection, collection_id, wanted.name)
        others = catalogue.live(connection)[collection_id][1:]
        if any(other.state == "building" for other in others):
            raise ConfigError(f"another generation of collection {wanted.name} was begun meanwhile: run livedex apply again")
        _create_generation(connection, wanted, collection_id, state="building")


def _create_generation(
    connection: Connection, wanted: Wanted, collection_id: int, *, state: Literal["active", "building"] = "active"
) -> None:
    identity = wanted.encoder.identity
    arguments: dict[str, Any] = {
        "collection_id": collection_id,
        "parameters": Jsonb(asdict(wanted.spec)),
        "text_config": wanted.text_config,
        "metric": wanted.settings.metric,
        "storage": wanted.settings.storage,
        "state": state,
        **asdict(identity),
        # the hash encoder is the same everywhere
        "probe": None if identity.encoder == "hash" else to_bytes(probe(wanted.encoder)),
    }
    arguments["chunking_id"] = _returned(connection, "create_chunking", arguments)
    arguments["generation_id"] = _returned(connection, "create_generation", arguments)
    connection.execute(query("apply", "create_embeddings"), arguments)
    if state == "active":
        connection.execute(query("apply", "activate_generation"), arguments)


def _returned(connection: Connection, name: str, arguments: dict[str, Any]) -> int:
    """The id that an insert gives back."""
    row = connection.execute(query("apply", name), arguments).fetchone()
    assert row is not None
    return int(row[0])
