"""Makes a method's table of evidence again: `studio reproduce METHOD`. No torch.

A method's `trainers/METHOD/reproduce.py` holds `RECIPE`: which cells (variant x unit x seed) to run and how. Each
finished cell is one JSON file, named by the hash of its settings, so that a stopped reproduction goes on where it
was, and a changed recipe runs its changed cells only.
"""

import hashlib
import importlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studio.catalog import methods
from studio.errors import StudioError
from studio.evidence import tables
from studio.evidence.tables import Finished
from studio.records import runs
from studio.settings.config import Count, config
from studio.settings.run import Hardware

log = logging.getLogger(__name__)


@config
class Reproduce:
    """Run a method's recipe and write its table of evidence."""

    method: str
    """Method whose recipe to run, or METHOD_STUDY for a further one, such as oft_control."""
    bench: str = ""
    """Folder of the benchmark's subjects; empty takes the sample subjects that come with the studio."""
    output: str = "reproduce"
    """Folder of the cells: finished ones are not run again."""
    evidence: str = "docs/evidence"
    """Folder of the tables."""
    only: tuple[str, ...] = ()
    """Patterns of cells to run, such as 'lora/*'; none runs all."""
    num_units: Count = 0
    """Subjects (or other units) to take, evenly over all of them; 0 takes all."""
    num_seeds: Annotated[int, Field(ge=1)] = 2
    """Training seeds a unit."""
    minutes: Annotated[float, Field(ge=0)] = 0
    """Start no further cell after so many minutes; 0 has no limit."""
    hardware: Hardware = Hardware()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a recipe. `settings` is everything that decides its result."""

    variant: str
    unit: str
    seed: int
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The cell as people and `--only` name it."""
        return f"{self.variant}/{self.unit}/seed-{self.seed}".replace(" ", "_")

    @property
    def key(self) -> str:
        """Changes whenever the settings do."""
        text = json.dumps(dict(self.settings), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a cell measured: name to (before, after), before being None where there is none."""

    measures: Mapping[str, tuple[float | None, float]]
    seconds: float
    """Training alone."""
    pictures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Column title to picture files, for the grid."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Hardware, judges and the like, one line each."""
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    """Name to points (x, y) of the training."""
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name to texts, for what the recipe puts under its table."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a method is tried."""

    title: str
    question: str
    """What the table answers, in one sentence."""
    cells: Callable[[Reproduce], Sequence[Cell]]
    run: Callable[[Cell, Path], Result]
    """Runs a cell in a folder of its own."""
    charts: Callable[[Sequence[Finished], Path], Path] | None = None
    """Draws the curves of finished cells into METHOD-curves.svg."""
    more: Callable[[Sequence[Finished], Path], str] | None = None
    """Markdown to put under the table, such as a plot that it writes into the folder of the tables."""


Event = dict[str, Any]


def recipe_of(method: str) -> Recipe:
    """The recipe of a method, or a further study of it, found by the method's folder.

    Raises:
        StudioError: There is no such method, or it has no recipe.
    """
    wanted = method.replace("-", "_")
    known = recipes()
    if wanted not in known:
        name = methods.card(method).name
        raise StudioError(
            f"Method {name!r} has no recipe; those that have one: {', '.join(known) or 'none'}.",
            field="method",
        )
    return importlib.import_module(known[wanted]).RECIPE


def recipes() -> dict[str, str]:
    """Names of all recipes to their modules: METHOD for its `reproduce.py`, METHOD_STUDY for `reproduce_STUDY.py`."""
    folders = [place / name for place in methods.places() for name in methods.ours()]
    files = [file for folder in folders for file in sorted(folder.glob("reproduce*.py"))]
    return {
        f.parent.name + f.stem.removeprefix("reproduce"): f"trainers.{f.parent.name}.{f.stem}" for f in files
    }


def reproduce(request: Reproduce, recipe: Recipe | None = None) -> Iterator[Event]:
    """Run what is not finished yet, then write the tables. Yields an event a cell, and the last one names the files.

    Closing the generator stops after the cell in progress is lost; finished cells stay.
    """
    recipe = recipe or recipe_of(request.method)
    cells = _chosen(recipe.cells(request), request)
    started, skipped = time.monotonic(), 0
    finished: list[Finished] = []
    for number, cell in enumerate(cells, start=1):
        file = _file(request, cell)
        late = request.minutes and time.monotonic() - started > 60 * request.minutes
        if late and not file.exists():
            skipped += 1
            continue
        fresh = not file.exists()
        done = _run(recipe, cell, file) if fresh else Finished(**json.loads(file.read_text(encoding="utf-8")))
        finished.append(done)
        yield {
            "event": "cell",
            "cell": cell.name,
            "number": number,
            "of": len(cells),
            "fresh": fresh,
            "measures": done.measures,
        }
    if not finished:
        raise StudioError("No cell is finished; give more --minutes.", field="minutes")
    about = {"title": recipe.title, "question": recipe.question, "command": _command(request)}
    more = recipe.more(finished, _made(request.evidence)) if recipe.more else ""
    files = tables.write(request.method, finished, Path(request.evidence), about, more)
    if recipe.charts:
        files.append(recipe.charts(finished, Path(request.evidence) / f"{request.method}-curves.svg"))
    yield {"event": "done", "files": [str(f) for f in files], "cells": len(finished), "skipped": skipped}


def _made(folder: str) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def _chosen(cells: Sequence[Cell], request: Reproduce) -> list[Cell]:
    chosen = [c for c in cells if not request.only or any(fnmatch(c.name, p) for p in request.only)]
    if not chosen:
        raise StudioError(
            f"--only {' '.join(request.only)!r} fits no cell; cells are called such as {cells[0].name!r}.",
            field="only",
        )
    return chosen


def _file(request: Reproduce, cell: Cell) -> Path:
    return (
        Path(request.output) / request.method / f"{cell.name.replace('/', '--')}-{cell.key}" / "result.json"
    )


def _run(recipe: Recipe, cell: Cell, file: Path) -> Finished:
    """Run a cell and keep its result; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    log.info("running %s", cell.name)
    result = recipe.run(cell, file.parent)
    done = Finished(
        variant=cell.variant,
        unit=cell.unit,
        seed=cell.seed,
        settings=dict(cell.settings),
        commit=tables.commit(),
        **{**asdict(result), "measures": {name: list(pair) for name, pair in result.measures.items()}},
    )
    runs.write_text(file, json.dumps(asdict(done), indent=1, default=str) + "\n")
    return done


def new_run(folder: Path) -> str:
    """A name for a cell's run: what a stopped attempt left in `folder` is not written over."""
    tries = len(list(folder.glob("run*/config.json")))
    return f"run-{tries}" if tries else "run"


def _command(request: Reproduce) -> str:
    flags = [f"--num-seeds {request.num_seeds}"]
    flags += [f"--num-units {request.num_units}"] if request.num_units else []
    flags += ["--bench DIR"] if request.bench else []
    return " ".join(["studio reproduce", request.method, *flags])
