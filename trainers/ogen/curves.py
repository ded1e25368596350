"""Accuracy over epochs, one line a method: does it rise and fall again? No torch."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from studio.evidence.tables import Finished
from studio.records import runs

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 260, 46, 30, 74
COLORS = ("#1f6f8b", "#c4572f", "#5b8c3a", "#7a4fa3")
GROUPS = ("CoOp", "FLYP", "LoRA")
Points = Sequence[Sequence[float]]


def write(cells: Sequence[Finished], file: Path) -> Path:
    """A chart for each inner method and half of the names: the mean over splits."""
    charts = []
    for row, part in enumerate(("new", "base")):
        for column, group in enumerate(GROUPS):
            lines = {
                variant: [cell.curves[part] for cell in cells if cell.variant == variant]
                for variant in dict.fromkeys(
                    cell.variant for cell in cells if cell.variant.startswith(group) and cell.curves
                )
            }
            if lines:
                charts.append(_chart(f"{group}: {part} names", lines, (column * WIDTH, row * HEIGHT)))
    body = "\n".join(charts)
    runs.write_text(
        file,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(GROUPS) * WIDTH} {2 * HEIGHT}">'
        "<style>text{font:11px sans-serif;fill:#333}</style>"
        f'<rect width="100%" height="100%" fill="#faf9f6"/>\n{body}\n</svg>\n',
    )
    return file


def means(lines: Sequence[Points]) -> list[tuple[float, float]]:
    """The mean of several curves, point by point."""
    return [(points[0][0], fmean(y for _, y in points)) for points in zip(*lines, strict=False)]


def _chart(title: str, lines: Mapping[str, Sequence[Points]], at: tuple[int, int]) -> str:
    curves = {name: means(own) for name, own in lines.items()}
    values = [y for points in curves.values() for _, y in points]
    low, high = min(values), max(values)
    last, span = max(x for points in curves.values() for x, _ in points) or 1.0, (high - low) or 1.0
    room = HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - 12) * x / last:.1f},{TOP + room * (high - y) / span:.1f}"

    parts = [
        f'<g transform="translate{at}"><text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    ]
    for value in (low, high):
        y = float(place(0, value).split(",")[1])
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    parts.append(f'<text x="{WIDTH - 12}" y="{TOP + room + 14}" text-anchor="end">{last:g} epochs</text>')
    for number, (name, points) in enumerate(curves.items()):
        color, drawn = COLORS[number % len(COLORS)], " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = TOP + room + 14 + 13 * (number + 1)
        parts.append(f'<text x="{LEFT}" y="{y}" style="fill:{color}">{escape(name)}</text>')
    return "".join(parts) + "</g>"
