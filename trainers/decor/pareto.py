"""Two curves of trade-offs: which points are dominated, by how much one curve is above the other, and the plot. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studio.evidence import Finished
from studio.metrics.statistics import estimate, grouped

Point = tuple[float, ...]
COLORS = ("#b4472b", "#4a6a8a")
"""DECOR's curve and the strength's."""


def dominated(point: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether another point is at least as good in everything, and better in something (higher is better)."""
    return any(
        all(o >= p for o, p in zip(other, point, strict=True))
        and any(o > p for o, p in zip(other, point, strict=True))
        for other in others
    )


def advantage(curve: Sequence[Point], rival: Sequence[Point]) -> float | None:
    """Mean height of a curve above its rival at equal first coordinates, where both are; None if they nowhere meet."""
    ordered = sorted(rival)
    xs, ys = [p[0] for p in ordered], [p[1] for p in ordered]
    inside = [p for p in curve if xs[0] <= p[0] <= xs[-1]]
    if not inside:
        return None
    return float(np.mean([p[1] - np.interp(p[0], xs, ys) for p in inside]))


def curves(cells: Sequence[Finished]) -> dict[str, dict[str, dict[str, float]]]:
    """Curve (DECOR or strength) to its points to their means over units of means over seeds."""
    names = [name.partition(": ") for name in cells[0].measures]
    found: dict[str, dict[str, dict[str, float]]] = {"DECOR": {}, "strength": {}}
    for point, _, measure in names:
        values = {(c.unit, c.seed): float(c.measures[f"{point}: {measure}"][1] or 0.0) for c in cells}
        found[point.split()[0]].setdefault(point, {})[measure] = grouped(values).mean
    start = {"strength 1": found["DECOR"]["DECOR 0"]}
    return {**found, "strength": {**found["strength"], **start}}


def report(cells: Sequence[Finished], folder: Path) -> str:
    """Markdown on both kinds of leak: each curve, who dominates, and the plot."""
    text = ["## Which curve is better"]
    kinds = {
        kind: [c for c in cells if c.variant == kind] for kind in dict.fromkeys(c.variant for c in cells)
    }
    for kind, own in kinds.items():
        text += [f"### {kind}", _table(curves(own)), _verdict(own)]
    _plot({kind: curves(own) for kind, own in kinds.items()}, folder / "decor-pareto.png")
    text.append(
        "![Text similarity over likeness, and leakage over likeness, of both curves](decor-pareto.png)"
    )
    return "\n\n".join(text) + "\n"


def _table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    rows = ["| point | likeness | text similarity | leakage |", "| --- | --- | --- | --- |"]
    for points in found.values():
        rows += [
            f"| {name} | {v['likeness']:.3f} | {v['text similarity']:.3f} | {v['leakage']:.2f} |"
            for name, v in points.items()
        ]
    return "\n".join(rows)


def _verdict(cells: Sequence[Finished]) -> str:
    found = curves(cells)
    points = {
        curve: {n: (v["likeness"], v["text similarity"]) for n, v in own.items()}
        for curve, own in found.items()
    }
    decor = {n: p for n, p in points["DECOR"].items() if n != "DECOR 0"}
    weaker = {n: p for n, p in points["strength"].items() if n != "strength 1"}
    beaten = [n for n, p in decor.items() if dominated(p, list(points["strength"].values()))]
    beats = [n for n, p in weaker.items() if dominated(p, list(points["DECOR"].values()))]
    above = advantage(list(decor.values()), list(points["strength"].values()))
    told = (
        "the curves share no likeness" if above is None else f"{above:+.3f} text similarity at equal likeness"
    )
    leaks = estimate(_change(cells, "DECOR 1", "leakage"))
    rival = estimate(_change(cells, "strength 0.4", "leakage"))
    wins = above is not None and above > 0 and not beaten
    return (
        f"DECOR {'dominates' if wins else 'does not dominate'} the strength curve here: {told}, averaged over DECOR's "
        f"points; DECOR's points that a weaker adapter dominates: {', '.join(beaten) or 'none'}; weaker adapters that "
        f"DECOR dominates: {', '.join(beats) or 'none'}. Leakage moves by {leaks.mean:+.2f} ± {leaks.se:.2f} at DECOR 1 "
        f"and by {rival.mean:+.2f} ± {rival.se:.2f} at strength 0.4 (± standard error over all cells)."
    )


def _change(cells: Sequence[Finished], point: str, measure: str) -> list[float]:
    key, start = f"{point}: {measure}", f"DECOR 0: {measure}"
    return [float(c.measures[key][1] or 0.0) - float(c.measures[start][1] or 0.0) for c in cells]


def _plot(kinds: dict[str, dict[str, dict[str, dict[str, float]]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), 2, squeeze=False)
    for row, (kind, found) in zip(axes, kinds.items(), strict=True):
        for axis, measure in zip(row, ("text similarity", "leakage"), strict=True):
            _draw_curves(axis, found, measure)
            axis.set(xlabel="likeness", ylabel=measure, title=f"{kind}: {measure}")
            axis.legend(frameon=False)
    figure.savefig(path, dpi=90)


def _draw_curves(axis: Any, found: dict[str, dict[str, dict[str, float]]], measure: str) -> None:
    for (curve, points), color in zip(found.items(), COLORS, strict=True):
        ordered = sorted(points.items(), key=lambda item: float(item[0].split()[1]))
        xs, ys = [v["likeness"] for _, v in ordered], [v[measure] for _, v in ordered]
        axis.plot(xs, ys, "o-", color=color, label=curve)
        for (name, _), x, y in zip(ordered, xs, ys, strict=True):
            axis.annotate(
                name.split()[1], (x, y), (3, 4), textcoords="offset points", fontsize=8, color=color
            )
