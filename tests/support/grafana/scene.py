"""An hour in the life of livedex in a minute, for dashboards: real workers under load, with what panels are made for: dead
letters, an index build, a restart, lost connections, another generation; and a real Prometheus that scrapes it all.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from livedex import generations
from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses
from livedex.errors import ConfigError
from livedex.index.app import IndexApp
from support.database import fresh_database
from support.encoders import open_failing
from support.grafana.files import OPS
from support.grafana.load import Load
from support.kafka import Log
from support.prometheus import Prometheus, scrape_config
from support.rules import load
from support.upkeep import FAST, INDEXES
from support.waiting import until
from support.workers import Process, Workers

RULES = OPS / "prometheus" / "livedex.rules.yml"
PATIENCE = 240  # seconds: a machine that has much else to do takes long to start a process
RETENTION_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Scene:
    """What goes on, for whoever asks Prometheus about it."""

    prometheus: Prometheus
    began: float  # seconds since 1970


@contextmanager
def played(stack: Addresses, template: str, folder: Path) -> Iterator[Scene]:
    """Everything has happened, and the load goes on until the end."""
    with (
        fresh_database(stack.database_url, template) as url,
        Log(KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)) as log,
        Workers(stack, url, folder) as workers,
    ):
        topic = log.topic(3, **{"retention.ms": str(RETENTION_MS)})
        config = workers.config(topic, model="hash-64")
        workers.apply(config)
        server = _started(workers, "serve", config)
        settings = workers.settings(config, canary_url=server.address, canary_every=timedelta(seconds=1))
        first = IndexApp(settings, pace=FAST, open_encoder=open_failing)
        with workers.in_thread(first) as address:
            _fill(workers, log, topic)
            second = _started(workers, "index", config)
            with (
                _scraped([address, second.address], [server.address], folder) as scene,
                Load(log, topic, server.address, url) as load,
            ):
                _happen(scene, workers, config, second, spared=first.name)
                with load.resting():
                    _take_away_unreadable(workers, log, topic)
                    _change_the_model(scene, workers, topic)
                yield scene


@contextmanager
def _scraped(index: list[str], serve: list[str], folder: Path) -> Iterator[Scene]:
    jobs = {"livedex-index": index, "livedex-serve": serve}
    began = time.time()
    with Prometheus(scrape_config(jobs, rules=[_at_once(folder)]), folder) as prometheus:
        prometheus.wait_for_targets()
        yield Scene(prometheus, began)


def _at_once(folder: Path) -> Path:
    """The recording rules, all evaluated as often as there are scrapes: the first look at hours is not minutes away."""
    groups = [{name: value for name, value in group.items() if name != "interval"} for group in load(RULES)["groups"]]
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    return path


def _fill(workers: Workers, log: Log, topic: str) -> None:
    """Some documents, and a vector index: it is built when all is caught up, and by the worker that is there first."""
    for number in range(100):
        log.post(topic, {"id": f"first/{number}", "text": f"The text of number {number}."})
    until(lambda: workers.rows(INDEXES) == [("embedding_1_hnsw", True)], timeout=PATIENCE, what="the vector index")


def _happen(scene: Scene, workers: Workers, config: Path, second: Process, spared: str) -> None:
    """One thing after the other, each seen by Prometheus before the next."""
    seen = scene.prometheus.wait_for
    seen("livedex_dead_letters_open > 0", timeout=PATIENCE)
    seen("max(livedex_index_recall) > 0", timeout=PATIENCE)
    _restart(workers, config, second)
    seen(f"max(process_start_time_seconds) > {scene.began}", timeout=PATIENCE)
    until(lambda: _cut(workers, scene, spared), timeout=PATIENCE, what="batches that lost their connection")
    seen("livedex_canary_seconds_count > 0", timeout=PATIENCE)


def _take_away_unreadable(workers: Workers, log: Log, topic: str) -> None:
    """What one worker's encoder cannot read, and the other's could: a text of which a new generation would fail."""
    log.flush()
    ends = {record.place.partition: record.place.offset + 1 for record in log.records(topic)}
    workers.caught_up(topic, ends, timeout=PATIENCE)  # else some are still to come
    unreadable = "select document_id from livedex.document where document_id like 'unreadable/%' and not deleted"
    for (name,) in workers.rows(unreadable):
        log.post(topic, {"id": name, "op": "delete"})
    log.flush()
    until(lambda: not workers.rows(unreadable), timeout=PATIENCE, what="the deletion of what is unreadable")


def _change_the_model(scene: Scene, workers: Workers, topic: str) -> None:
    """Another generation is built beside the one that is searched, and switched to."""
    seen = scene.prometheus.wait_for
    workers.apply(workers.config(topic, model="hash-64", document_prompt="passage: "))
    seen("livedex_generation_built_ratio", timeout=PATIENCE)
    until(lambda: _switched(workers), timeout=PATIENCE, what="another generation")
    for job in ("livedex-index", "livedex-serve"):
        seen(f'changes(livedex_active_generation{{job="{job}"}}[5m]) > 0', timeout=PATIENCE)


def _restart(workers: Workers, config: Path, second: Process) -> None:
    """The same address, another process."""
    assert second.stop() == 0
    _started(workers, "index", config, address=second.address, LIVEDEX_METRICS_PORT=second.address.rpartition(":")[2])


def _started(workers: Workers, command: str, config: Path, *, address: str | None = None, **environment: str) -> Process:
    process = workers.start(command, config, wait=False, **environment)
    process.address = address or process.address
    until(process.ready, timeout=PATIENCE, what=f"livedex {command} to be ready")
    return process


def _cut(workers: Workers, scene: Scene, spared: str) -> bool:
    """The sessions of all but one worker, which does the upkeep, end; whether that hit batches, as Prometheus saw."""
    workers.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and not starts_with(application_name, %s)",
        spared,
    )
    return bool(scene.prometheus.query('livedex_retries_total{dependency="postgres"} > 0'))


def _switched(workers: Workers) -> bool:
    """Whether the new generation is ready and was switched to."""
    with workers.connect() as connection:
        (number,) = connection.execute("select max(generation_id) from livedex.generation").fetchone() or (0,)
        try:
            generations.check_ready(connection, "default", number)
            generations.switch(connection, "default", number)
        except ConfigError:
            return False
    return True
