"""A real Prometheus and a real Alertmanager on free ports of 127.0.0.1, and a receiver for what the latter sends."""

import json
import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from support.waiting import until
from support.workers import free_port

INTERVAL = "1s"  # between scrapes, and between evaluations of rules
STOPS = 10  # seconds that a server has to end by itself


def program(name: str) -> str:
    """Where a Debian package's program is; skips the test where it is missing, and fails it in continuous integration."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not on the path: apt-get install prometheus prometheus-alertmanager"
        if os.environ.get("CI"):
            raise FileNotFoundError(missing)
        pytest.skip(missing)
    return found


def promtool(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run promtool to its end; the caller looks at the exit code."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def scrape_config(
    jobs: Mapping[str, Sequence[str]], *, rules: Sequence[Path] = (), alertmanager: str | None = None, interval: str = INTERVAL
) -> dict[str, Any]:
    """A configuration that scrapes these addresses (host:port, or http://host:port) by job, and evaluates these rule files."""
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address.removeprefix("http://") for address in addresses]}]}
            for job, addresses in jobs.items()
        ],
    }
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}]}
    return config


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant query's answer."""

    labels: Mapping[str, str]
    value: float
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a range query's answer."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]  # seconds since 1970, value


class QueryError(Exception):
    """Prometheus refused a query; the message is its own."""


@dataclass(slots=True)
class Server:
    """A program of Prometheus that runs as a process, with its output in a file."""

    popen: "subprocess.Popen[bytes]"
    output: Path
    url: str  # http://127.0.0.1:port

    @classmethod
    def start(cls, command: Sequence[str], output: Path, url: str) -> Self:
        """Start it, and wait until it answers that it is ready."""
        with output.open("wb") as stream:
            popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        server = cls(popen, output, url)
        try:
            until(server.ready, timeout=60, what=f"{command[0]} to be ready")
        except BaseException:
            server.stop()
            raise
        return server

    def ready(self) -> bool:
        """Whether it says so; AssertionError with its output when it has ended."""
        assert self.popen.poll() is None, f"{self.output.name} ended with {self.popen.returncode}: {self.log()[-3000:]}"
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def log(self) -> str:
        """What it wrote so far."""
        return self.output.read_text(errors="replace")

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout=STOPS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(timeout=STOPS)


