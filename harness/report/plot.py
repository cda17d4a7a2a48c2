"""The parts that charts are drawn with: scales, axes, markers, and panels side by side. Lengths are in CSS pixels.

A chart is SVG that is styled by CSS classes (chart.css), so that one drawing serves light pages, dark pages and papers.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.markup import Markup, el

LETTER = 6.9  # mean width of a letter at 12 px
END_LETTER = 6.2  # mean width of a letter at 11 px
END_ROW = 13.0  # height of the name at the end of a line
ROW = 21  # height of a row with a name
_TITLE_LETTER, _TITLE_ROW = 7.6, 16  # mean width of a letter of a title, and height of one of its lines
_GAP = 28  # between panels

Entry = tuple[str, int, str, int | None]  # of a legend: CSS classes, shape or -1 for a patch of colour, name, design
Drawn = tuple[list[Markup], float]  # what is drawn, and its height
Draw = Callable[[float], Drawn]  # draws for a width


@dataclass(frozen=True)
class Scale:
    """Maps values from low to high to pixels from start to end. Values outside are put at the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, self._inside(value)))
        return self.start + (at - low) / (high - low or 1) * (self.end - self.start)

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, apart: float = 60, first: float | None = None) -> list[float]:
        """Round values that are at least `apart` pixels apart. first: a value to include, if it is in range."""
        found: list[float] = [first] if first is not None and self.low <= first <= self.high else []
        for candidates in self._round(abs(self.end - self.start) / apart):
            for value in candidates:
                if all(abs(self(value) - self(one)) >= apart for one in found):
                    found.append(value)
        return sorted(found)

    def _round(self, count: float) -> list[list[float]]:
        """Sets of round values in range, the roundest first."""
        if self.log and self.high / self.low > 4:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            sets = [[mantissa * 10.0**power for power in powers] for mantissa in (1, 3, 2, 5)]
        else:
            sets = [self._even(max(1.0, count * more)) for more in ((1, 2) if self.log else (1,))]
        return [
            [value for value in one if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9) or value == 0]
            for one in sets
        ]

    def _even(self, count: float) -> list[float]:
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
        step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw * 0.999)
        begin, stop = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(begin, stop + 1)]


def around(values: Sequence[float], log: bool = False, pad: float = 0.06) -> tuple[float, float]:
    """A range that contains the values, with some space at both ends."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** pad, 1.02)
        return low / factor, high * factor
    space = (high - low) * pad or abs(high) * 0.05 or 1.0
    return low - space, high + space


def number(value: float) -> str:
    """A number with three significant digits and separated thousands."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def signed(value: float) -> str:
    """A difference: a number with its sign."""
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"


