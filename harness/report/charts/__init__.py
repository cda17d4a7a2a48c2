"""The charts of a study, a file each. Each mark shows its value, its interval, and the trials behind it as a tooltip.

The name of a chart's file is the name of the chart in `harness report --only` and in the page.
"""

from collections.abc import Sequence

from harness.analysis.chart_data import ChartData
from harness.analysis.slices import Slices
from harness.analysis.study import Study
from harness.report.charts import cpu, differences, latency, order, pairs, ratios, rounds, sizes, stages, symbols
from harness.report.design_styles import DesignStyles
from harness.report.plot import Chart
from harness.results import Trial


def of_study(study: Study, chart_data: ChartData, trials: Sequence[Trial], slices: Slices | None = None) -> list[Chart]:
    """The charts for which the study has data. slices: those of its live blocks, where it has any."""
    styles = DesignStyles(study)
    made = (
        ratios.chart(study, styles),
        differences.chart(study, styles),
        sizes.chart(study, styles),
        pairs.chart(study, styles),
        latency.chart(study, styles, chart_data),
        cpu.chart(study, styles, chart_data),
        stages.chart(study, styles, chart_data),
        symbols.chart(study, styles, chart_data),
        rounds.chart(study, styles, trials, slices),
        order.chart(study, styles, trials),
    )
    return [chart for chart in made if chart and chart.panels]
