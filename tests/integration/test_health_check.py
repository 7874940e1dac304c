"""ops/docker/healthy.py, the HEALTHCHECK of the image, beside real workers."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.kafka import Log
from support.workers import Workers, free_port

SCRIPT = Path(__file__).parents[2] / "ops" / "docker" / "healthy.py"


def healthy(*arguments: str, **environment: str) -> bool:
    """What the check says: it prints nothing, and ends with 0 or 1."""
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode in (0, 1)
    return done.returncode == 0


@pytest.mark.parametrize(("command", "setting"), [("index", "LIVEDEX_METRICS_PORT"), ("serve", "LIVEDEX_HTTP_PORT")])
def test_a_worker_is_healthy_while_it_lives(workers: Workers, log: Log, command: str, setting: str) -> None:
    """Wherever it listens, whatever proxy is set; once it has ended it is not."""
    config = workers.config(log.topic())
    workers.apply(config)
    worker = workers.start(command, config)
    other = {"LIVEDEX_METRICS_PORT", "LIVEDEX_HTTP_PORT"} - {setting}
    environment = {setting: str(urlsplit(worker.address).port), **{name: str(free_port()) for name in other}}
    environment["http_proxy"] = f"http://127.0.0.1:{free_port()}"
    assert healthy(**environment)
    assert worker.stop() == 0
    assert not healthy(**environment)


def test_workers_do_not_vouch_for_each_other(workers: Workers, log: Log) -> None:
    """Asked for one port, it tells nothing of the worker at another, as two have that share a network."""
    config = workers.config(log.topic())
    workers.apply(config)
    alive = str(urlsplit(workers.start("serve", config).address).port)
    dead = str(free_port())
    environment = {"LIVEDEX_HTTP_PORT": alive, "LIVEDEX_METRICS_PORT": dead}
    assert healthy(**environment)
    assert healthy(alive, **environment)
    assert not healthy(dead, **environment)