def short(value: float) -> str:
    """A number for an axis: 20k, 1.5M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}"


def micros(value: float) -> str:
    """A time, given in microseconds, as text: 1.5 ms."""
    for factor, unit in ((1e6, "s"), (1e3, "ms")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} \u00b5s"


def clip(name: str, pixels: float) -> str:
    """A name cut to a width. It is cut in the middle, where names differ the least."""
    room = max(5, int(pixels / LETTER))
    if len(name) <= room:
        return name
    head = (room - 1) // 2
    return f"{name[:head]}\u2026{name[head + 1 - room :]}"


def words(x: float, y: float, text: object, kind: str = "", anchor: str = "start") -> Markup:
    """Text at a point. kind: CSS classes."""
    return el("text", text, x=x, y=y, class_=kind or None, text_anchor=None if anchor == "start" else anchor)


def margin(names: Sequence[str], width: float) -> float:
    """The width of the column with the names of rows."""
    return min(max(map(len, names), default=0) * LETTER + 14, width * 0.5)


def named(name: str, left: float, y: float, key: int, quiet: bool) -> Markup:
    """The name of a row, left of it. quiet: whether it is drawn as the name of a floor."""
    kind = f"m label{' floor-name' if quiet else ''}"
    return el("text", clip(name, left - 12), x=left - 10, y=y, text_anchor="end", class_=kind, data_k=key)


End = tuple[float, float, str, int, str]  # of a line: x, y, the name of its design, its number, its colour


def room_for_ends(names: Sequence[str], width: float) -> float:
    """The width of the column with the names of lines, right of their plot."""
    return min(max(map(len, names), default=0) * END_LETTER + 20, width * 0.46)


def ends(lines: Sequence[End], left: float, right: float, top: float, bottom: float) -> list[Markup]:
    """The names of lines, from `left` to `right`, each at the height where its line ends. A group of
    names that would overlap is spread, and a thin line leads to each name."""
    lines = sorted(lines, key=lambda one: one[1])
    groups: list[list[float]] = []  # heights of lines whose names touch
    for _, y, *_ in lines:
        group = [y]
        while groups and _first(groups[-1], top, bottom) + len(groups[-1]) * END_ROW > _first(group, top, bottom):
            group = groups.pop() + group
        groups.append(group)
    places = [_first(group, top, bottom) + number * END_ROW for group in groups for number in range(len(group))]
    drawn = []
    for (x, y, name, key, colour), place in zip(lines, places, strict=True):
        drawn.append(curve([(x, y), (left - 4, place), (left + 6, place)], f"m leader {colour}", data_k=key))
        shown = clip(name, (right - left - 8) * LETTER / END_LETTER)
        drawn.append(el("text", shown, x=left + 9, y=place + 4, class_="m end", data_k=key))
    return drawn


def _first(group: Sequence[float], top: float, bottom: float) -> float:
    """The height of the first name of a group, which is in the middle of the ends of its lines."""
    length = (len(group) - 1) * END_ROW
    return max(min(sum(group) / len(group) - length / 2, bottom - length), top)


def tile(
    x: float, y: float, wide: float, high: float, shade: str, text: str, key: int, tooltip: str, kind: str = ""
) -> list[Markup]:
    """A tile of a heat map, with a text in it."""
    size = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": high - 2, "rx": 3}
    tiles = [el("rect", **size, class_=f"m heat {shade}", data_k=key, data_tip=tooltip)]
    if text:
        place = {"x": x + wide / 2, "y": y + high / 2 + 4, "text_anchor": "middle"}
        tiles.append(el("text", text, **place, class_=f"m in-{shade} heat-text{kind}", data_k=key))
    return tiles


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return el("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=kind)


def curve(points: Sequence[tuple[float, float]], kind: str, **attributes: object) -> Markup:
    """A line through points. attributes: as for markup.el."""
    return el("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=kind, **attributes)


def across(
    scale: Scale,
    top: float,
    bottom: float,
    label: Callable[[float], str],
    unit: str,
    ticks: Sequence[float] | None = None,
    one: float | None = None,
) -> list[Markup]:
    """A horizontal axis below a plot, and its grid lines. one: a value whose line is stronger."""
    ticks = scale.ticks(36, one) if ticks is None else ticks
    half = len(unit) * END_LETTER / 2
    middle = max(half, min((scale.start + scale.end) / 2, scale.end + 8 - half))  # a long unit does not stick out
    return [
        *(rule(scale(tick), top, scale(tick), bottom, "zero" if tick == one else "grid") for tick in ticks),
        *(words(scale(tick), bottom + 15, label(tick), "tick", "middle") for tick in ticks),
        words(middle, bottom + 32, unit, "unit", "middle"),
    ]


def upright(
    scale: Scale, left: float, right: float, label: Callable[[float], str], unit: str, one: float | None = None
) -> list[Markup]:
    """A vertical axis left of a plot, its grid lines, and its unit above it. one: a value whose line is stronger."""
    ticks = scale.ticks(26, one)
    return [
        *(rule(left, scale(tick), right, scale(tick), "zero" if tick == one else "grid") for tick in ticks),
        *(words(left - 6, scale(tick) + 4, label(tick), "tick", "end") for tick in ticks),
        words(0, min(scale.start, scale.end) - 10, unit, "unit"),
    ]


def heads(names: Sequence[str], left: float, wide: float) -> tuple[list[Markup], int]:
    """The heads of columns, slanted where columns are narrow, and the height of the heads."""
    slanted = wide < max(map(len, names), default=0) * LETTER * 0.95
    top = 62 if slanted else 20
    drawn = []
    for column, name in enumerate(names):
        x = left + (column + 0.5) * wide
        turn = f"rotate(-45 {x:.1f} {top - 6})" if slanted else None
        head = clip(name, 70 if slanted else wide)
        drawn.append(
            el("text", head, x=x, y=top - 6, text_anchor=None if slanted else "middle", class_="tick", transform=turn)
        )
    return drawn, top


def marker(shape: int, x: float, y: float, size: float = 4.5) -> str:
    """The path of a marker. There are five shapes, counted from 0: circle, square, triangle, diamond, triangle down."""
    a, b = size, size * 0.9
    return (
        f"M{x - a:.1f} {y:.1f}a{a:g} {a:g} 0 1 0 {2 * a:g} 0a{a:g} {a:g} 0 1 0 {-2 * a:g} 0z",
        f"M{x - b:.1f} {y - b:.1f}h{2 * b:g}v{2 * b:g}h{-2 * b:g}z",
        f"M{x:.1f} {y - a * 1.2:.1f}l{a * 1.15:g} {a * 2:g}h{-a * 2.3:g}z",
        f"M{x:.1f} {y - a * 1.3:.1f}l{a * 1.3:g} {a * 1.3:g}l{-a * 1.3:g} {a * 1.3:g}l{-a * 1.3:g} {-a * 1.3:g}z",
        f"M{x:.1f} {y + a * 1.2:.1f}l{a * 1.15:g} {-a * 2:g}h{-a * 2.3:g}z",
    )[shape % 5]


@dataclass(frozen=True)
class Panel:
    """One plot of a chart."""

    title: str
    draw: Draw


@dataclass(frozen=True)
class Chart:
    """One or more panels, with `columns` of them side by side where there is room.

    name: as in `harness report --only`. text: how to read the chart. note: what it leaves out. legend: what the marks
    mean, where there are no names beside them.
    """

    name: str
    title: str
    text: str
    panels: list[Panel]
    columns: int = 1
    note: str = ""
    legend: tuple[Entry, ...] = ()

    def draw(self, width: float) -> Markup:
        """The whole chart as one SVG element."""
        columns = max(1, min(self.columns, len(self.panels), int((width + _GAP) // 290)))
        if columns == 3 and len(self.panels) in (2, 4):
            columns = 2
        each = (width - (columns - 1) * _GAP) / columns
        content: list[Markup] = []
        y = 0.0
        if self.legend:
            x = 0.0
            for kind, shape, name, key in self.legend:
                room = 20 + len(name) * LETTER + 14
                if x and x + room > width:
                    x, y = 0.0, y + 20
                sign = f"M{x:.1f} {y + 2:.1f}h12v12h-12z" if shape < 0 else marker(shape, x + 6, y + 8)
                content.append(el("path", d=sign, class_=kind, data_k=key))
                content.append(el("text", name, x=x + 18, y=y + 12, class_="m", data_k=key))
                x += room
            y += 32
        for row in range(0, len(self.panels), columns):
            heights = []
            beside = self.panels[row : row + columns]
            titles = [textwrap.wrap(panel.title, int(each / _TITLE_LETTER)) for panel in beside]
            top = 24 + _TITLE_ROW * (max(map(len, titles)) - 1 if any(titles) else 0)
            for place, (panel, lines) in enumerate(zip(beside, titles, strict=True)):
                drawn, height = panel.draw(each)
                title = [words(0, 14 + _TITLE_ROW * number, line, "title") for number, line in enumerate(lines)]
                shift = f"translate({place * (each + _GAP):.1f} {y:.1f})"
                content.append(el("g", title, el("g", drawn, transform=f"translate(0 {top})"), transform=shift))
                heights.append(height + top)
            y += max(heights) + 18
        height = max(1.0, y - 14)
        return el(
            "svg",
            content,
            xmlns="http://www.w3.org/2000/svg",
            class_="chart",
            width=width,
            height=height,
            viewBox=f"0 0 {width:g} {height:.0f}",
        )
