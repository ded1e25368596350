"""Times our DreamBooth-LoRA step against the plain diffusers recipe: `python -m studio.bench.dreambooth_step`.

Same model, pictures, batch, adapter rank and number of trained parameters, in one process. Rounds are paired: each
recipe takes the same number of steps in turn, the order changing from round to round, and the ratio is the median of
the rounds' ratios, so that what else the machine does falls on both.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from pydantic import Field
from transformers.utils import logging as transformers_logging

from studio import assets
from studio.backend.core import Backend
from studio.bench.plain_diffusers import PlainRecipe
from studio.catalog import methods
from studio.catalog.run import Run
from studio.models import build
from studio.records import runs
from studio.settings.config import Positive, config
from studio.settings.run import Hardware
from studio.training.loop import fit
from studio.training.session import Session

_PROMPT = "a sticker of a sks animal"
_WARM_UP = 3
_ENDLESS = 10**6
CACHES = {"caches off": "none", "latents cached": "latents", "latents and text cached": "latents+text"}


@config
class StepBench:
    """Our DreamBooth-LoRA step against the plain diffusers recipe."""

    model: str = "tiny:sd1"
    """Stable Diffusion model that both train."""
    data: str = ""
    """Folder of pictures; empty takes the embedded samples."""
    batch: Positive = 4
    """Pictures a step."""
    size: Positive = 64
    """Side of a picture in pixels."""
    rank: Positive = 4
    """Rank of the adapter (4: diffusers' example)."""
    steps: Positive = 5
    """Steps of each recipe in a round."""
    rounds: Annotated[int, Field(ge=3)] = 9
    """Paired rounds."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Device of both."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """Pictures a second of two recipes over paired rounds."""

    name: str
    ours: tuple[float, ...]
    plain: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios, ours over plain."""
        return statistics.median(a / b for a, b in zip(self.ours, self.plain, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        ours, plain = statistics.median(self.ours), statistics.median(self.plain)
        return {
            "name": self.name,
            "ours": round(ours, 2),
            "plain": round(plain, 2),
            "ratio": round(self.ratio, 2),
        }


def our_steps(settings: StepBench, cache: str, folder: Path) -> tuple[Iterator[object], int]:
    """Endless steps of our trainer, and the number of trained parameters."""
    run = _run(settings, cache, folder)
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    session = Session(run, runs.create(run), trainer, Backend(run.hardware))
    trained = sum(p.numel() for p in session.learner.parameters)
    return fit(trainer, session.learner, session.backend, run), trained


def _run(settings: StepBench, cache: str, folder: Path) -> Run:
    method = {
        "kind": "dreambooth",
        "model": settings.model,
        "data": _data(settings),
        "class_word": "animal",
        "token": "sks",
        "prior": {"kind": "no-prior"},
        "adapter": {"kind": "lora", "rank": settings.rank},
        "images": {"resolution": settings.size, "cache": cache, "cache_folder": str(folder / "cache")},
    }
    loop = {"steps": _ENDLESS, "batch_size": settings.batch, "log_every": _ENDLESS}
    hardware = {"device": settings.device}
    values = {"method": method, "loop": loop, "hardware": hardware, "output": str(folder), "name": "ours"}
    return Run.from_dict(values)


def plain_steps(settings: StepBench) -> tuple[Iterator[object], int]:
    """Endless steps of the plain recipe on the same model, and the number of trained parameters."""
    pipeline = _as_people_load_it(settings)
    folder = Path(_data(settings))
    recipe = PlainRecipe(
        pipeline, folder, _PROMPT, batch=settings.batch, size=settings.size, rank=settings.rank
    )
    return recipe.steps(), sum(p.numel() for p in recipe.trained)


def _as_people_load_it(settings: StepBench) -> StableDiffusionPipeline:
    """The model read back by diffusers alone, without our memory layout or attention."""
    family = build.load(settings.model, Backend(Hardware(device=settings.device)))
    with tempfile.TemporaryDirectory() as folder:
        family.pipeline().save_pretrained(folder)
        return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def _data(settings: StepBench) -> str:
    return settings.data or str(assets.path("samples/unicorn"))


def compare(settings: StepBench, name: str, cache: str) -> Compared:
    """Pictures a second of both recipes, round by round.

    Raises:
        ValueError: The two do not train the same number of parameters.
    """
    with tempfile.TemporaryDirectory() as temporary:
        ours, our_count = our_steps(settings, cache, Path(temporary))
        plain, plain_count = plain_steps(settings)
        if our_count != plain_count:
            raise ValueError(f"ours trains {our_count} parameters, the plain recipe {plain_count}")
        for steps in (ours, plain):
            _seconds(steps, _WARM_UP)
        speeds: dict[bool, list[float]] = {True: [], False: []}
        for index in range(settings.rounds):
            for is_ours in (True, False) if index % 2 else (False, True):
                seconds = _seconds(ours if is_ours else plain, settings.steps)
                speeds[is_ours].append(settings.batch * settings.steps / seconds)
    return Compared(name, tuple(speeds[True]), tuple(speeds[False]))


def _seconds(steps: Iterator[object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return time.perf_counter() - start


def main() -> None:
    """Compare with caches off and on, and write one line of JSON each to stdout."""
    settings = tyro.cli(StepBench)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    for name, cache in CACHES.items():
        found = compare(settings, name, cache).as_dict()
        sys.stdout.write(json.dumps({**found, "unit": "images/s", "model": settings.model}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
