"""The rules and configurations of ops/prometheus at work: real servers that scrape real workers, and what reaches the pager.

All durations of rules and routes are divided by FASTER, see `support.rules.faster`; nothing else is changed.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from support import rules
from support.prometheus import Alertmanager, Notice, Prometheus, Webhook
from support.rules import PROMETHEUS, RULES
from support.waiting import until

FASTER = 15.0  # so that fifteen seconds between two scrapes are one
SLACK = 10.0  # seconds that a busy machine may take longer
CALM = 10.0  # seconds for which nothing is pending before a fault
SLOW_TO_RESOLVE = {"6x", "1x"}  # burn rates whose short windows are half an hour and six hours
SEARCHES_A_SECOND = 3


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert that reached the receiver."""

    name: str
    route: str  # page, ticket
    after: float  # seconds from the fault, or from its end

    @property
    def told(self) -> str:
        """For the table of the documentation: measured, and what that is when nothing is faster."""
        return f"{self.name} ({self.route}) {self.after:.0f} s, so {self.after * FASTER / 60:.1f} min"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The end of all alerts of a fault."""

    after: float  # seconds from the healing
    new: Sequence[str]  # alerts that came only then

    @property
    def told(self) -> str:
        """For the same table."""
        new = ", ".join(self.new)
        return f"{self.after:.0f} s, so {self.after * FASTER / 60:.1f} min{', with ' + new if new else ''}"


class Alarms:
    """What fires, beside one scenario."""

    def __init__(self, prometheus: Prometheus, webhook: Webhook) -> None:
        self.prometheus = prometheus
        self.webhook = webhook
        self._began = self._healed = time.monotonic()

    def calm(self, *, timeout: float = 120.0) -> None:
        """Wait until nothing was pending or firing for a while: workers that begin may be late, and searches slow. What fired
        meanwhile is forgotten, so the fault must begin now.
        """
        noisy = time.monotonic()

        def quiet() -> bool:
            nonlocal noisy
            if self._lasting() or any(each["labels"].get("burn") not in SLOW_TO_RESOLVE for each in self.prometheus.alerts()):
                noisy = time.monotonic()
            return time.monotonic() - noisy > CALM

        self._until(quiet, timeout=timeout, what="nothing to fire")
        self.webhook.notices.clear()
        self._began = time.monotonic()

    def fire(self, expected: Mapping[str, float], *, hold: float = 0.0) -> list[Raised]:
        """Wait for these alerts, each within so many minutes of ordinary time, and `hold` the fault for so many seconds in all:
        there must be no other.
        """
        limit = max(expected.values()) * 60 / FASTER + SLACK
        self._until(lambda: expected.keys() <= self._seen(self._began), timeout=limit, what=f"{set(expected)} to fire")
        left = self._began + hold - time.monotonic()
        with suppress(AssertionError):
            until(lambda: not self._seen(self._began) <= expected.keys(), timeout=max(left, 3.0), what="another one")
        raised = self._raised(self._began)
        assert {each.name for each in raised} == expected.keys(), f"exactly {set(expected)} must fire: {self}"
        for each in raised:
            assert each.after <= expected[each.name] * 60 / FASTER + SLACK, f"{each} came late"
        return raised

    def healed(self) -> None:
        """The fault ends now."""
        self._healed = time.monotonic()

    def resolve(self, *, minutes: float, aftermath: frozenset[str] = frozenset()) -> Resolved:
        """Wait until everything is resolved, within so many minutes of ordinary time. Of what fires after the healing, only the
        `aftermath` may be new.
        """
        before = {notice.name for notice in self.webhook.of("firing") if notice.came < self._healed}
        self._until(lambda: not self._lasting(), timeout=minutes * 60 / FASTER + SLACK, what="all to resolve")
        late = self._seen(self._healed) - before
        assert late <= aftermath, f"after the healing came {late}: {self}"
        ends = [each.came for each in self.webhook.of("resolved") if each.labels.get("burn") not in SLOW_TO_RESOLVE]
        return Resolved(max(ends) - self._healed, sorted(late))

    def _until(self, condition: Callable[[], bool], *, timeout: float, what: str) -> None:
        try:
            until(condition, timeout=timeout, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self}") from None

    def __str__(self) -> str:
        state = {(alert["labels"]["alertname"], alert["state"]) for alert in self.prometheus.alerts()}
        return f"notices {self._raised(self._began)}, in Prometheus {sorted(state)}"

    def _lasting(self) -> list[Notice]:
        """What fires, of all but the burn rates that look back for long."""
        last = {tuple(sorted(notice.labels.items())): notice for notice in list(self.webhook.notices)}
        return [
            notice for notice in last.values() if notice.status == "firing" and notice.labels.get("burn") not in SLOW_TO_RESOLVE
        ]

    def _seen(self, since: float) -> set[str]:
        return {notice.name for notice in self.webhook.of("firing", since=since)}

    def _raised(self, since: float) -> list[Raised]:
        first: dict[str, Notice] = {}
        for notice in self.webhook.of("firing", since=since):
            first.setdefault(notice.name, notice)
        return [Raised(each.name, each.path.strip("/"), each.came - since) for each in first.values()]


@contextmanager
def alarms(folder: Path, targets: Mapping[str, Sequence[str]], *, without: frozenset[str] = frozenset()) -> Iterator[Alarms]:
    """Prometheus and Alertmanager with the examples' configurations, scraping these addresses by job; `without` these rule
    files.
    """
    with Webhook() as webhook, Alertmanager(routes(webhook.url), folder) as manager:
        config = _prometheus(folder, targets, manager.url, without)
        with Prometheus(config, folder) as prometheus:
            prometheus.wait_for_targets()
            yield Alarms(prometheus, webhook)


def routes(url: str) -> dict[str, Any]:
    """The example's configuration of Alertmanager, which sends to a webhook here."""
    config = rules.faster(rules.load(PROMETHEUS / "alertmanager.example.yml"), FASTER)
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = hook["url"].replace("http://localhost:9095", url)
    return config


def _prometheus(folder: Path, targets: Mapping[str, Sequence[str]], manager: str, without: frozenset[str]) -> dict[str, Any]:
    config = rules.faster(rules.load(PROMETHEUS / "prometheus.example.yml"), FASTER)
    config["global"]["scrape_timeout"] = config["global"]["scrape_interval"]  # a busy machine is no dead worker
    assert {job["job_name"] for job in config["scrape_configs"]} == targets.keys()
    for job in config["scrape_configs"]:
        addresses = [address.removeprefix("http://") for address in targets[job["job_name"]]]
        job["static_configs"] = [{"targets": addresses}]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [manager.removeprefix("http://")]}]}]
    config["rule_files"] = []
    for path in RULES:
        if path.name not in without:
            (folder / path.name).write_text(yaml.safe_dump(rules.faster(rules.load(path), FASTER)))
            config["rule_files"].append(str(folder / path.name))
    return config


class Asking:
    """Searches over HTTP, a few a second, whatever is answered. Use it as a context."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        with httpx.Client(base_url=self._address, timeout=10, trust_env=False) as client:
            while not self._stop.wait(1 / SEARCHES_A_SECOND):
                with suppress(httpx.HTTPError):
                    client.post("/v1/search", json={"query": "paragraph", "k": 3})
