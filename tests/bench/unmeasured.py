"""livedex with metrics that do nothing: what the real ones cost is the difference."""

from typing import Any, Self

from livedex import observe


class Nothing:
    """A counter, gauge or histogram that keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def labels(self, *_: Any, **__: Any) -> Self:
        """Itself, for every series."""
        return self

    def _ignored(self, *_: Any, **__: Any) -> None: ...

    inc = dec = set = observe = clear = remove = set_to_current_time = _ignored


def main() -> None:
    """The command line of livedex."""
    for kind in ("Counter", "Gauge", "Histogram"):
        setattr(observe, kind, Nothing)
    from livedex.cli import main as run

    run()


if __name__ == "__main__":
    main()
