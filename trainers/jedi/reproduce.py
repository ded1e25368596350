"""A subject from reference pictures: what each method makes of subjects it has never seen, and what the first picture costs.

Of every benchmark subject five prompts are drawn, three pictures each, from the same seeds by all. `ARTIFACTS` lists the
trained artifacts that draw from references, with true ones and with those of another subject; DreamBooth trains on
all five pictures of the subject first. Its seeds are seeds of training; nothing else is trained here.
"""

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from studio.evaluation import exam
from studio.evidence import subjects
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result
from studio.evidence.subjects import TOKEN, Trial, Variant, spread, trials, weights_of
from studio.metrics.config import SubjectEval
from studio.records import trained
from studio.settings import serial

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An artifact and what it is shown.

    Attributes:
        artifact: Its name, or a folder.
        references: Pictures of the subject, the first ones of its folder.
        shuffled: Show those of the next subject instead.
        token: Word before the class in prompts; empty for none.
        strength: As in `studio sample`.
        guidance: Scale of guidance.
    """

    artifact: str
    references: int = 1
    shuffled: bool = False
    token: str = ""
    strength: float = 1.0
    guidance: float = 2.5


ARTIFACTS: dict[str, Shown] = {
    "jedi-1": Shown(artifact="jedi-tiny", references=1, guidance=1.5),
    "jedi-3": Shown(artifact="jedi-tiny", references=3, guidance=1.5),
    "jedi-1-shuffled": Shown(artifact="jedi-tiny", references=1, guidance=1.5, shuffled=True),
    "jedi-3-shuffled": Shown(artifact="jedi-tiny", references=3, guidance=1.5, shuffled=True),
    "ip-adapter-1": Shown(artifact="ip-adapter-tiny"),
    "ip-adapter-1-shuffled": Shown(artifact="ip-adapter-tiny", shuffled=True),
    "instantbooth-1": Shown(artifact="instantbooth-tiny", token=TOKEN),
    "instantbooth-3": Shown(artifact="instantbooth-tiny", references=3, token=TOKEN),
    "instantbooth-1-shuffled": Shown(artifact="instantbooth-tiny", shuffled=True, token=TOKEN),
}
"""Variants by name. Those whose artifact is not there are left out, which the log says.

