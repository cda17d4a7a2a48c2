"""Writes the charts of a run as files. resvg, in the package vl-convert, converts SVG to PDF and PNG."""

import os
import re
from collections.abc import Sequence

from harness.report import page
from harness.report.plot import Chart

FORMATS = ("svg", "pdf", "png")
WIDTH, MARGIN = 860, 14  # CSS pixels; a PNG has two pixels for each
_SIZE = re.compile(r'width="[^"]*" height="[^"]*" viewBox="[^"]*"')
_HEIGHT = re.compile(r' height="([^"]*)"')
_COLOUR = re.compile(r"var\(--([\w-]+)\)")


def write(charts: Sequence[Chart], directory: str, formats: Sequence[str], only: str = "") -> list[str]:
    """Write charts into DIRECTORY/figures, and return the paths. only: names of charts, separated by commas; empty:
    all. Raises OSError, ValueError."""
    for one in formats:
        if one not in FORMATS:
            raise ValueError(f"{one}: no such format of charts; there are {', '.join(FORMATS)}")
    wanted = [name for name in only.split(",") if name]
    if unknown := sorted(set(wanted) - {chart.name for chart in charts}):
        names = ", ".join(chart.name for chart in charts)
        raise ValueError(f"{', '.join(unknown)}: this run has no such chart; there are {names}")
    os.makedirs(f"{directory}/figures", exist_ok=True)
    written = []
    for chart in charts:
        if not wanted or chart.name in wanted:
            for kind in formats:
                path = f"{directory}/figures/{chart.name}.{kind}"
                with open(path, "wb") as file:
                    file.write(_converted(standalone(chart), kind))
                written.append(path)
    return written


def standalone(chart: Chart) -> str:
    """A chart as the text of an SVG file, in the colours of the light page."""
    colours = dict(re.findall(r"--([\w-]+): ([^;]+);", page.asset("page.css").partition("@media")[0]))
    style = _COLOUR.sub(lambda found: colours[found[1]], page.asset("chart.css")).replace("system-ui, ", "")
    style = style.replace(".chart {", "svg {").replace(".chart ", "")
    drawing: str = chart.draw(WIDTH)
    paper = f'<rect x="-50" y="-50" width="9999" height="9999" style="fill: {colours["paper"]}"/>'
    # Tooltips and numbers of designs are only of use in the page.
    drawing = re.sub(r' data-(tip|k)="[^"]*"', "", drawing).replace(">", f"><style>{style}</style>{paper}", 1)
    height = float(_HEIGHT.findall(drawing)[0])
    size = f'width="{WIDTH + 2 * MARGIN}" height="{height + 2 * MARGIN:.0f}" '
    size += f'viewBox="{-MARGIN} {-MARGIN} {WIDTH + 2 * MARGIN} {height + 2 * MARGIN:.0f}"'
    drawing = _SIZE.sub(size, drawing, count=1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{drawing}\n'


def _converted(svg: str, kind: str) -> bytes:
    if kind == "svg":
        return svg.encode()
    try:
        import vl_convert  # noqa: PLC0415 - 30 MB, and only this needs it
    except ImportError:
        raise ValueError(
            f"{kind} needs the package vl-convert-python, which is not installed: "
            "pip install 'transport-harness[figures]'"
        ) from None
    made: bytes = vl_convert.svg_to_pdf(svg) if kind == "pdf" else vl_convert.svg_to_png(svg, scale=2)
    return made