class Prometheus:
    """Use it as a context. `config` is a configuration as a dictionary (see `scrape_config`) or the path of one; data and the
    log are below `folder`. `flags` are further options of the command line.
    """

    def __init__(self, config: Mapping[str, Any] | Path, folder: Path, *, flags: Sequence[str] = ()) -> None:
        self._folder = folder
        self._config = config if isinstance(config, Path) else folder / "prometheus.yml"
        if not isinstance(config, Path):
            self.write(config)
        self._flags = flags

    def __enter__(self) -> Self:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            program("prometheus"), f"--config.file={self._config}", f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={self._folder / 'prometheus-data'}", "--storage.tsdb.retention.time=1d",
            "--rules.alert.for-grace-period=0s", "--rules.alert.resend-delay=3s", "--enable-feature=exemplar-storage",
            "--log.level=warn", *self._flags,
        ]  # fmt: skip
        self.server = Server.start(command, self._folder / "prometheus.log", self.url)
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self.server.stop()

    def write(self, config: Mapping[str, Any]) -> None:
        """Put another configuration in the place of the one of `folder`; see `reload`."""
        self._config.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def reload(self) -> None:
        """Take the configuration and the rules from their files again."""
        before = self.one("prometheus_config_last_reload_success_timestamp_seconds", own=True)
        self.server.popen.send_signal(signal.SIGHUP)
        until(
            lambda: self.one("prometheus_config_last_reload_success_timestamp_seconds", own=True) > before,
            what=f"the configuration to be loaded: {self.server.log()[-2000:]}",
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of the API, /api/v1/`path`; QueryError where it is refused."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise QueryError(f"{path} {parameters}: {answer['error']}")
        return answer["data"]

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        """What an expression answers now, or at a time; a scalar is a sample without labels."""
        data = self.get("query", query=expression, **({} if at is None else {"time": at}))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]), float(data["result"][0]))]
        return [Sample(row["metric"], float(row["value"][1]), float(row["value"][0])) for row in data["result"]]

    def range(self, expression: str, *, seconds: float, step: float = 1.0, until: float | None = None) -> list[Series]:
        """What an expression answered over the last seconds."""
        end = time.time() if until is None else until
        data = self.get("query_range", query=expression, start=end - seconds, end=end, step=step)
        return [Series(row["metric"], [(float(at), float(value)) for at, value in row["values"]]) for row in data["result"]]

    def one(self, expression: str, *, own: bool = False) -> float:
        """The only value of an expression, NaN where there is none; `own`: of Prometheus' own metrics, read directly."""
        if own:
            lines = self._client.get("/metrics").text.splitlines()
            return next((float(line.split()[-1]) for line in lines if line.startswith(f"{expression} ")), math.nan)
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} has {len(found)} series: {found}"
        return found[0].value if found else math.nan

    def wait_for(
        self, expression: str, *, holds: Callable[[float], bool] = lambda _: True, timeout: float = 30
    ) -> list[Sample]:
        """Wait until an expression answers something whose every value passes; the answer."""

        def there() -> list[Sample]:
            found = self.query(expression)
            return found if found and all(holds(sample.value) for sample in found) else []

        return until(there, timeout=timeout, what=f"{expression} to hold")

    def wait_for_targets(self, *, timeout: float = 30) -> None:
        """Wait until every target was scraped and answered."""

        def up() -> bool:
            return all(target["health"] == "up" for target in self.targets())

        until(up, timeout=timeout, what=f"all targets to be up, at last {self.targets()}")

    def targets(self) -> list[dict[str, Any]]:
        """The active targets, as the API has them."""
        targets: list[dict[str, Any]] = self.get("targets", state="active")["activeTargets"]
        return targets

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing, as the API has them."""
        alerts: list[dict[str, Any]] = self.get("alerts")["alerts"]
        return alerts

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health and last error."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


class Alertmanager:
    """Use it as a context; `config` as for `Prometheus`. It talks to no other Alertmanager."""

    def __init__(self, config: Mapping[str, Any] | Path, folder: Path) -> None:
        self._folder = folder
        self._config = config if isinstance(config, Path) else folder / "alertmanager.yml"
        if not isinstance(config, Path):
            self._config.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def __enter__(self) -> Self:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            program("prometheus-alertmanager"), f"--config.file={self._config}", f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.path={self._folder / 'alertmanager-data'}", "--cluster.listen-address=", "--log.level=warn",
        ]  # fmt: skip
        self.server = Server.start(command, self._folder / "alertmanager.log", self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def raise_alerts(self, *labels: Mapping[str, str]) -> None:
        """Have alerts of these labels fire, as Prometheus does it."""
        sent = [{"labels": dict(each)} for each in labels]
        httpx.post(f"{self.url}/api/v2/alerts", json=sent, timeout=10, trust_env=False).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that it has, those that are silenced or inhibited too, as the API has them."""
        answer: list[dict[str, Any]] = httpx.get(f"{self.url}/api/v2/alerts", timeout=10, trust_env=False).json()
        return answer


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert of one notification."""

    path: str  # where it was sent to, so which receiver
    name: str
    status: str  # firing, resolved
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    came: float  # monotonic seconds


@dataclass(slots=True)
class Webhook:
    """Receives notifications of Alertmanager, on any path. Use it as a context."""

    notices: list[Notice] = field(default_factory=list)
    url: str = ""
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        notices = self.notices

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                now = time.monotonic()
                notices.extend(
                    Notice(self.path, alert["labels"]["alertname"], alert["status"], alert["labels"], alert["annotations"], now)
                    for alert in body["alerts"]
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def of(self, status: str, *, since: float = -math.inf) -> list[Notice]:
        """Notices of this status that came since then (monotonic seconds)."""
        return [notice for notice in list(self.notices) if notice.status == status and notice.came >= since]

    def firing(self) -> set[str]:
        """Names of the alerts whose last notice, by labels, says that they fire."""
        last = {tuple(sorted(notice.labels.items())): notice for notice in list(self.notices)}
        return {notice.name for notice in last.values() if notice.status == "firing"}
