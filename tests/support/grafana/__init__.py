"""The dashboards' files as Grafana reads them: panels, variables, annotations and their queries; and Grafana's own types."""
