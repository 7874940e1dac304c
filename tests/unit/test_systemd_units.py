"""ops/systemd: units that systemd itself finds valid and well locked up."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livedex.config import PREFIX, Settings
from livedex.lifecycle import GRACE
from support.deploy import tools

FOLDER = Path(__file__).parents[2] / "ops" / "systemd"
UNITS = ("livedex-index@.service", "livedex-serve.service")
EXPOSURE = 15  # tenths, of 100; what systemd rates as well protected ends at 20
# of those that others imply, such as ProtectSystem by DynamicUser, none
HARDENING = (
    ("DynamicUser=yes", "User=livedex"),
    ("PrivateDevices=yes",),
    ("CapabilityBoundingSet=",),
    ("SystemCallFilter=@system-service",),
)


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """What systemd-analyze says."""
    if not shutil.which("systemd-analyze"):
        tools.absent("systemd-analyze is not installed: apt install systemd")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def installed(unit: str, folder: Path) -> Path:
    """The unit as it is on a machine where its program exists."""
    path = folder / unit.replace("@", "@1")
    path.write_text((FOLDER / unit).read_text().replace("/opt/livedex/bin/livedex", sys.executable))
    return path


def settings(unit: str) -> dict[str, list[str]]:
    """The values of each name of [Service], in order."""
    found: dict[str, list[str]] = {}
    lines = (FOLDER / unit).read_text().partition("[Service]")[2].partition("[Install]")[0].splitlines()
    for line in lines:
        name, given, value = line.partition("=")
        if given and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_it(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    done = analyze("verify", "--man=no", str(installed(unit, tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS)
def test_a_service_is_locked_up(unit: str) -> None:
    """Its exposure is low by systemd's own measure."""
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(FOLDER / unit))
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("lines", HARDENING, ids=" ".join)
def test_the_measure_notices_what_is_taken_away(lines: tuple[str, ...], tmp_path: Path) -> None:
    """Without any one of these a unit is no longer below the threshold, or is less protected than before."""
    kept = (FOLDER / UNITS[1]).read_text().splitlines()
    assert set(lines) <= set(kept)
    opened = tmp_path / UNITS[1]
    opened.write_text("\n".join(line for line in kept if line not in lines))
    assert _exposure(opened) > _exposure(FOLDER / UNITS[1])


def _exposure(path: Path) -> float:
    done = analyze("security", "--offline=true", "--no-pager", str(path))
    return float(done.stdout.partition("Overall exposure level for")[2].partition(": ")[2].split()[0])


@pytest.mark.parametrize("unit", UNITS)
def test_a_worker_is_given_time_to_end(unit: str) -> None:
    """It is killed no sooner than it has ended by itself, and started again whatever it ended with."""
    found = settings(unit)
    assert float(found["TimeoutStopSec"][0]) > max(10, GRACE)
    assert found["Restart"] == ["always"]


@pytest.mark.parametrize("unit", UNITS)
def test_it_sets_what_livedex_knows(unit: str) -> None:
    """Each LIVEDEX variable is one of the settings, and no secret is among them."""
    assigned = " ".join(settings(unit)["Environment"]).split()
    names = {one.partition("=")[0].removeprefix(PREFIX).lower() for one in assigned if one.startswith(PREFIX)}
    assert names - {"config"} <= set(Settings.model_fields)
    assert "database_url" not in names


def test_who_shares_a_cache_is_the_same_user() -> None:
    """All units have one cache folder and one dynamic user, by name: else each start would give the folder to another one."""
    for unit in map(settings, UNITS):
        assert unit["CacheDirectory"] == ["livedex"]
        assert (unit["DynamicUser"], unit["User"]) == (["yes"], ["livedex"])


def test_both_are_locked_up_alike() -> None:
    """What one unit denies, the other does."""
    index, serve = map(settings, UNITS)
    own = {"ExecStart", "EnvironmentFile"}
    assert {name: value for name, value in index.items() if name not in own} == {
        name: value for name, value in serve.items() if name not in own
    }
