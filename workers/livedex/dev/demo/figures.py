"""Numbers out of a worker's /metrics: series by name and labels, differences, and quantiles of histograms."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, frozenset[tuple[str, str]]]  # name, labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The samples of one scrape, or of what happened between two."""

    samples: Counter[Series] = field(default_factory=Counter)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From Prometheus' text format."""
        samples: Counter[Series] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name, frozenset(sample.labels.items())] = sample.value  # type: ignore[assignment] # a float
        return cls(samples=samples)

    def since(self, earlier: "Figures") -> "Figures":
        """What was counted after an earlier scrape of the same worker."""
        return Figures(samples=Counter({key: value - earlier.samples[key] for key, value in self.samples.items()}))

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels; 0 when there is none."""
        return float(sum(value for (found, has), value in self.samples.items() if found == name and labels.items() <= set(has)))

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums of the series that count something, by the value of a label."""
        values = sorted({dict(has)[label] for found, has in self.samples if found == name and label in dict(has)})
        sums = {value: self.total(name, **{label: value}) for value in values}
        return {value: total for value, total in sums.items() if total}

    def quantile(self, share: float, histogram: str, **labels: str) -> float | None:
        """The value that this share of the observations does not exceed, as Prometheus estimates it: in its bucket, by a
        straight line. None without observations; the last finite edge when it lies beyond.
        """
        edges = sorted((float(edge), count) for edge, count in self._cumulative(histogram, labels).items())
        wanted = share * edges[-1][1] if edges else 0
        lower, below = 0.0, 0.0
        for edge, count in edges:
            if count >= wanted > 0:
                return lower if edge == float("inf") else lower + (edge - lower) * (wanted - below) / (count - below)
            lower, below = edge, count
        return None

    def _cumulative(self, histogram: str, labels: dict[str, str]) -> dict[str, float]:
        name = f"{histogram}_bucket"
        edges = {dict(has)["le"] for found, has in self.samples if found == name and labels.items() <= set(has)}
        return {edge: self.total(name, le=edge, **labels) for edge in edges}
