"""Curves of one or several runs as inline SVG that follows the page's colors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from studio.reports.charts import short, ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 220, 52, 14, 12, 26
COLORS = 6
MAX_POINTS = 600
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One run's values; `mark` is a step to point out."""

    name: str
    points: Sequence[Point]
    mark: float | None = None


def smoothed(points: Sequence[Point], weight: float) -> list[Point]:
    """Exponential running mean without its start at zero (Adam's correction); weight 0 changes nothing."""
    mean, norm, found = 0.0, 0.0, []
    for x, y in points:
        mean, norm = weight * mean + (1 - weight) * y, weight * norm + (1 - weight)
        found.append((x, mean / norm))
    return found


def chart(title: str, lines: Sequence[Line], smoothing: float = 0.0) -> str:
    """A figure with all lines; nothing if no line has two points."""
    kept = [Line(line.name, _thinned(line.points), line.mark) for line in lines]
    kept = [line for line in kept if len(line.points) > 1]
    if not kept:
        return ""
    xs = [x for line in kept for x, _ in line.points]
    levels = ticks(*_range([y for line in kept for _, y in line.points]))
    frame = _Frame(min(xs), max(xs), levels[0], levels[-1])
    inside = _axes(frame, levels) + "".join(_line(line, i, frame, smoothing) for i, line in enumerate(kept))
    several = len(kept) > 1 or kept[0].name
    legend = "".join(
        f'<span><i class="c{i % COLORS}"></i>{escape(line.name)}</span>' for i, line in enumerate(kept)
    )
    last = f"{short(kept[0].points[-1][1])} at step {kept[0].points[-1][0]:g}" if len(kept) == 1 else ""
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b><span>{last}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">{inside}</svg>'
        f"{f'<div class=legend>{legend}</div>' if several else ''}</figure>"
    )


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        span = (self.right - self.left) or 1.0
        return LEFT + (value - self.left) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return TOP + (self.high - value) / span * (HEIGHT - TOP - BOTTOM)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Bounds that a few outliers do not stretch."""
    ordered = sorted(values)
    cut = len(ordered) // 200
    low, high = ordered[cut], ordered[-1 - cut]
    return (low, high) if high > low else (low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9)


def _thinned(points: Sequence[Point]) -> list[Point]:
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    every = max(1, math.ceil(len(finite) / MAX_POINTS))
    return [*finite[:-1:every], *finite[-1:]]


def _axes(frame: _Frame, levels: Sequence[float]) -> str:
    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{frame.y(v):.1f}" y2="{frame.y(v):.1f}" class="grid"/>'
        f'<text x="{LEFT - 8}" y="{frame.y(v) + 4:.1f}" class="tick end">{short(v)}</text>'
        for v in levels
    ]
    steps = [v for v in ticks(frame.left, frame.right, 5) if frame.left <= v <= frame.right]
    parts += [f'<text x="{frame.x(v):.1f}" y="{HEIGHT - 6}" class="tick mid">{v:g}</text>' for v in steps]
    return "".join(parts)


def _line(line: Line, number: int, frame: _Frame, smoothing: float) -> str:
    color = f"c{number % COLORS}"
    faint = _path(line.points, frame, f"{color} faint") if smoothing > 0 else ""
    points = smoothed(line.points, smoothing)
    mark = [(x, y) for x, y in points if x == line.mark]
    dot = (
        f'<circle cx="{frame.x(mark[0][0]):.1f}" cy="{frame.y(mark[0][1]):.1f}" r="5" class="{color}"/>'
        if mark
        else ""
    )
    return faint + _path(points, frame, color) + dot


def _path(points: Sequence[Point], frame: _Frame, name: str) -> str:
    inside = [(frame.x(x), min(max(frame.y(y), TOP - 4), HEIGHT - BOTTOM + 4)) for x, y in points]
    return f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in inside)}"/>'
