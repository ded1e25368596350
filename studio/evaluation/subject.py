"""The evaluation use-case: how well an artifact draws its subject, against the model it started from.

    result = evaluate(SubjectEval(artifact="runs/unicorn", data="unicorn_held_out"))
    print(result.report)

Base and trained pictures share prompts and seeds, so changes are paired and their standard errors are small.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog import drawing
from studio.contracts.sampling import Edit, Request
from studio.evaluation import exam
from studio.evaluation.exam import Exam
from studio.evaluation.scoring import Drawn, Scoring
from studio.metrics import table
from studio.metrics.build import Jury
from studio.metrics.config import SubjectEval
from studio.metrics.subject import subject_scores
from studio.metrics.table import Row
from studio.models import build, draw
from studio.models.base import Family
from studio.records import places, runs, texts
from studio.records.runs import RunFolder
from studio.reports import report
from studio.reports.html import TRAINED, Column, Page, write
from studio.sampling import reference_check
from studio.settings import serial
from studio.settings.sampling import Text
from studio.weights import artifacts

log = logging.getLogger(__name__)
__all__ = ["Evaluation", "evaluate", "subject_scores"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and where it was written."""

    rows: Sequence[Row]
    folder: Path

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def scores(self) -> Path:
        """Every number as JSON."""
        return self.folder / "scores.json"


def evaluate(request: SubjectEval) -> Evaluation:
    """Draw with the base model and with the artifact, score both, write table, JSON and report.

    Raises:
        StudioError: Something named in the request cannot be used.
    """
    artifact = Path(places.artifact(request.artifact))
    named = exam.named_by(artifact)
    token, class_word = request.token or named.token, request.class_word or named.class_word
    asked = exam.read(request.data, request.prompts, token=token, class_word=class_word, phrase=named.prompt)
    backend = Backend(request.hardware)
    jury = Jury(backend.device, request.judges.batch_size)
    scoring = Scoring(request, asked, jury)
    text = texts.as_trained(request.text, Text(), [str(artifact)])
    family = build.load(request.model or named.model or build.EMBEDDED, backend, text=text)
    count = (len(asked.prompts) + len(asked.class_prompts)) * request.num_images
    log.info("drawing %d pictures with the base model, then as many with %s", count, artifact)
    request = resolved(request, family)
    base = drawn_before(family, asked, request)
    loaded = artifacts.load(artifact, family, strength=request.strength)
    tuned = drawn(family, asked, request, [loaded.edit] if loaded.edit else [])
    folder = _folder(request)
    result = Evaluation(scoring.table(base, tuned), folder)
    _save(folder / "pictures" / "base", base)
    _save(folder / "pictures" / "trained", tuned)
    _record(request, asked, scoring, result)
    write(_page(request, asked, scoring, result), result.report)
    return result


def resolved(request: SubjectEval, family: Family) -> SubjectEval:
    """A request with its steps and guidance: its own, else the model's card's, else the studio's."""
    steps = drawing.steps_of(request.steps, family.variant)
    return replace(request, steps=steps, guidance=drawing.guidance_of(request.guidance, family.variant))


def drawn(family: Family, asked: Exam, request: SubjectEval, edits: Sequence[Edit] = ()) -> Drawn:
    """Pictures of every prompt of an exam by the family as it is; edits may look at the exam's references."""
    seen = reference_check.read([str(path) for path in asked.references]) if edits else []

    def pictures(prompts: Sequence[str]) -> list[Image.Image]:
        if not prompts:
            return []
        wanted = Request(
            prompts=prompts,
            num_images=request.num_images,
            seed=request.seed,
            steps=drawing.steps_of(request.steps, family.variant),
            guidance=drawing.guidance_of(request.guidance, family.variant),
            edits=edits,
            references=seen,
        )
        rng = Rng.single(request.seed, 0, len(prompts) * request.num_images, family.backend.device)
        return draw.draw(family, wanted, rng, most=request.draw_batch)

    return Drawn(pictures(asked.prompts), pictures(asked.class_prompts))


