"""What the suite reports: figures, each with its unit, its aim and whether that is met."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A line of the report. Without an aim it is there to be read beside the others."""

    part: str
    name: str
    value: float
    unit: str = ""
    aim: float | None = None
    better: Literal["more", "less"] = "more"
    detail: str = ""  # what the figure is made of
    share: float = 1.0  # of the events and repetitions of a whole run

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.better == "more" else self.value <= self.aim

    @property
    def verdict(self) -> str:
        """For people."""
        return {None: "", True: "met", False: "missed"}[self.met]

    @property
    def made_of(self) -> str:
        """The detail, which says where it is less than a whole run."""
        return self.detail if self.share == 1 else f"{self.detail}; {self.share:.0%} of a whole run".removeprefix("; ")

    @property
    def measured(self) -> str:
        """The value with its unit."""
        return f"{shown(self.value)}{_joint(self.unit)}{self.unit}"

    @property
    def wanted(self) -> str:
        """The aim with its unit; empty for none."""
        if self.aim is None:
            return ""
        return f"at {'least' if self.better == 'more' else 'most'} {shown(self.aim)}{_joint(self.unit)}{self.unit}"

    @property
    def score(self) -> float | None:
        """How much better than the aim, above 1 is met; None where that is no number."""
        if self.aim is None or not self.aim or not self.value:
            return None
        return self.value / self.aim if self.better == "more" else self.aim / self.value


def shown(value: float) -> str:
    """Three digits, and no more where the number is whole."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if 0.99 < abs(value) < 1:
        return f"{value:.6f}".rstrip("0")
    return f"{value:.3g}"


def _joint(unit: str) -> str:
    return "" if unit in ("", "x", "%") else " "


def quantile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