JeDi's guidance was chosen among 1.5, 2.5 and 4 by likeness on six of the subjects, with two prompts and a checkpoint of
2,250 steps.
"""
QUIET = {"preview.every": 0, "loop.checkpoint_every": 0}
DREAMBOOTH = {
    "dreambooth-lora-dit": Variant(preset="tiny", values={**QUIET, "method.model": "studio-tiny-dit"}),
    "dreambooth-lora": Variant(preset="tiny", values=QUIET),
}
PROMPTS = (0, 2, 4, 6, 7)
"""Prompts of the benchmark, which has ten: two plain colors, sky, brick, sand; all have true pictures."""
EXAMINATION: dict[str, Any] = {"num_images": 3, "steps": 20, "guidance": 2.5}


def _cells(request: Reproduce) -> Sequence[Cell]:
    """Subjects first, so that a stopped table is a fair one; DreamBooth last, since it costs most."""
    every = trials(request.bench)
    there = {name: shown for name, shown in ARTIFACTS.items() if trained.find(shown.artifact) is not None}
    for name in ARTIFACTS.keys() - there.keys():
        log.warning("%s is left out: there is no artifact %r.", name, ARTIFACTS[name].artifact)
    found = []
    for trial in spread(every, request.num_units):
        other = every[(every.index(trial) + 1) % len(every)]
        for name, shown in there.items():
            settings = _settings(trial, other if shown.shuffled else trial, shown, request)
            found.append(Cell(variant=name, unit=trial.name, seed=0, settings=settings))
    trainings = subjects.cells(request, "dreambooth", DREAMBOOTH, EXAMINATION)
    return [*found, *(_shortened(cell) for cell in trainings)]


def _settings(trial: Trial, seen: Trial, shown: Shown, request: Reproduce) -> dict[str, Any]:
    pictures = [str(path) for path in _pictures(seen.data)[: shown.references]]
    return {
        "shown": dataclasses.asdict(shown),
        "references": pictures,
        "weights": weights_of(_base(shown.artifact)) + weights_of(shown.artifact),
        "data": str(trial.exam),
        "prompts": [list(pair) for pair in _chosen(trial.prompts)],
        "eval": EXAMINATION,
        "hardware": serial.to_dict(request.hardware),
    }


def _chosen(prompts: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [prompts[i] for i in PROMPTS if i < len(prompts)]


def _shortened(cell: Cell) -> Cell:
    """A DreamBooth cell with the same prompts as the others."""
    return dataclasses.replace(cell, settings={**cell.settings, "prompts": _chosen(cell.settings["prompts"])})


def _pictures(folder: Path) -> list[Path]:
    from studio.data import layouts

    return sorted(record.path for record in layouts.find(folder).records if record.path.parent == folder)


def _run(cell: Cell, folder: Path) -> Result:
    if "shown" in cell.settings:
        return _show(cell, folder)
    done = subjects.run(cell, folder)
    first = done.seconds + _seconds_of(cell)
    return dataclasses.replace(done, measures={**done.measures, "first_picture_seconds": (None, first)})


def _show(cell: Cell, folder: Path) -> Result:
    """Draw with references, judge, and time one picture alone."""
    from studio.evaluation.scoring import Drawn, Scoring
    from studio.evaluation.subject import drawn_before
    from studio.settings.run import Hardware

    settings = cell.settings
    shown = Shown(**settings["shown"])
    asked = _exam(settings, shown.token)
    request = serial.from_dict(
        SubjectEval,
        {**settings["eval"], "artifact": shown.artifact, "data": settings["data"],
         "keep_base": str(folder.parent / "base-pictures"), "hardware": settings["hardware"]},
    )  # fmt: skip
    hardware = serial.from_dict(Hardware, settings["hardware"])
    scoring = Scoring(request, asked, _jury(hardware))
    base = _base(shown.artifact)
    before = drawn_before(_family(hardware, base)[0], asked, request)
    pictures, seconds = _draw(settings, asked, shown, hardware)
    rows = scoring.table(Drawn(before.subject, ()), Drawn(pictures, ()))
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")
    before.subject[0].save(folder / "base.png")
    measures: dict[str, tuple[float | None, float]] = {
        row.name: (row.base.mean if row.base else None, row.tuned.mean) for row in rows
    }
    columns = {"Base": [str(folder / "base.png")], "trained": [str(folder / "0.png")]}
    return Result(
        measures={**measures, "first_picture_seconds": (None, seconds)},
        seconds=0.0,
        pictures=columns,
        facts={"base model": f"{base} {weights_of(base)}", "judges": scoring.judges},
    )


def _exam(settings: Mapping[str, Any], token: str) -> exam.Exam:
    """The prompts without the benchmark's word for the subject, or with a method's own."""
    pairs = [
        (prompt.replace(TOKEN, token) if token else exam.without_token(prompt, TOKEN), target)
        for prompt, target in settings["prompts"]
    ]
    return exam.Exam(
        references=tuple(_pictures(Path(settings["data"]))),
        prompts=tuple(prompt for prompt, _ in pairs),
        targets={prompt: Path(target) for prompt, target in pairs if target},
        token=token,
    )


def _draw(
    settings: Mapping[str, Any], asked: exam.Exam, shown: Shown, hardware: Any
) -> tuple[list[Any], float]:
    """The pictures of all prompts, and the seconds that the first one takes by itself."""
    from studio.contracts.sampling import Request
    from studio.models.draw import draw
    from studio.sampling import reference_check

    family, edits = _family(hardware, _base(shown.artifact), shown.artifact, shown.strength)
    drawing = {**settings["eval"], "guidance": shown.guidance}
    seen = reference_check.read(settings["references"])
    request = Request(prompts=asked.prompts, edits=edits, references=seen, **drawing)
    started = time.perf_counter()
    draw(family, dataclasses.replace(request, prompts=asked.prompts[:1], num_images=1))
    seconds = time.perf_counter() - started
    return list(draw(family, request)), seconds


def _seconds_of(cell: Cell) -> float:
    """Seconds of one picture of the base model, which a trained one also takes."""
    from studio.contracts.sampling import Request
    from studio.models.draw import draw
    from studio.settings.run import Hardware

    hardware = serial.from_dict(Hardware, cell.settings["run"]["hardware"])
    family, _ = _family(hardware, cell.settings["run"]["method"]["model"])
    started = time.perf_counter()
    draw(family, Request(prompts=["a sticker"], **{**EXAMINATION, "num_images": 1}))
    return time.perf_counter() - started


def _base(artifact: str) -> str:
    """The model that an embedded artifact was trained on."""
    found = trained.find(artifact)
    return found.model if found else ""


@cache
def _family(hardware: Any, base: str, artifact: str = "", strength: float = 1.0) -> tuple[Any, list[Any]]:
    """The base model, or a copy of it with an artifact on."""
    from studio.backend.core import Backend
    from studio.models.build import load
    from studio.weights import artifacts

    family = load(base, Backend(hardware))
    loaded = artifacts.load(artifact, family, strength) if artifact else None
    return family, [loaded.edit] if loaded is not None and loaded.edit is not None else []


@cache
def _jury(hardware: Any) -> Any:
    from studio.backend.core import Backend
    from studio.metrics.build import Jury

    return Jury(Backend(hardware).device)


RECIPE = Recipe(
    title="A subject from reference pictures, against training on it",
    question=(
        "Shown one or three pictures of a subject that no model has seen, does a trained artifact draw it on new "
        "backgrounds, does it draw something else when shown another subject, and how much sooner is the first picture "
        "there than with DreamBooth?"
    ),
    cells=_cells,
    run=_run,
)
