"""Tables of evidence: finished cells to means with their spread, as Markdown, JSON and a picture. No torch."""

import dataclasses
import json
import subprocess
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from studio.metrics.statistics import Estimate, estimate, grouped
from studio.records import runs

TILE, GAP, MARGIN, HEAD, SIDE = 112, 8, 28, 60, 128
"""Pixels: a picture, between pictures, around all, above for titles, left for names."""
LETTERS = 16
"""Letters of a title that fit above a picture."""
PAPER, INK, SOFT = (250, 249, 246), (28, 27, 25), (106, 102, 95)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A cell and its result, as kept on disk."""

    variant: str
    unit: str
    seed: int
    settings: Mapping[str, Any]
    measures: Mapping[str, Sequence[float | None]]
    seconds: float
    pictures: Mapping[str, Sequence[str]]
    facts: Mapping[str, str]
    commit: str
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One measure of one variant, over its cells.

    `base`, `tuned` and `change` are means over units of means over seeds; their standard errors count units.
    `spread` is the standard deviation of the trained value over all cells.
    """

    variant: str
    measure: str
    base: Estimate | None
    tuned: Estimate
    change: Estimate | None
    spread: float
    num_cells: int

    @property
    def errors(self) -> float | None:
        """The change in standard errors."""
        return self.change.mean / self.change.se if self.change and self.change.se else None


