"""Curves of the evidence: reward against drawn pictures, the mean over trainings with their range. No torch."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from studio.evidence.tables import Finished
from studio.records import runs

SHOWN = {"reward": "reward as drawn", "held_out": "held-out reward", "diversity": "diversity"}
COLORS = ("#1f6f8b", "#c4572f", "#5b8c3a", "#7a4fa3")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 210, 52, 30, 34
Points = Sequence[Sequence[float]]


def of_run(events: Sequence[Mapping[str, Any]], images: int, updates: int) -> dict[str, list[list[float]]]:
    """Values against pictures drawn so far; updates of one rollout share its pictures.

    Args:
        events: Events of a run.
        images: Pictures a rollout.
        updates: Steps that learn from one rollout.
    """
    steps = [event for event in events if event["event"] == "step" and event["step"] % updates == 0]
    return {
        name: [[event["step"] // updates * images, event[name]] for event in steps if name in event]
        for name in SHOWN
    }


def write(cells: Sequence[Finished], file: Path) -> Path:
    """A chart for each reward and value, a line for each method."""
    groups: dict[str, dict[str, list[Mapping[str, Points]]]] = {}
    for cell in cells:
        reward, _, method = cell.variant.partition(": ")
        if cell.curves:
            groups.setdefault(reward, {}).setdefault(method, []).append(cell.curves)
    charts = [
        _chart(f"{reward}: {title}", {method: [c[name] for c in own] for method, own in methods.items()},
               (column * WIDTH, row * HEIGHT))
        for row, (reward, methods) in enumerate(groups.items())
        for column, (name, title) in enumerate(SHOWN.items())
    ]  # fmt: skip
    size = f"{len(SHOWN) * WIDTH} {len(groups) * HEIGHT}"
    style = "text{font:11px sans-serif;fill:#333}"
    body = "\n".join(charts)
    runs.write_text(
        file,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#faf9f6"/>\n{body}\n</svg>\n',
    )
    return file


def _chart(title: str, lines: Mapping[str, Sequence[Points]], at: tuple[int, int]) -> str:
    points = [point for own in lines.values() for curve in own for point in curve]
    low, high = min(y for _, y in points), max(y for _, y in points)
    last, span = max(x for x, _ in points), (high - low) or 1.0

    def place(x: float, y: float) -> str:
        right = LEFT + (WIDTH - LEFT - 12) * x / last
        return f"{right:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / span:.1f}"

    parts = [
        f'<g transform="translate{at}"><text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    ]
    for value in (low, high):
        x, y = place(0, value).split(",")
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - 18}" text-anchor="end">{last:g} pictures</text>')
    for number, (method, own) in enumerate(lines.items()):
        parts += _line(own, COLORS[number % len(COLORS)], place)
        x, color = LEFT + 80 * number, COLORS[number % len(COLORS)]
        parts.append(f'<text x="{x}" y="{HEIGHT - 4}" style="fill:{color}">{escape(method)}</text>')
    return "".join(parts) + "</g>"


def _line(own: Sequence[Points], color: str, place: Any) -> list[str]:
    """The mean over trainings, and the range between the lowest and the highest."""
    rows = [(points[0][0], [y for _, y in points]) for points in zip(*own, strict=False)]
    upper = [place(x, max(ys)) for x, ys in rows]
    lower = [place(x, min(ys)) for x, ys in reversed(rows)]
    middle = [place(x, fmean(ys)) for x, ys in rows]
    return [
        f'<polygon points="{" ".join(upper + lower)}" fill="{color}" opacity="0.15"/>',
        f'<polyline points="{" ".join(middle)}" fill="none" stroke="{color}" stroke-width="2"/>',
    ]
