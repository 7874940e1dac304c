"""What a worker shows to whoever may look: its log, its HTTP answers, and what every user of the machine sees of it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx

from support.workers import Process

QUESTION = "what-somebody-looks-for-10"
SEARCH = f"/v1/search?q={QUESTION}"
ROUTES = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/status", SEARCH, "/v1/search?q=", "/nothing")


def surfaces(worker: Process, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """Each by its name."""
    found = {"log": worker.log()}
    pid = worker.popen.pid
    for name in ("cmdline", "comm", "status"):
        found[name] = Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    found["threads"] = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/comm"))
    for route in ROUTES:
        answer = httpx.get(f"{worker.address}{route}", headers=headers, timeout=20, trust_env=False)
        found[route] = f"{answer.headers} {answer.text}"
    return found


def assert_none(shown: Mapping[str, str], secrets: Iterable[str]) -> None:
    """No secret is anywhere."""
    for name, text in shown.items():
        for secret in secrets:
            assert secret not in text, f"{name} shows {secret}"
