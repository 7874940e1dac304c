"""A query worker with its page, an index worker, and a small collection that came through Kafka."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses
from livedex.index.app import IndexApp
from livedex.query.active import OpenEncoder
from livedex.query.app import QueryApp
from support.database import fresh_database
from support.encoders import MARK, open_failing
from support.kafka import Log
from support.workers import Workers

OPERATOR, READER = "operator-0123456789abcdef", "reader-0123456789abcdef"
TOKENS = f"""
[tokens.operations]
token = "{OPERATOR}"
collections = ["*"]
operator = true

[tokens.website]
token = "{READER}"
collections = ["default"]
"""

MANUAL = {
    "account/reset-password": (
        "Reset a password",
        "account",
        (
            "To reset your password, open the sign-in page and choose Forgot password. We send a link to your address; it "
            "works once and for thirty minutes. If no mail arrives, look among the spam, or ask whoever administers your "
            "account to send it again."
        ),
    ),
    "account/two-factor": (
        "Sign in with a second factor",
        "account",
        (
            "A second factor keeps an account safe when its password is known to somebody else. Turn it on under "
            "Security, scan the code with an authenticator, and keep the recovery codes where you would keep a spare key."
        ),
    ),
    "account/locked": (
        "Why an account is locked",
        "account",
        (
            "After ten wrong passwords in a row an account is locked for a quarter of an hour. An administrator can "
            "unlock it at once. Resetting the password unlocks it, too."
        ),
    ),
    "billing/refunds": (
        "Refunds",
        "billing",
        (
            "A refund goes back to the card that paid and takes three to five working days. Yearly plans are refunded for "
            "the months that are left; the month that has begun is not."
        ),
    ),
    "billing/invoices": (
        "Where invoices are",
        "billing",
        (
            "Every invoice is under Billing, as a PDF and as a line of CSV. Whoever may see invoices gets each new one by "
            "mail on the first of the month."
        ),
    ),
    "billing/change-plan": (
        "Change the plan",
        "billing",
        (
            "A larger plan begins at once and costs the difference for the days that are left. A smaller one begins with "
            "the next month, so that nothing that you use disappears today."
        ),
    ),
    "deliveries/late": (
        "A parcel that is late",
        "shipping",
        (
            "When a parcel has not moved for two days, the carrier looks for it by itself. After five days we send "
            "another one and do not wait for the first. You need not write to us; the order says what happens."
        ),
    ),
    "deliveries/address": (
        "Change the address of an order",
        "shipping",
        (
            "Until the parcel leaves the house its address can be changed in the order. Afterwards only the carrier can "
            "do it, with the number that came by mail."
        ),
    ),
    "api/tokens": (
        "Tokens for the interface",
        "developers",
        (
            "A program shows a token with each request. Make one for each program, give it no more than it needs, and "
            "replace it when somebody leaves. A token that was revoked stops within a second."
        ),
    ),
    "api/limits": (
        "Limits of the interface",
        "developers",
        (
            "A token may ask a hundred times a minute. Beyond it the answer is 429 and says when to ask again. Reading a "
            "list page by page counts once for each page."
        ),
    ),
    "privacy/export": (
        "Take your data with you",
        "account",
        (
            "Everything that we keep about you can be exported as JSON: profile, orders, messages. The export is ready "
            "within an hour and is deleted from our side after a week."
        ),
    ),
    "status/incidents": (
        "What happens when something is down",
        "operations",
        (
            "Incidents are announced on the status page within five minutes, with what is affected and when we will say "
            "more. Afterwards we write down what went wrong and what we changed."
        ),
    ),
}


def event(name: str, **more: Any) -> dict[str, Any]:
    """A page of the manual as an event."""
    title, team, text = MANUAL[name]
    return {"id": name, "title": title, "text": text, "metadata": {"team": team, "lang": "en"}, **more}


@dataclass(slots=True)
class Site:
    """Two workers in threads of this process, their topic and their database."""

    address: str
    workers: Workers
    log: Log
    topic: str
    config: Path
    app: QueryApp
    _embedder: str = "hash"
    _end: int = 0

    def send(self, *events: dict[str, Any] | bytes, key: str | None = None) -> None:
        """Send these."""
        for each in events:
            named = isinstance(each, dict) and "id" in each
            self._end = self.log.send(self.topic, each, key=None if named else key).offset + 1

    def caught_up(self) -> None:
        """Wait until all that was sent is applied."""
        self.workers.caught_up(self.topic, {0: self._end})

    def take(self, *events: dict[str, Any] | bytes, key: str | None = None) -> None:
        """Send these, and wait until they are applied by the index worker that runs."""
        self.send(*events, key=key)
        self.caught_up()

    @contextmanager
    def indexing(self) -> Iterator[None]:
        """With an index worker, which cannot embed marked texts where the encoder is that of tests."""
        opener: Any = open_failing if self._embedder == "hash" else None
        with self.workers.in_thread(IndexApp(self.workers.settings(self.config, embedder=self._embedder), open_encoder=opener)):
            yield


@contextmanager
def site(
    stack: Addresses, template: str, folder: Path, *, tokens: bool = True, embedder: str = "hash",
    open_encoder: OpenEncoder | None = None, **settings: Any,
) -> Iterator[Site]:  # fmt: skip
    """The manual is indexed; no index worker runs any more."""
    if tokens:
        settings["api_tokens_file"] = folder / "tokens.toml"
        settings["api_tokens_file"].write_text(TOKENS)
        settings["api_tokens_file"].chmod(0o600)
    kafka = KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)
    with (
        fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers, Log(kafka) as log,
    ):  # fmt: skip
        topic = log.topic()
        if embedder == "hash":
            config = workers.config(topic, model="hash-16", reranker="words")
            workers.apply(config)
        else:
            config = workers.config(topic)
            workers.apply(config, LIVEDEX_EMBEDDER=embedder)
        app = QueryApp(workers.settings(config, embedder=embedder, **settings), open_encoder=open_encoder)
        made = Site("", workers, log, topic, config, app, embedder)
        with made.indexing():
            made.take(*map(event, MANUAL))
        with workers.in_thread(app) as address:
            made.address = address
            yield made


def unreadable(name: str, words: str = "") -> dict[str, Any]:
    """An event whose text the index worker cannot embed, and the query worker can."""
    return {"id": name, "title": name, "text": f"{MARK}. {words}", "metadata": {}}
