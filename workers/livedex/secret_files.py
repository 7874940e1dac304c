"""Files with passwords, tokens and keys that everybody on the machine may read: an operator is told."""

import stat
from collections.abc import Iterator
from pathlib import Path

from livedex.config import PREFIX, Settings
from livedex.observe import logger

# access.py looks after api_tokens_file, which changes
_FIELDS = ("embedder_token_file", "api_token_file", "wire_password_file", "wire_key_file")
_log = logger("secrets")


def warn_of_all(settings: Settings) -> None:
    """Warn of those that the settings name. One that is not there is told by whoever needs it."""
    for setting, path in _named(settings):
        warn_of(path, setting)


def warn_of(path: Path, setting: str) -> None:
    """Warn of this file, with the command that mends it, if all may read it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        _log.warning("secrets.readable_by_all", setting=setting, path=str(path), remedy=f"chmod o-rwx {path}")


def _named(settings: Settings) -> Iterator[tuple[str, Path]]:
    for field in _FIELDS:
        path: Path | None = getattr(settings, field)
        if path is not None:
            yield f"{PREFIX}{field.upper()}", path
    for name, value in settings.kafka.client.items():
        if name.endswith("_password_file") or name == "ssl_keyfile":
            yield f"kafka.client.{name}", Path(str(value))
