"""The charts of a report."""

from harness.report.charts.sizes import changes, charts, levels

__all__ = ["changes", "charts", "levels"]
