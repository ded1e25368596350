"""Curves and score scales as inline SVG. No torch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from studio.metrics.statistics import Estimate
from studio.metrics.table import Row

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 200, 46, 22, 8
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of a run; `mark` is a step to point out, such as the best one."""

    name: str
    points: Sequence[Point]
    mark: float | None = None
    smooth: bool = False
    """Draw a running mean, and the values themselves faintly behind it (for noisy losses)."""


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover a range."""
    span = (high - low) or abs(high) or 1.0
    raw = span / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first = math.floor(low / step) * step
    count = math.ceil((high - first) / step - 1e-9) + 1
    return [first + i * step for i in range(max(2, count))]


def short(value: float) -> str:
    """A number as people read it on an axis."""
    if value and abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:,.4g}"


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over the last `window` values (fewer at the start)."""
    return [
        math.fsum(part) / len(part)
        for i in range(len(values))
        if (part := values[max(0, i + 1 - window) : i + 1])
    ]


def chart(curve: Curve) -> str:
    """One curve with its axes as a figure; nothing for fewer than two finite points."""
    points = [(x, y) for x, y in curve.points if math.isfinite(y)]
    if len(points) < 2:
        return ""
    levels = ticks(min(y for _, y in points), max(y for _, y in points))
    first, last = points[0][0], points[-1][0]

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - 8) * (point[0] - first) / ((last - first) or 1)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (levels[-1] - point[1]) / (levels[-1] - levels[0])
        return x, y

    smoothed = points
    if curve.smooth and len(points) >= 8:
        means = running_mean([y for _, y in points], max(3, len(points) // 12))
        smoothed = [(x, mean) for (x, _), mean in zip(points, means, strict=True)]
    parts = [_axes(levels, first, last, place)]
    if smoothed is not points:
        parts.append(_path([place(p) for p in points], "faint"))
    if curve.mark is not None:
        x = place((curve.mark, levels[0]))[0]
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(_path([place(p) for p in smoothed], "trace"))
    x, y = place(smoothed[-1])
    parts.append(f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
    told = f"{short(smoothed[0][1])} → {short(smoothed[-1][1])}"
    return (
        f'<figure class="chart"><figcaption>{escape(curve.name)} <span>{told}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve.name)}: {told}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _axes(levels: Sequence[float], first: float, last: float, place: Callable[[Point], Point]) -> str:
    lines = []
    for level in levels:
        y = place((first, level))[1]
        lines.append(f'<line class="gridline" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(level)}</text>')
    lines.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">step {short(first)}</text>')
    lines.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">{short(last)}</text>')
    return "".join(lines)


def _path(points: Sequence[Point], kind: str) -> str:
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{steps}"/>'


def scale(row: Row) -> str:
    """Base (ring), trained (disc) and true pictures (tick) of one score on a line from 0, with error bars."""
    known = [e for e in (row.base, row.tuned) if e is not None]
    ends = [e.mean + s * e.se for e in known for s in (-2, 2)] + [row.ceiling or 0.0, 0.0]
    low, high = min(ends), max(ends) * 1.04 or 1.0

    def x(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    parts = ['<line x1="0" x2="100%" y1="50%" y2="50%" stroke="var(--line)" stroke-width="2"/>']
    if row.ceiling is not None:
        at = x(row.ceiling)
        parts.append(f'<line x1="{at}" x2="{at}" y1="15%" y2="85%" stroke="var(--truth)" stroke-width="3"/>')
    if row.base is not None:
        ends_of = f'x1="{x(row.base.mean)}" x2="{x(row.tuned.mean)}"'
        parts.append(
            f'<line {ends_of} y1="50%" y2="50%" stroke="var(--accent)" stroke-width="2" opacity=".5"/>'
        )
        parts.append(_dot(row.base, x, 'fill="var(--paper)" stroke="var(--base)" stroke-width="2.5"', "base"))
    parts.append(_dot(row.tuned, x, 'fill="var(--accent)"', "accent"))
    return f'<svg aria-hidden="true">{"".join(parts)}</svg>'


def _dot(estimate: Estimate, x: Callable[[float], str], look: str, color: str) -> str:
    bar = (
        f'<line x1="{x(estimate.mean - estimate.se)}" x2="{x(estimate.mean + estimate.se)}" y1="50%" y2="50%" '
        f'stroke="var(--{color})" stroke-width="6" opacity=".35"/>'
    )
    return f'{bar}<circle cx="{x(estimate.mean)}" cy="50%" r="5.5" {look}/>'
