"""The sampling use-case: a request becomes pictures on disk, each with the recipe that draws it again."""

import dataclasses
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from studio.backend.core import Backend
from studio.catalog import drawing, methods, run_folder
from studio.catalog.family import Variant
from studio.contracts.sampling import Edit, Request
from studio.errors import StudioError
from studio.models import build, draw
from studio.models.base import Family
from studio.models.draw import Progress
from studio.records import recipes, runs, texts, trained
from studio.sampling import reference_check
from studio.settings import serial
from studio.settings.sampling import READ, Parts, SampleRequest
from studio.weights import artifacts

FALLBACK_MODEL = build.EMBEDDED


@dataclass(frozen=True)
class Sampled:
    """What was drawn.

    Attributes:
        images: Pictures, prompt by prompt.
        paths: Their files, in the same order.
        grid: File of all of them as one, or None.
        request: The request with its model, scheduler and size filled in.
    """

    images: Sequence[Image.Image]
    paths: Sequence[Path]
    grid: Path | None
    request: SampleRequest


def sample(
    request: SampleRequest, family: Family | None = None, edits: Sequence[Edit] = ()
) -> Generator[Progress, None, Sampled]:
    """Draw a request: yields after every sampler step, and returns what was drawn.

    Args:
        request: What to draw.
        family: A loaded model to use as it is, artifacts included; None loads what the request names.
        edits: What `load` gave beside that model.
    """
    request = dataclasses.replace(request, model=request.model or model_of(request.artifact))
    reference_check.check(request)
    pictures = reference_check.read(request.reference)
    _make_folder(Path(request.output))
    request = _named(request)
    if family is None:
        family, edits = load(request)
    request = _filled(request, family)
    asked = asking(request, [*edits, *(load_edit(text, family) for text in request.edits)], pictures)
    images = yield from draw.drawing(family, asked, phi=request.rescale)
    paths = _write(request, images, family.fingerprint())
    return Sampled(images, paths, _write_grid(request, images, paths), request)


def asking(
    request: SampleRequest, edits: Sequence[Edit] = (), pictures: Sequence[Image.Image] = ()
) -> Request:
    """What a request asks of a model or a trainer, its numbers filled in (`resolved`); `pictures` are its references."""
    return Request(
        prompts=request.prompt,
        negative=request.negative,
        num_images=request.num_images,
        seed=request.seed,
        steps=drawing.steps_of(request.steps, None),
        guidance=drawing.guidance_of(request.guidance, None),
        width=request.width,
        height=request.height,
        scheduler=request.scheduler,
        edits=edits,
        references=pictures,
    )


def run(request: SampleRequest, family: Family | None = None) -> Sampled:
    """`sample` without looking at its progress."""
    steps = sample(request, family)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def load(request: SampleRequest) -> tuple[Family, list[Edit]]:
    """The model of a request with its artifacts on, and what these change while sampling."""
    backend, request = Backend(request.hardware), _named(request)
    family = build.load(request.model, backend, text=request.text, parts=request.parts)
    pairs = zip(request.artifact, request.strengths(), strict=True)
    loaded = [artifacts.load(path, family, strength) for path, strength in pairs]
    return family, [one.edit for one in loaded if one.edit is not None]


def _named(request: SampleRequest) -> SampleRequest:
    """A request with its model, and with text read as its artifacts, or the model, were trained where it says so."""
    model = request.model or model_of(request.artifact)
    text = (
        texts.as_trained(request.text, READ, [*request.artifact, model])
        if request.as_trained
        else request.text
    )
    parts = request.parts if request.model or request.parts != Parts() else _parts_of(request.artifact)
    return dataclasses.replace(request, model=model, text=text, parts=parts)


def _parts_of(paths: Sequence[str]) -> Parts:
    """The parts that the first run among some artifacts was trained with, beside its model."""
    for path in paths:
        if run_folder.is_run(Path(path)):
            _, run_of = runs.open_run(path)
            return getattr(run_of.method, "parts", Parts())
    return Parts()


def model_of(paths: Sequence[str]) -> str:
    """The model that the first of some artifacts that tells was trained on; the embedded one if none tells."""
    for path in paths:
        if (own := trained.find(path)) is not None and own.model:
            return own.model
        if run_folder.is_run(Path(path)):
            _, run_of = runs.open_run(path)
            return str(serial.to_dict(run_of.method).get("model", FALLBACK_MODEL))
    return FALLBACK_MODEL


def resolved(request: SampleRequest, variant: Variant | None) -> SampleRequest:
    """A request with its steps and guidance: its own, else what its first artifact asks for, else the model's card's.

    Args:
        request: What to draw.
        variant: The published model that it is drawn with; None takes the studio's own numbers.
    """
    found = (trained.find(path) for path in request.artifact)
    wanted = (own.guidance for own in found if own is not None and own.guidance is not None)
    given = request.guidance if request.guidance is not None else next(wanted, None)
    steps, guidance = drawing.steps_of(request.steps, variant), drawing.guidance_of(given, variant)
    return dataclasses.replace(request, steps=steps, guidance=guidance)


def load_edit(text: str, family: Family) -> Edit:
    """An edit from its name or its settings as JSON; built as `Class(settings, family)`.

    Raises:
        StudioError: The text is no name and no JSON, or the method is not an edit.
    """
    values: dict[str, Any] = {"kind": text}
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise StudioError(
                f"Edit {text!r} is not valid JSON ({error}); check quotes.", field="edits"
            ) from None
    if "kind" not in values:
        raise StudioError(f'Edit {text!r} names no method; add "kind", such as "decor".', field="edits")
    card = methods.card(str(values.pop("kind")))
    if not card.edit:
        raise StudioError(f"Method {card.name!r} trains a model and does not edit sampling.", field="edits")
    return card.load_edit()(serial.from_dict(card.config, values, where="edits"), family)


def _filled(request: SampleRequest, family: Family) -> SampleRequest:
    default = "flow-euler" if family.prediction == "flow" else "ddim"
    return dataclasses.replace(
        resolved(request, family.variant),
        scheduler=request.scheduler or default,
        width=request.width or family.default_size,
        height=request.height or family.default_size,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudioError(
            f"Cannot make the folder {str(folder)!r} ({error.strerror}); choose another --output.",
            field="output",
        ) from None


def _write(request: SampleRequest, images: Sequence[Image.Image], fingerprint: str) -> list[Path]:
    folder = Path(request.output)
    number = _next_number(folder)
    paths: list[Path] = []
    for index, picture in enumerate(images):
        prompt, i = request.prompt[index // request.num_images], index % request.num_images
        single = recipes.one(request, prompt, request.seed + i, picture.size)
        paths.append(folder / f"{number + index:05d}-{single.seed}.png")
        recipes.write(paths[-1], picture, single, fingerprint=fingerprint)
    return paths


def _next_number(folder: Path) -> int:
    taken = [int(file.name[:5]) for file in folder.glob("[0-9][0-9][0-9][0-9][0-9]-*.png")]
    return max(taken, default=-1) + 1


def _write_grid(request: SampleRequest, images: Sequence[Image.Image], paths: Sequence[Path]) -> Path | None:
    if not request.grid or len(images) < 2:
        return None
    path = paths[0].with_name(f"grid-{paths[0].name[:5]}.png")
    recipes.write(path, grid(images, columns=request.num_images if request.num_images > 1 else 4), request)
    return path


def grid(images: Sequence[Image.Image], *, columns: int) -> Image.Image:
    """Pictures of one size side by side, row by row."""
    columns = min(columns, len(images))
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, picture in enumerate(images):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet
