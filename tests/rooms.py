"""Who imports whom in studio, room by room: `python -m tests.rooms [CHECKOUT NAME]` writes docs/pictures/rooms.{txt,svg}.

A loose file of `studio/` counts as a room. Rows are the steps of the import contract in `pyproject.toml`, closed up where
nothing is between them, so a room stands above all that it imports; what goes up against that order is red.
"""

import itertools
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import grimp

from tests import tree

Edges = frozenset[tuple[str, str]]
PICTURES = tree.ROOT / "docs" / "pictures"
WIDTH, ROW, HEIGHT, MARGIN = 1300, 78, 26, 14
LETTER, GAP, STAGGER = 7.4, 18, 130
STYLE = """
svg { background: #fff; font: 13px system-ui, sans-serif; }
path { fill: none; stroke: #7a8794; stroke-width: .8; opacity: .25; }
path.next { opacity: .9; stroke-width: 1.1; }
path.up { stroke: #d0342c; opacity: 1; stroke-width: 1.6; }
rect { fill: #eef3f8; stroke: #5b7083; rx: 5; }
rect.file { fill: #fff6e0; stroke: #b58a2b; }
text { fill: #16202a; text-anchor: middle; dominant-baseline: central; }
"""


def edges() -> Edges:
    """Pairs of rooms of which the first imports the second, imports for types alone included; the face is no room."""
    graph = grimp.build_graph("studio", cache_dir=None)
    pairs = ((a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a))
    named = ((_room(a), _room(b)) for a, b in pairs)
    return frozenset((a, b) for a, b in named if a != b and "studio" not in (a, b))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def order(root: Path) -> dict[str, int]:
    """Step of each room in the import contract, counted from the ground."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["studio"])
    named = {room: step for step, layer in enumerate(reversed(layers)) for room in re.findall(r"\w+", layer)}
    there = {path.stem for path in (root / "studio").iterdir()}
    return {room: step for room, step in named.items() if room in there}


def upward(found: Edges, steps: Mapping[str, int]) -> Edges:
    """Imports against the order."""
    return frozenset((a, b) for a, b in found if steps[a] <= steps[b])


def rows(found: Edges, steps: Mapping[str, int]) -> dict[str, int]:
    """Row of each room, counted from the ground: one above the highest that it imports."""
    row: dict[str, int] = {}
    for room in sorted(steps, key=steps.__getitem__):
        row[room] = max((row[b] + 1 for a, b in found if a == room and b in row), default=0)
    return row


def render(found: Edges, steps: Mapping[str, int]) -> str:
    """One room a line, from the top, and what it imports; an import against the order has a `^`."""
    against = upward(found, steps)
    lines = [f"{len(steps)} rooms, {len(found)} imports between them, {len(against)} against the order"]
    for room in sorted(steps, key=lambda name: (-steps[name], name)):
        names = (f"{b}^" if (a, b) in against else b for a, b in sorted(found) if a == room)
        lines.append(f"{room}: {' '.join(names)}".rstrip())
    return "\n".join(lines) + "\n"


def places(found: Edges, row: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Middle of each room's box: rows from the top, in a row near the mean of its neighbors."""
    levels = [sorted(r for r in row if row[r] == level) for level in range(max(row.values()) + 1)]
    x = dict.fromkeys(row, WIDTH / 2)
    for _, level in itertools.product(range(24), levels):
        wanted = {
            room: _mean([x[b if a == room else a] for a, b in found if room in (a, b)]) for room in level
        }
        x |= _spread(sorted(level, key=wanted.__getitem__), STAGGER * (-1) ** row[level[0]])
    return {room: (x[room], MARGIN + HEIGHT + (len(levels) - 1 - row[room]) * ROW) for room in row}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else WIDTH / 2


def _spread(level: list[str], shift: float) -> dict[str, float]:
    free = WIDTH - sum(map(_width, level))
    gap, at, x = free / (len(level) + 1), shift / len(level), {}
    for room in level:
        at += gap
        x[room] = at + _width(room) / 2
        at += _width(room)
    return x


def _width(room: str) -> float:
    return len(room) * LETTER + GAP


def draw(found: Edges, steps: Mapping[str, int], files: frozenset[str]) -> str:
    """The graph as SVG; imports that others imply are pale."""
    at = places(found, rows(found, steps))
    against = upward(found, steps)
    down = found - against
    implied = frozenset((a, c) for a, b in down for c in _below(b, down) if (a, c) in down)
    height = max(y for _, y in at.values()) + HEIGHT + MARGIN
    lines = [_line(at[a], at[b], "") for a, b in sorted(implied)]
    lines += [_line(at[a], at[b], "next") for a, b in sorted(down - implied)]
    lines += [_line(at[a], at[b], "up") for a, b in sorted(against)]
    boxes = itertools.chain.from_iterable(_box(room, *at[room], room in files) for room in sorted(at))
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>'
    return "\n".join([head, *lines, *boxes, "</svg>"]) + "\n"


def _below(room: str, down: Edges) -> set[str]:
    """All that a room reaches."""
    found: set[str] = set()
    todo = [room]
    while todo:
        here = todo.pop()
        new = {b for a, b in down if a == here} - found
        found |= new
        todo += new
    return found


def _line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    (x, y), (u, v) = start, end
    side = HEIGHT / 2 if v > y else -HEIGHT / 2
    bend = max(abs(v - y) / 2.5, ROW / 2) * (1 if v > y else -1)
    what = f"M{x:.0f} {y + side:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v - side:.0f}"
    return f'<path class="{kind}" d="{what}"/>' if kind else f'<path d="{what}"/>'


def _box(room: str, x: float, y: float, is_file: bool) -> Iterator[str]:
    wide, kind = _width(room), ' class="file"' if is_file else ""
    yield f'<rect{kind} x="{x - wide / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{wide:.0f}" height="{HEIGHT}"/>'
    yield f'<text x="{x:.0f}" y="{y:.0f}">{escape(room)}</text>'


def made(root: Path, name: str) -> dict[Path, str]:
    """The list and the picture of a checkout."""
    found, steps = edges(), order(root)
    files = frozenset(room for room in steps if (root / "studio" / f"{room}.py").exists())
    return {
        PICTURES / f"{name}.txt": render(found, steps),
        PICTURES / f"{name}.svg": draw(found, steps, files),
    }


if __name__ == "__main__":
    checkout, title = sys.argv[1:] or (tree.ROOT, "rooms")
    sys.path.insert(0, str(checkout))
    for file, text in made(Path(checkout), title).items():
        file.write_text(text, encoding="utf-8")
