"""Files with secrets that all may read."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from livedex.config import KafkaSettings, Settings
from livedex.kafka_security import SECRET_FILES
from livedex.secret_files import warn_of_all

FIELDS = ("embedder_token_file", "api_token_file", "wire_password_file", "wire_key_file")
IN_KAFKA = (*SECRET_FILES, "ssl_keyfile")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With a file for each secret that can be in one, which nobody else may read; and one that is not there."""
    paths = {name: tmp_path / name for name in (*FIELDS, *IN_KAFKA)}
    for path in paths.values():
        path.write_text("secret-of-a-file")
        path.chmod(0o640)
    client = {name: str(paths[name]) for name in IN_KAFKA} | {"ssl_certfile": str(tmp_path), "sasl_plain_username": "livedex"}
    return Settings(kafka=KafkaSettings(client=client), **{name: paths[name] for name in FIELDS})  # type: ignore[arg-type]


def test_private_files_are_nothing_to_tell(settings: Settings) -> None:
    """Those that a group may read are private, and one that is not there is told by who needs it."""
    with capture_logs() as lines:
        warn_of_all(settings)
        warn_of_all(settings.model_copy(update={"api_token_file": Path("/nowhere")}))
        warn_of_all(Settings())
    assert lines == []


@pytest.mark.parametrize("name", [*FIELDS, *IN_KAFKA])
def test_a_file_that_all_may_read_is_warned_of(name: str, settings: Settings, tmp_path: Path) -> None:
    """With its setting, its place and the command that mends it; nothing of what it has."""
    (tmp_path / name).chmod(0o644)
    with capture_logs() as lines:
        warn_of_all(settings)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("secrets.readable_by_all", "warning")
    assert line["setting"] == (f"LIVEDEX_{name.upper()}" if name in FIELDS else f"kafka.client.{name}")
    assert line["remedy"] == f"chmod o-rwx {tmp_path / name}"
    assert "secret-of-a-file" not in str(lines)