def commit() -> str:
    """The commit of the code, marked if files differ from it; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
        )  # the user's own git
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("describe", "--always", "--dirty", "--abbrev=12")


def lines(cells: Sequence[Finished]) -> list[Line]:
    """The table: variants in the order in which they came, measures in theirs."""
    found: list[Line] = []
    for variant in dict.fromkeys(cell.variant for cell in cells):
        own = [cell for cell in cells if cell.variant == variant]
        measures = dict.fromkeys(name for cell in own for name in cell.measures)
        found += [_line(variant, measure, [c for c in own if measure in c.measures]) for measure in measures]
        found.append(_seconds(variant, own))
    return found


def _line(variant: str, measure: str, cells: Sequence[Finished]) -> Line:
    before, after, change = {}, {}, {}
    for cell in cells:
        low, high = cell.measures[measure]
        if high is None:
            raise ValueError(f"{measure} of {variant}/{cell.unit} has no value")
        after[cell.unit, cell.seed] = high
        if low is not None:
            before[cell.unit, cell.seed], change[cell.unit, cell.seed] = low, high - low
    return Line(
        variant,
        measure,
        grouped(before) if before else None,
        grouped(after),
        grouped(change) if change else None,
        estimate(after.values()).std,
        len(cells),
    )


def _seconds(variant: str, cells: Sequence[Finished]) -> Line:
    values = {(cell.unit, cell.seed): cell.seconds for cell in cells}
    return Line(
        variant, "training seconds", None, grouped(values), None, estimate(values.values()).std, len(cells)
    )


def write(
    method: str, cells: Sequence[Finished], folder: Path, about: Mapping[str, str], more: str = ""
) -> list[Path]:
    """Write METHOD.md, `more` at its end, METHOD.json and, if the cells drew pictures, METHOD.png."""
    folder.mkdir(parents=True, exist_ok=True)
    table = lines(cells)
    picture = folder / f"{method}.png"
    drawn = grid(cells)
    if drawn:
        drawn.save(picture, optimize=True)
    values = {
        **about,
        "facts": facts(cells),
        "table": [dataclasses.asdict(line) | {"change_in_standard_errors": line.errors} for line in table],
        "cells": [_short(cell) for cell in cells],
    }
    files = [folder / f"{method}.md", folder / f"{method}.json"]
    page = markdown(table, cells, about, picture.name if drawn else "")
    runs.write_text(files[0], f"{page}\n{more}" if more else page)
    runs.write_text(files[1], json.dumps(values, indent=1) + "\n")
    return files + ([picture] if drawn else [])


def _short(cell: Finished) -> dict[str, Any]:
    keep = ("variant", "unit", "seed", "measures", "seconds", "commit", "curves")
    return {name: getattr(cell, name) for name in keep}


def facts(cells: Sequence[Finished]) -> dict[str, str]:
    """What decides how to read the table; where cells differ, all values."""
    found = {
        name: ", ".join(dict.fromkeys(c.facts[name] for c in cells if name in c.facts))
        for name in _names(cells)
    }
    found["commit"] = (
        ", ".join(dict.fromkeys(cell.commit for cell in cells if cell.commit)) or "not a checkout"
    )
    found["training minutes, all cells"] = f"{sum(cell.seconds for cell in cells) / 60:.1f}"
    return found


def _names(cells: Sequence[Finished]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell.facts))


def markdown(table: Sequence[Line], cells: Sequence[Finished], about: Mapping[str, str], picture: str) -> str:
    """The evidence as a page."""
    units, seeds = {c.unit for c in cells}, {c.seed for c in cells}
    text = [
        f"# {about['title']}",
        about["question"],
        f"`{about['command']}`",
        "\n".join(f"- {name}: {value}" for name, value in facts(cells).items()),
        (
            f"Means over {len(units)} units ({', '.join(sorted(units))}) of means over {len(seeds)} seeds. ± is the "
            "standard error over units; SEs is the change in standard errors; spread is the standard deviation over "
            "all cells."
        ),
    ]
    text += _overview(table, cells)
    for variant in dict.fromkeys(line.variant for line in table):
        own = [line for line in table if line.variant == variant]
        rows = [
            "| measure | base | trained | change | SEs | spread | cells |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        rows += [_row(line) for line in own]
        text += [f"## {variant}", "\n".join(rows)]
    if picture:
        text += [f"![One picture a subject and column, first prompt and seed]({picture})"]
    return "\n\n".join(text) + "\n"


def _overview(table: Sequence[Line], cells: Sequence[Finished]) -> list[str]:
    """All variants side by side after training, each base model before its own; nothing where there is one variant."""
    variants = list(dict.fromkeys(line.variant for line in table))
    if len(variants) < 2:
        return []
    by_place = {(line.measure, line.variant): line for line in table}
    model = {cell.variant: cell.facts.get("base model", "") for cell in cells}
    groups = {
        name: [v for v in variants if model[v] == name] for name in dict.fromkeys(map(model.get, variants))
    }
    titles = ["measure"]
    for name, own in groups.items():
        titles += [f"base: {name.split()[0]}" if len(groups) > 1 and name else "base", *own]
    rows = [f"| {' | '.join(titles)} |", "| --- |" + " --- |" * (len(titles) - 1)]
    for measure in dict.fromkeys(line.measure for line in table):
        values = [measure]
        for own in groups.values():
            lines = [by_place.get((measure, variant)) for variant in own]
            values.append(next((_told(line, line.base) for line in lines if line and line.base), "-"))
            values += [_told(line, line.tuned) if line else "-" for line in lines]
        rows.append(f"| {' | '.join(values)} |")
    return ["## At a glance", "\n".join(rows)]


def _base_titles(cells: Sequence[Finished]) -> dict[str, str]:
    """By variant: what the column of its base model is called, which says its name if there are several."""
    models = {cell.variant: cell.facts.get("base model", "").partition(" ")[0] for cell in cells}
    several = len(set(models.values())) > 1
    return {variant: f"base: {name}" if several and name else "base" for variant, name in models.items()}


def _told(line: Line, value: Estimate | None, sign: str = "") -> str:
    if value is None:
        return "-"
    digits = 1 if abs(line.tuned.mean) >= 10 else 3
    error = f" ± {value.se:.{digits}f}" if value.n > 1 else ""
    return f"{value.mean:{sign}.{digits}f}{error}"


def _row(line: Line) -> str:
    errors = "-" if line.errors is None else f"{line.errors:+.1f}"
    spread = f"{line.spread:.3g}" if line.num_cells > 1 else "-"
    cells = [
        line.measure,
        _told(line, line.base),
        _told(line, line.tuned),
        _told(line, line.change, "+"),
        errors,
        spread,
        str(line.num_cells),
    ]
    return f"| {' | '.join(cells)} |"


def grid(cells: Sequence[Finished]) -> Image.Image | None:
    """Rows are units, columns what each variant drew first, all from the lowest seed; None without pictures."""
    units = _shown(cells)
    columns = list(dict.fromkeys(name for row in units.values() for name in row))
    columns.sort(key=lambda name: (name.startswith("True"), ":" in name))
    if not columns:
        return None
    size = (
        2 * MARGIN + SIDE + len(columns) * (TILE + GAP) - GAP,
        2 * MARGIN + HEAD + len(units) * (TILE + GAP) - GAP,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for x, column in enumerate(columns):
        words = "\n".join(line for part in column.split(": ") for line in textwrap.wrap(part, LETTERS))
        pen.multiline_text((MARGIN + SIDE + x * (TILE + GAP), MARGIN), words, INK, font)
    for y, (unit, row) in enumerate(units.items()):
        top = MARGIN + HEAD + y * (TILE + GAP)
        pen.text((MARGIN, top + TILE / 2 - 8), unit, SOFT, font)
        for column, file in row.items():
            sheet.paste(_tile(file), (MARGIN + SIDE + columns.index(column) * (TILE + GAP), top))
    return sheet


def _shown(cells: Sequence[Finished]) -> dict[str, dict[str, str]]:
    """Unit to column title to the file that is shown; units with the same variants stand together.

    Titles in small letters are told apart by variant where a unit has them from several.
    """
    drew = {(c.unit, title, c.variant) for c in cells for title in c.pictures if title.islower()}
    several = {title for (_, title), count in Counter((u, t) for u, t, _ in drew).items() if count > 1}
    units: dict[str, dict[str, str]] = {}
    bases = _base_titles(cells)
    for cell in sorted(cells, key=lambda c: c.seed):
        for title, files in cell.pictures.items():
            column = f"{cell.variant}: {title}" if title in several else title
            column = bases[cell.variant].capitalize() if title == "Base" else column
            if files and Path(files[0]).is_file():
                units.setdefault(cell.unit, {}).setdefault(column, files[0])
    first = {cell.unit: cell.variant for cell in reversed(cells)}
    order = list(dict.fromkeys(cell.variant for cell in cells))
    return dict(sorted(units.items(), key=lambda unit: order.index(first[unit[0]])))


def _tile(file: str) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
