"""A table as a curve: a small SVG picture that is part of a page, readable in light and dark."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

from LKSegmentLib.inspection import Table

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 170, 12, 46
# Okabe and Ito's colours, which people with every kind of colour vision can tell apart.
_COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 4", "2 3", "10 3 2 3")  # for the first six lines, the next six, …
_TICKS = 5
_LEGEND = 20  # characters of a line of the legend, of which the picture has room for so many
_LINE = 15


def curve_svg(table: Table) -> str | None:
    """The columns `table.y` over `table.x`; None for a table that is no curve, or without two numbers along x."""
    if table.x is None or not table.y:
        return None
    lines = {name: _points(table, name) for name in table.y}
    every = [point for points in lines.values() for point in points]
    places = sorted({x for x, _ in every})
    if len(places) < 2:
        return None
    counted = all(place.is_integer() for place in places)  # clicks, steps: there is nothing between two
    x_axis = _Axis(places[0], places[-1], _LEFT, WIDTH - _RIGHT, counted)
    low, high = min(y for _, y in every), max(y for _, y in every)
    y_axis = _Axis(min(low, 0.0) if low < 0.35 * high else low, high, HEIGHT - _BOTTOM, _TOP)
    legend = [_wrapped(name) for name in lines]
    height = max(HEIGHT, _TOP + 12 + sum(_LINE * len(words) + 3 for words in legend))
    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(table.name, True)}">',
        *_grid(x_axis, y_axis),
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(table.x)}</text>',
    ]
    y = _TOP + 12
    for number, points in enumerate(lines.values()):
        color = _COLORS[number % len(_COLORS)]
        pattern = _DASHES[number // len(_COLORS) % len(_DASHES)]
        dashes = f' stroke-dasharray="{pattern}"' if pattern else ""
        path = " ".join(f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dashes}/>')
        parts += [f'<circle cx="{x_axis.place(along):.1f}" cy="{y_axis.place(up):.1f}" r="2.5" fill="{color}"/>'
                  for along, up in points]  # fmt: skip
        parts.append(f'<line x1="{WIDTH - _RIGHT + 12}" x2="{WIDTH - _RIGHT + 34}" y1="{y - 4}" y2="{y - 4}" '
                     f'stroke="{color}" stroke-width="3"{dashes}/>')  # fmt: skip
        for words in legend[number]:
            parts.append(f'<text x="{WIDTH - _RIGHT + 40}" y="{y}">{escape(words)}</text>')
            y += _LINE
        y += 3
    return "\n".join([*parts, "</svg>"])


class _Axis:
    """Numbers to pixels, and where to write them."""

    def __init__(self, low: float, high: float, start: float, end: float, counted: bool = False) -> None:
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        self.ticks = _ticks(low, high, 1.0 if counted else 0.0)
        self._low, self._high = min(low, self.ticks[0]), max(high, self.ticks[-1])
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)


def _ticks(low: float, high: float, least: float) -> list[float]:
    """About five round numbers that lie in the range, or just around it, at least so far apart."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = max(least, next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw))
    step = math.ceil(step) if least else step
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    left, right, bottom, top = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM, _TOP
    parts = []
    for value in y_axis.ticks:
        y = y_axis.place(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x_axis.ticks:
        x = x_axis.place(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    return parts


def _wrapped(name: str) -> list[str]:
    """A name in lines of the legend, broken after spaces, points and commas."""
    lines = [""]
    for part in re.split(r"(?<=[ .,])", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > _LEGEND:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _points(table: Table, name: str) -> list[tuple[float, float]]:
    assert table.x is not None
    pairs: Sequence[tuple[object, object]] = list(zip(table.column(table.x), table.column(name), strict=True))
    return [
        (float(x), float(y))
        for x, y in pairs
        if isinstance(x, (int, float)) and isinstance(y, (int, float)) and math.isfinite(x) and math.isfinite(y)
    ]
