"""The models of the collections: those that are here are the ones that the vectors were made with."""

from livedex import catalogue
from livedex.catalogue import Generation
from livedex.config import Settings
from livedex.database import Connection
from livedex.encoders import server_of
from livedex.encoders.models import find_reranker
from livedex.errors import ConfigError


def check_models(chosen: Settings, connection: Connection) -> str:
    """ConfigError for the first that is not. One behind an embedding server is asked for the vectors of a few texts."""
    generations = catalogue.generations(connection).values()
    for generation in generations:
        _check(chosen, generation)
        if generation.reranker and chosen.embedder != "hash":
            find_reranker(generation.reranker)
    return ", ".join(sorted({generation.identity.model for generation in generations})) or "no collection yet"


def _check(chosen: Settings, generation: Generation) -> None:
    pinned = generation.identity
    if pinned.encoder == "hash" or chosen.embedder == "hash":
        if pinned.encoder != chosen.embedder:
            raise ConfigError(
                f"collection {generation.collection} is of the {pinned.encoder} encoder: set LIVEDEX_EMBEDDER="
                f"{pinned.encoder if pinned.encoder == 'hash' else 'auto'}"
            )
    elif chosen.embedder == "http" or (chosen.embedder == "auto" and chosen.embedder_url):
        catalogue.open_checked(chosen.embedder, generation, server=server_of(chosen))
    else:
        generation.check_files()
