"""What Kafka says of topics, and which of its clients' options are not the operator's."""

from typing import Any

import pytest
from kafka import KafkaConsumer

from livedex.config import KafkaSettings
from livedex.core.continuity import Topic
from livedex.errors import ConfigError, UnavailableError
from livedex.kafka import PROTECTED, open_client, tell_topics, topics_of

HERE = {"name": "here", "error_code": 0, "topic_id": "id", "partitions": [0, 1]}


class Admin:
    """Answers as an admin client does."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = answers

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        """See KafkaAdminClient."""
        assert names == [answer["name"] for answer in self._answers]
        return list(self._answers)


def asked(*answers: dict[str, Any]) -> dict[str, Topic]:
    """What is made of these answers."""
    admin: Any = Admin(*answers)
    return topics_of(admin, [answer["name"] for answer in answers])


def test_topics_are_told_with_identity_and_size() -> None:
    """A topic that Kafka does not know is left out."""
    gone = {"name": "gone", "error_code": 3, "topic_id": None, "partitions": []}
    assert asked(HERE, gone) == {"here": Topic(topic_id="id", partitions=2)}


def test_each_topic_is_told_apart() -> None:
    """One that may not be seen hides no other."""
    hidden = {"name": "hidden", "error_code": 29, "topic_id": None, "partitions": []}
    admin: Any = Admin(hidden, HERE)
    told = tell_topics(admin, ["hidden", "here"])
    assert told["here"] == Topic(topic_id="id", partitions=2)
    assert isinstance(told["hidden"], UnavailableError)


@pytest.mark.parametrize(
    ("code", "partitions", "why"),
    [(29, [], "TopicAuthorizationFailedError"), (5, [], "LeaderNotAvailableError"), (0, [], "names no partitions")],
)
def test_another_answer_is_no_answer(code: int, partitions: list[int], why: str) -> None:
    """A topic that may not be seen for a while still exists: nobody is told to make it anew."""
    answer = {"name": "hidden", "error_code": code, "topic_id": None, "partitions": partitions}
    with pytest.raises(UnavailableError, match=f"kafka does not describe topic hidden: .*{why}"):
        asked(HERE, answer)


@pytest.mark.parametrize("option", sorted(PROTECTED))
def test_options_that_exactness_depends_on_are_refused(option: str) -> None:
    """Before anything is connected, by name."""
    settings = KafkaSettings(client={option: "anything"})
    with pytest.raises(ConfigError, match=f"the setting kafka.client sets {option}, on which exactness depends: remove it"):
        open_client(KafkaConsumer, settings, "test")
