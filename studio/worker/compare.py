"""The compare grid: one request drawn along two axes, as cells with their recipes and as one sheet."""

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from studio.errors import StudioError
from studio.records import recipes
from studio.sampling.grid import Axis, axes, changed
from studio.settings.sampling import SampleRequest
from studio.settings.serial import from_dict
from studio.training.session import Session, at_step, opened
from studio.worker import live

MARGIN = 28
Draw = Callable[[SampleRequest], Generator[Any, None, dict[str, Any]]]


@dataclass(frozen=True)
class Counted:
    """Cells drawn so far."""

    done: int
    total: int
    last: Path

    def preview(self) -> list[Image.Image]:
        """The newest cell."""
        with Image.open(self.last) as picture:
            return [picture.convert("RGB")]


def compare(payload: Mapping[str, Any], draw: Draw, folder: Path) -> Generator[Counted, None, dict[str, Any]]:
    """Draw every cell; yields after each, and returns the files."""
    x, y = axes(payload)
    base = dataclasses.replace(
        from_dict(SampleRequest, payload["request"]), num_images=1, grid=False, output=str(folder / "cells")
    )
    base = dataclasses.replace(base, prompt=base.prompt[:1])
    kept = _Checkpoints(base, folder / "cells") if "checkpoint" in (x.name, y.name) else None
    cells: dict[tuple[int, int], Path] = {}
    for row, column in _order(x, y):
        request = changed(changed(base, x.name, x.values[column]), y.name, y.values[row])
        if kept:
            kept.take(x.values[column] if x.name == "checkpoint" else y.values[row])
            cells[row, column] = kept.draw(request)
        else:
            cells[row, column] = _drawn(draw(request))
        yield Counted(len(cells), len(x.values) * len(y.values), cells[row, column])
    rows = [[cells[row, column] for column in range(len(x.values))] for row in range(len(y.values))]
    path = folder / "grid.png"
    sheet(rows, x, y).save(path)
    return {
        "sheet": str(path),
        "cells": [[str(cell) for cell in row] for row in rows],
        "x": dataclasses.asdict(x),
        "y": dataclasses.asdict(y),
    }


def _drawn(steps: Generator[Any, None, dict[str, Any]]) -> Path:
    """The picture of one cell; the grid counts cells, not sampler steps."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return Path(finished.value["pictures"][0])


def _order(x: Axis, y: Axis) -> Iterator[tuple[int, int]]:
    """(row, column) so that what needs other weights changes least often."""
    heavy = ("artifact", "strength", "checkpoint")
    if x.name in heavy and y.name not in heavy:
        yield from ((row, column) for column in range(len(x.values)) for row in range(len(y.values)))
    else:
        yield from ((row, column) for row in range(len(y.values)) for column in range(len(x.values)))


class _Checkpoints:
    """Draws from the checkpoints of one run, with the run's own trainer."""

    def __init__(self, request: SampleRequest, folder: Path) -> None:
        if len(request.artifact) != 1 or request.edits:
            raise StudioError(
                "The axis 'checkpoint' takes exactly one run as the artifact, and no edits.", field="artifact"
            )
        self._session: Session = opened(request.artifact[0])
        self._folder, self._count, self._step = folder, 0, -1
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, text: str) -> None:
        """Go to a checkpoint, named by its step."""
        if not text.isdigit():
            raise StudioError(f"{text!r} is no step of a checkpoint; give whole numbers.", field="checkpoint")
        if int(text) != self._step:
            self._step = int(text)
            at_step(self._session, self._step)

    def draw(self, request: SampleRequest) -> Path:
        """One cell."""
        plain = dataclasses.replace(request, artifact=())
        picture = live.pictures(self._session, plain)[0]
        path = self._folder / f"{self._count:05d}-{plain.seed}.png"
        self._count += 1
        recipes.write(path, picture, recipes.one(plain, plain.prompt[0], plain.seed, picture.size))
        return path


def sheet(rows: Sequence[Sequence[Path]], x: Axis, y: Axis) -> Image.Image:
    """All cells as one picture, with the values at its sides."""
    with Image.open(rows[0][0]) as first:
        width, height = first.size
    left = 0 if y.values == ("",) else max(90, width // 2)
    page = Image.new("RGB", (left + width * len(rows[0]), MARGIN + height * len(rows)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for column, value in enumerate(x.values):
        pen.text((left + column * width + 6, 7), _label(x.name, value, width), fill="#222", font=font)
    for row, paths in enumerate(rows):
        if left:
            pen.text(
                (6, MARGIN + row * height + 6), _label(y.name, y.values[row], left), fill="#222", font=font
            )
        for column, path in enumerate(paths):
            with Image.open(path) as picture:
                page.paste(picture.convert("RGB"), (left + column * width, MARGIN + row * height))
    return page


def _label(name: str, value: str, pixels: int) -> str:
    text = value if name in ("prompt", "artifact") else f"{name} {value}".strip()
    room = max(6, pixels // 7)
    return text if len(text) <= room else text[: room - 1] + "…"