def drawn_before(family: Family, asked: Exam, request: SubjectEval) -> Drawn:
    """The base model's pictures, kept for other evaluations where the request says so."""
    if not request.keep_base:
        return drawn(family, asked, request)
    request = resolved(request, family)
    asked_for = (request.num_images, request.seed, request.steps, request.guidance)
    key = repr((family.fingerprint(), family.text, asked.prompts, asked.class_prompts, asked_for))
    folder = Path(request.keep_base) / hashlib.sha256(key.encode()).hexdigest()[:16]
    wanted = {"subject": len(asked.prompts), "class": len(asked.class_prompts)}
    whole = all(len(_files(folder / kind)) == n * request.num_images for kind, n in wanted.items())
    if not (whole and (folder / "complete").exists()):
        _save(folder, drawn(family, asked, request))
        (folder / "complete").touch()
    return Drawn(*([Image.open(p).convert("RGB") for p in _files(folder / kind)] for kind in wanted))


def _folder(request: SubjectEval) -> Path:
    """Where the result goes: the given folder, or `eval` beside the artifact's weights."""
    place = Path(places.artifact(request.artifact))
    return Path(request.output) if request.output else (place if place.is_dir() else place.parent) / "eval"


def _save(folder: Path, images: Drawn) -> None:
    for kind, pictures in (("subject", images.subject), ("class", images.plain)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(pictures):
            picture.save(folder / kind / f"{index}.png")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"), key=lambda path: int(path.stem))


def _record(request: SubjectEval, asked: Exam, scoring: Scoring, result: Evaluation) -> None:
    values: dict[str, Any] = {
        "request": serial.to_dict(request),
        "judges": scoring.judges,
        "prompts": list(asked.prompts),
        "class_prompts": list(asked.class_prompts),
        "table": table.to_dict(result.rows),
        "each": scoring.values,
    }
    runs.write_text(result.scores, json.dumps(values, indent=1) + "\n")


def _page(request: SubjectEval, asked: Exam, scoring: Scoring, result: Evaluation) -> Page:
    """The report: what the run folder tells, and what was drawn and scored here."""
    columns = [_column(result.folder / "pictures" / name, title, request) for name, title in _KINDS]
    if asked.targets:
        found = [[asked.targets[p]] if p in asked.targets else [] for p in asked.prompts]
        columns.append(Column("True picture", found))
    folder = RunFolder(Path(places.artifact(request.artifact)))
    known = report.from_run(folder) if folder.config.is_file() else None
    return Page(
        title=f"What {Path(request.artifact).name} learned",
        eyebrow="Evaluation of a subject",
        summary=report.summary(result.rows),
        facts=known.facts if known else [("Artifact", Path(request.artifact).name)],
        references=asked.references,
        prompts=asked.prompts,
        columns=columns,
        scores=result.rows,
        judges=scoring.judges,
        curves=known.curves if known else (),
        settings=known.settings if known else None,
        command="\n".join([*([known.command] if known else []), _command(request)]),
    )


_KINDS = (("base", "Base model"), ("trained", TRAINED))


def _column(folder: Path, title: str, request: SubjectEval) -> Column:
    files = _files(folder / "subject")
    n = request.num_images
    return Column(title, [files[i : i + n] for i in range(0, len(files), n)])


def _command(request: SubjectEval) -> str:
    """The command that asks for this evaluation."""
    given = serial.to_dict(request)
    names = ("artifact", "data", "prompts", "token", "class_word", "num_images", "seed", "steps", "guidance")
    flags = [f"--{n.replace('_', '-')} {_quoted(given[n])}" for n in names if given[n] not in ("", None)]
    return " ".join(["studio eval subject", *flags])


def _quoted(value: Any) -> str:
    return f'"{value}"' if " " in str(value) else str(value)
