"""The Grafana dashboards of livedex, written by code: one module for each, and what they share in panels, frame and queries."""
