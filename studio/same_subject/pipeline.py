"""The pipeline: collage, panels, crops, filter, backgrounds, captions. What is left out is listed with its reason.

The output is a folder that `studio train jedi` takes (`set-00000/0.png` with `0.txt` and `0-masklabel.png`), with
`sets.jsonl` (set_id, class_name, images, source, filter_scores) and `rejects.jsonl` (set_id, class_name, reasons).
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from studio.backend.core import Backend
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.metrics.build import Jury
from studio.models.build import load
from studio.models.draw import draw
from studio.same_subject.background import repainted
from studio.same_subject.collages import Crop, crop, masked, panels, subject_of
from studio.same_subject.config import MakeSets

PANEL = 64
"""Least pixels of a panel's side."""


@dataclass
class Made:
    """One set in the making: what is left of it, and why the rest is not."""

    number: int
    subject: str
    seed: int
    crops: list[Crop] = field(default_factory=list[Crop])
    reasons: list[str] = field(default_factory=list[str])
    scores: dict[str, float] = field(default_factory=dict[str, float])
    captions: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"set-{self.number:05d}"


class Workshop:
    """A model that draws, and judges that compare."""

    def __init__(self, settings: MakeSets) -> None:
        """Load both."""
        self.settings = settings
        backend = Backend(settings.hardware)
        self.family = load(settings.model, backend, text=settings.text, parts=settings.parts)
        self._jury = Jury(backend.device, settings.judges.batch_size)
        self._text = self._jury.text_of(settings.judges)

    def make(self, number: int, subject: str, seed: int) -> Made:
        """One set, as far as it comes."""
        made = Made(number, subject, seed)
        made.crops = self._cut(self.collage(subject, seed), made)
        self._filter(made)
        if len(made.crops) > 1 and self.settings.scenes:
            self._repaint(made)
            self._filter(made)
        if not made.captions:
            made.captions = [self._caption(subject, "")] * len(made.crops)
        return made

    def _caption(self, subject: str, scene: str) -> str:
        return " ".join(self.settings.caption.format(subject=subject, scene=scene).split())

    def collage(self, subject: str, seed: int) -> Image.Image:
        """Several pictures of one subject in one picture."""
        settings, family = self.settings, self.family
        side = settings.collage_side or max(family.default_size, PANEL * max(settings.rows, settings.columns))
        prompt = settings.collage_prompt.format(count=settings.rows * settings.columns, subject=subject)
        request = Request(
            prompts=[prompt],
            seed=seed,
            steps=settings.steps,
            guidance=settings.guidance,
            width=side,
            height=side,
        )
        return draw(family, request)[0]

    def _cut(self, collage: Image.Image, made: Made) -> list[Crop]:
        """The subjects of the panels that have one."""
        settings, found = self.settings, []
        side = settings.side or self.family.default_size
        for index, panel in enumerate(panels(collage, settings.rows, settings.columns)):
            mask = subject_of(panel, threshold=settings.color_distance)
            area = float(mask.mean())
            if area < settings.min_area:
                made.reasons.append(
                    f"panel {index}: the subject covers {area:.2f}, min_area is {settings.min_area:g}"
                )
            elif area > settings.max_area:
                made.reasons.append(
                    f"panel {index}: the subject covers {area:.2f}, max_area is {settings.max_area:g}"
                )
            else:
                found.append(crop(panel, mask, side, margin=settings.margin))
        return found

    def _filter(self, made: Made) -> None:
        """Take out what does not look like the subject, doubles, and what does not look like the others."""
        self._unfit(made)
        settings = self.settings
        judge = self._jury.judge(settings.judges.likeness)
        while len(made.crops) > 1:
            features = judge.pictures([masked(one) for one in made.crops])
            cosine = features @ features.T
            cosine.fill_diagonal_(-1.0)
            if float(cosine.max()) > settings.max_likeness:
                worst = int(cosine.amax(1).argmax())
                self._leave(
                    made,
                    worst,
                    f"a near duplicate of another at {cosine.max():.2f}, max_likeness is {settings.max_likeness:g}",
                )
                continue
            cosine.fill_diagonal_(1.0)
            made.scores["min_likeness"] = least = float(cosine.min())
            if least >= settings.min_likeness:
                return
            worst = int(cosine.mean(1).argmin())
            self._leave(
                made, worst, f"unlike another at {least:.2f}, min_likeness is {settings.min_likeness:g}"
            )
        if made.crops and len(made.crops) < 2:
            made.reasons.append("fewer than two members are left")
            made.crops.clear()

    def _unfit(self, made: Made) -> None:
        """Take out what does not fit the subject's name, where there is a judge of texts."""
        if self._text is None or not made.crops:
            return
        judge = self._jury.text_judge(self._text)
        fits = (
            judge.pictures([masked(one) for one in made.crops])
            @ judge.texts([f"a photo of {made.subject}"])[0]
        )
        for index in reversed(range(len(made.crops))):
            if float(fits[index]) < self.settings.min_fit:
                self._leave(
                    made,
                    index,
                    f"fits {made.subject!r} at {fits[index]:.2f}, min_fit is {self.settings.min_fit:g}",
                )
        kept = [float(value) for value in fits if float(value) >= self.settings.min_fit]
        made.scores["min_fit"] = min(kept, default=0.0)

    def _leave(self, made: Made, index: int, reason: str) -> None:
        made.reasons.append(f"member {index}: {reason}")
        made.crops.pop(index)
        if made.captions:
            made.captions.pop(index)

    def _repaint(self, made: Made) -> None:
        """Every member on a scene of its own."""
        settings = self.settings
        for index, one in enumerate(made.crops):
            scene = settings.scenes[(made.number + index) % len(settings.scenes)]
            prompt = self._caption(made.subject, scene)
            request = Request(
                prompts=[prompt], seed=made.seed + index, steps=settings.steps, guidance=settings.guidance
            )
            made.crops[index] = dataclasses.replace(
                one, picture=repainted(self.family, one.picture, one.mask, request)
            )
            made.captions.append(prompt)


