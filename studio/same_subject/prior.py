"""The class-prior set (DreamBooth, section 3.3): pictures of the class by the untouched model, drawn once and kept."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from studio.adapters.build import names
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.catalog import drawing
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.draw import draw
from studio.records import places
from studio.same_subject.config import GeneratedPrior
from studio.settings import serial

STEPS, GUIDANCE = 50, 7.5
"""Of class pictures by models that no card describes, as diffusers' scripts draw them."""

log = logging.getLogger(__name__)


def prior_key(family: Family, prompt: str, settings: GeneratedPrior, seed: int) -> str:
    """Name of a set: it changes with the base model, how it reads text, the prompt and every setting of the drawing."""
    steps, guidance = _drawn_with(family, settings)
    facts = [family.fingerprint(), serial.to_dict(family.text), prompt, settings.num_images, steps, guidance,
             settings.scheduler, family.default_size, seed]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _drawn_with(family: Family, settings: GeneratedPrior) -> tuple[int, float]:
    """Steps and guidance of the class pictures."""
    return (
        drawing.steps_of(settings.steps, family.variant, STEPS),
        drawing.guidance_of(settings.guidance, family.variant, GUIDANCE),
    )


def prior_folder(family: Family, prompt: str, settings: GeneratedPrior, seed: int) -> Path:
    """Where a set of class pictures is kept, drawn already or not."""
    return places.cache(settings.folder) / prior_key(family, prompt, settings, seed)


def generate_prior(family: Family, prompt: str, settings: GeneratedPrior, seed: int) -> Path:
    """The folder of a set of class pictures, drawn now if it is not there.

    Raises:
        RuntimeError: an adapter is on the model; its pictures would poison the prior.
        StudioError: pictures of a set that was drawn are missing.
    """
    active = sorted({name for module in family.modules().values() for name in names(module)})
    if active:
        raise RuntimeError(
            f"class pictures must come from the untouched model, but adapters are on it: {active}"
        )
    folder = prior_folder(family, prompt, settings, seed)
    if folder.is_dir():
        return _kept(folder, settings.num_images)
    log.info("drawing %d class pictures with prompt %r, once for all runs", settings.num_images, prompt)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    steps, guidance = _drawn_with(family, settings)
    request = Request(prompts=[prompt], num_images=settings.num_images, seed=seed, steps=steps, guidance=guidance,
                      scheduler=settings.scheduler)  # fmt: skip
    try:
        rng = Rng.single(seed, 0, settings.num_images)
        for index, image in enumerate(draw(family, request, rng, most=16, what="class pictures")):
            image.save(temporary / f"{index:05d}.png")
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _kept(folder: Path, wanted: int) -> Path:
    """A set that was drawn before, if it is whole."""
    found = len(list(folder.glob("*.png")))
    if found != wanted:
        raise StudioError(
            f"{folder} holds {found} class pictures, not the {wanted} that were drawn; delete the folder to have them drawn "
            "again, or train on a set of your own with --prior folder-prior.",
            field="prior",
        )
    log.info("class pictures: %d kept in %s", found, folder)
    return folder


class WithPrior:
    """A source whose batches hold as many class pictures as subject pictures, under `prior_...` keys.

    The shorter of the two sets begins again while the longer one lasts, as in diffusers' script.
    """

    def __init__(self, subject: Source, prior: Source) -> None:
        self._subject, self._prior = subject, prior

    def __len__(self) -> int:
        return max(len(self._subject), len(self._prior))

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of both halves; the class half is shuffled by a seed of its own."""
        halves = (self._subject.stream(seed, first, shard), self._prior.stream(seed + 1, first, shard))
        try:
            for subject, prior in zip(*halves, strict=False):
                yield {**subject, **{f"prior_{key}": value for key, value in prior.items()}}
        finally:
            for half in halves:
                half.close()  # pyright: ignore[reportAttributeAccessIssue]  # streams are generators
