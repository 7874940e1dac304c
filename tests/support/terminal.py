"""Runs commands inside this process, where starting one as a process would take most of a test's time."""

import sys
from dataclasses import dataclass

import pytest

from livedex import cli


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """Runs commands in this process, in an environment of their own."""

    environment: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, **environment: str) -> Done:
        """Run `livedex` with these arguments."""
        with self.monkeypatch.context() as patch:
            for name, value in {**self.environment, **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["livedex", *arguments])
            self.captured.readouterr()
            with pytest.raises(SystemExit) as exited:
                cli.main()
        out, err = self.captured.readouterr()
        assert "Traceback" not in err
        return Done(int(exited.value.code or 0), out, err)