def make(settings: MakeSets) -> Iterator[dict[str, Any]]:
    """Make all sets; yields an event a collage, and the last one counts them. What is there already is kept.

    Raises:
        StudioError: A file of subjects cannot be read.
    """
    subjects = _subjects(settings.subjects)
    workshop, folder = Workshop(settings), Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    first = _next_number(folder)
    kept = 0
    for number in range(len(subjects) * settings.collages):
        subject, seed = subjects[number // settings.collages], settings.seed + 1000 * number
        made = workshop.make(first + number, subject, seed)
        kept += bool(made.crops)
        _write(folder, made, settings)
        yield {
            "event": "set", "set": made.name, "subject": subject, "members": len(made.crops), "reasons": made.reasons,
        }  # fmt: skip
    yield {
        "event": "done",
        "sets": kept,
        "collages": len(subjects) * settings.collages,
        "folder": str(folder),
    }


def _subjects(given: Sequence[str]) -> list[str]:
    """Names as given, and the lines of files."""
    found: list[str] = []
    for text in given:
        if not text.startswith("@"):
            found.append(text)
            continue
        try:
            lines = Path(text[1:]).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StudioError(
                f"Cannot read the subjects in {text[1:]!r} ({error}); give a text file with one a line.",
                field="subjects",
            ) from None
        found += [line.strip() for line in lines if line.strip()]
    return found


def _next_number(folder: Path) -> int:
    """The first number after all sets made or rejected so far."""
    lines = [
        line
        for name in ("sets.jsonl", "rejects.jsonl")
        if (folder / name).is_file()
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    return max((int(json.loads(line)["set_id"].removeprefix("set-")) + 1 for line in lines), default=0)


def _write(folder: Path, made: Made, settings: MakeSets) -> None:
    """A set's pictures and its line; of what was left out, a line with the reasons."""
    told = {"set_id": made.name, "class_name": made.subject}
    if made.reasons:
        _append(folder / "rejects.jsonl", {**told, "whole": not made.crops, "reasons": made.reasons})
    if not made.crops:
        return
    images = []
    (folder / made.name).mkdir()
    for index, (one, caption) in enumerate(zip(made.crops, made.captions, strict=True)):
        path = folder / made.name / f"{index}.png"
        one.picture.save(path)
        one.mask.save(path.with_name(f"{index}-masklabel.png"))
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
        images.append(
            {
                "path": f"{made.name}/{path.name}",
                "caption": caption,
                "mask_path": f"{made.name}/{index}-masklabel.png",
            }
        )
    source = {"model": settings.model, "seed": made.seed}
    _append(folder / "sets.jsonl", {**told, "images": images, "source": source, "filter_scores": made.scores})


def _append(path: Path, values: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")
