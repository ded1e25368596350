"""Two curves of trade-offs: which points are dominated, by how much one curve is above the other, and the plot. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.evidence.tables import Finished
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
    names = list(next(iter(found["DECOR"].values())))
    rows = [f"| point | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for points in found.values():
        rows += [
            f"| {name} | {' | '.join(f'{values[key]:.3f}' for key in names)} |"
            for name, values in points.items()
        ]
    return "\n".join(rows)


def _verdict(cells: Sequence[Finished]) -> str:
    found = curves(cells)
    text, leaks = tradeoff(found, "text similarity", 1), tradeoff(found, "leakage", -1)
    wins = text.wins and leaks.wins
    full, floor = (estimate(_values(cells, point)) for point in ("DECOR 0", "strength 0"))
    changes = ", ".join(
        f"{estimate(_change(cells, point)).mean:+.2f} ± {estimate(_change(cells, point)).se:.2f} at {point}"
        for point in ("DECOR 0.5", "DECOR 1", "strength 0.7", "strength 0.4")
    )
    return (
        f"DECOR {'dominates' if wins else 'does not dominate'} a lower strength here. Over likeness, text similarity: "
        f"{text.told}. Over likeness, leakage: {leaks.told}.\n\nThe adapters leak in {full.mean:.2f} ± {full.se:.2f} of the "
        f"pictures at full strength, the base model in {floor.mean:.2f} ± {floor.se:.2f} (floor). Leakage moves by {changes} "
        "(± standard error over all cells)."
    )


@dataclass(frozen=True)
class Tradeoff:
    """Whether DECOR's curve is above the strength's, and in words."""

    wins: bool
    told: str


def tradeoff(found: dict[str, dict[str, dict[str, float]]], measure: str, sign: int) -> Tradeoff:
    """Compares both curves in the plane of likeness and one measure; sign -1 for a measure that should be low."""
    points = {
        curve: {name: (values["likeness"], sign * values[measure]) for name, values in own.items()}
        for curve, own in found.items()
    }
    decor = {n: p for n, p in points["DECOR"].items() if n != "DECOR 0"}
    weaker = {n: p for n, p in points["strength"].items() if n != "strength 1"}
    beaten = [n for n, p in decor.items() if dominated(p, list(points["strength"].values()))]
    beats = [n for n, p in weaker.items() if dominated(p, list(points["DECOR"].values()))]
    above = advantage(list(decor.values()), list(points["strength"].values()))
    height = "the curves share no likeness" if above is None else f"{sign * above:+.3f} at equal likeness"
    told = (
        f"{height}, averaged over DECOR's points; points of DECOR that a weaker adapter dominates: "
        f"{', '.join(beaten) or 'none'}; weaker adapters that DECOR dominates: {', '.join(beats) or 'none'}"
    )
    return Tradeoff(above is not None and above > 0 and not beaten, told)


def _values(cells: Sequence[Finished], point: str) -> list[float]:
    return [float(c.measures[f"{point}: leakage"][1] or 0.0) for c in cells]


def _change(cells: Sequence[Finished], point: str) -> list[float]:
    return [
        now - before for now, before in zip(_values(cells, point), _values(cells, "DECOR 0"), strict=True)
    ]


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
