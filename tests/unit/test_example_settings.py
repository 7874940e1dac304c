"""ops/livedex.example.toml is the settings' reference: complete, and true to the code."""

import re
from pathlib import Path

from livedex import config
from livedex.config import CollectionSettings, KafkaSettings, Settings, SourceSettings

EXAMPLE = Path(__file__).parents[2] / "ops" / "livedex.example.toml"


def test_example_says_the_defaults() -> None:
    """Loading the example gives what no file at all gives."""
    assert config.load(EXAMPLE) == config.load()


def test_example_names_every_setting_with_a_comment() -> None:
    """Each setting stands there, those without a default commented out, and the line before says what it is."""
    lines = EXAMPLE.read_text().splitlines()
    for section in (KafkaSettings, CollectionSettings, SourceSettings):
        _assert_named(set(section.model_fields) - {"collection"}, lines)
    _assert_named(set(Settings.model_fields) - {"kafka", "collections", "sources"}, lines)


def _assert_named(names: set[str], lines: list[str]) -> None:
    for name in names:
        places = [number for number, line in enumerate(lines) if re.match(rf"(# )?{name} = ", line)]
        assert places, f"{name} is not in {EXAMPLE.name}"
        assert all(lines[place - 1].startswith("# ") for place in places), f"{name} has no comment before it"


def test_settings_that_are_commented_out_would_be_taken(tmp_path: Path) -> None:
    """Whoever removes the comment sign of a setting gets a file that loads."""
    settings = re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE.read_text())
    changed = tmp_path / "livedex.toml"
    changed.write_text(settings)
    assert config.load(changed).api_tokens_file == Path("tokens.toml")
