"""A fault that only the canary of an index worker sees reaches the pager, and ends with it: real workers, a real Prometheus and
a real Alertmanager, all of whose times are divided by FASTER, as in test_alerts.py.
"""

import signal
from contextlib import ExitStack
from typing import Any

import pytest

from support.alarms import FASTER, SLACK, alarms
from support.kafka import Log
from support.waiting import until
from support.workers import Workers

pytestmark = pytest.mark.accept

OWN: dict[str, Any] = {
    "LIVEDEX_CANARY_EVERY": "1s",
    "LIVEDEX_CANARY_TIMEOUT": "2s",
}  # seconds that the rules divide are a minute of theirs
AFTER = 10 * 60 / FASTER + SLACK  # seconds in which all that wakes somebody must be over


def test_the_canary_pages_for_what_no_other_alert_tells(workers: Workers, log: Log) -> None:
    """One of two query workers hangs, behind which the canary's users are: the other one is well, so no page names a cause.
    The canary pages, of its topic, and no more once the worker goes on; no objective's alert has anything of its documents.
    """
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    serves = [workers.start("serve", config) for _ in range(2)]
    index = workers.start("index", config, LIVEDEX_CANARY_URL=serves[0].address, **OWN)
    found = "livedex_canary_runs_total"
    until(lambda: index.metrics().value(found, outcome="found") > 3, timeout=60, what="canaries to be found")
    targets = {"livedex-index": [index.address], "livedex-serve": [each.address for each in serves]}
    with ExitStack() as held, alarms(workers.folder, targets) as pager:
        held.callback(serves[0].popen.send_signal, signal.SIGCONT)
        pager.calm()
        serves[0].popen.send_signal(signal.SIGSTOP)
        pager.fire({"LivedexWorkerDown": 3.0, "LivedexCanaryFailing": 7.0})
        (notice,) = [each for each in pager.webhook.of("firing") if each.name == "LivedexCanaryFailing"]
        assert (notice.labels["topic"], notice.labels["job"], notice.path) == (topic, "livedex-index", "/page")
        serves[0].popen.send_signal(signal.SIGCONT)
        pager.healed()
        gone = {"LivedexWorkerDown", "LivedexCanaryFailing"}
        until(lambda: not gone & pager.webhook.firing(), timeout=AFTER, what="the alerts to resolve")
        new = {each.name for each in pager.webhook.of("firing")} - gone
        assert new <= {"LivedexCanaryUnreliable"}, "a ticket may stay for what failed"
        assert index.metrics().value("livedex_freshness_seconds_count") == 0
