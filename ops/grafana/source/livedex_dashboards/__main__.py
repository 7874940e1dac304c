"""Writes ops/grafana/dashboards: `make dashboards`."""

from livedex_dashboards.boards import write

for path in write():
    print(path)  # noqa: T201
