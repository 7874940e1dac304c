"""The plot: for each figure with an aim, how far it is beyond it, and how much faster livedex is than the other pipelines."""

from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure

MET, MISSED = "#2a7f62", "#b4432f"
TICKS = (0.5, 1, 2, 4, 8)


def plot(figures: Sequence[Figure], file: Path) -> None:
    """One bar a figure, on a logarithmic scale on which the aim of each is 1; SVG, the same bytes for the same figures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    mpl.rcParams.update({"svg.hashsalt": "livedex", "svg.fonttype": "none", "font.family": "sans-serif"})
    bars = [(figure, figure.score) for figure in reversed(figures) if figure.score is not None]
    if not bars:
        return
    canvas = Canvas(figsize=(10, 0.8 + 0.3 * len(bars)), layout="constrained")
    axes = canvas.subplots()
    scores = [score for _, score in bars if score is not None]
    axes.barh(
        [figure.name for figure, _ in bars], [score - 1 for score in scores], left=1,
        color=[MET if figure.met else MISSED for figure, _ in bars],
    )  # fmt: skip
    for row, (figure, score) in enumerate(bars):
        assert score is not None
        axes.annotate(
            f"{figure.measured} ({figure.wanted})", (max(score, 1.0), row), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *scores), max(2.0, *scores) * 5)
    axes.set_xticks(TICKS, labels=[f"{tick:g}x" for tick in TICKS])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("measured against the aim (1 = just met, further right is better)")
    canvas.savefig(file, format="svg", metadata={"Date": None})
