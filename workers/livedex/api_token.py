"""The token that shows a query worker who asks."""

import re
from pathlib import Path

from livedex.errors import ConfigError


def read_token(path: Path | None) -> str | None:
    """The token in a file of one line; None without a file. ConfigError names the file, never what it has."""
    if path is None:
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be read: {error.strerror}; check LIVEDEX_API_TOKEN_FILE") from None
    except UnicodeDecodeError:
        token = ""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(f"the token file {path} does not have one token on one line: check LIVEDEX_API_TOKEN_FILE")
    return token
