"""Pictures from a run in progress: between two steps, from its live weights, without a second copy of the model."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from studio.catalog.methods import card_of
from studio.errors import StudioError
from studio.queue.jobs import Job, Jobs
from studio.records import recipes
from studio.sampling import reference_check
from studio.sampling.infer import asking, resolved
from studio.settings.sampling import SampleRequest
from studio.settings.serial import from_dict
from studio.training.session import Session

log = logging.getLogger(__name__)
LOOK = 0.25
"""Seconds between two looks for questions: a fast step shall not wait for the file system."""


def pictures(session: Session, request: SampleRequest) -> Sequence[Image.Image]:
    """Draw with a run's weights as they are now. The run goes on as if nobody had asked.

    Raises:
        StudioError: The request has edits or artifacts, or the method draws no pictures.
    """
    if request.edits or request.artifact:
        raise StudioError(
            "A run draws with its own weights alone; leave artifacts and edits out, or draw from its export.",
            field="edits" if request.edits else "artifact",
        )
    given = reference_check.read(request.reference)
    rng = session.backend.rng(request.seed, 0, rows=len(request.prompt) * request.num_images)
    with session.learner.best_weights(), torch.no_grad():
        images = session.trainer.sample(asking(resolved(request, session.variant), (), given), rng).images
    if not images:
        raise StudioError(f"Method {card_of(session.run.method).name!r} draws no pictures.", field="run")
    return images


class Answers:
    """Draws pictures for questions to a training job."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs, self._job, self._looked = jobs, job, 0.0

    def __call__(self, session: Session) -> None:
        """Answer the oldest open question, if there is one."""
        if time.monotonic() - self._looked < LOOK:
            return
        if ask := self._jobs.asked(self._job.id):
            self._answer(session, ask.id, ask.payload["request"])
        self._looked = time.monotonic()

    def _answer(self, session: Session, ask: int, values: dict[str, Any]) -> None:
        started = time.perf_counter()
        try:
            files = self._draw(session, ask, values)
        except Exception as error:  # a question must never end the run
            log.exception("question %d could not be answered", ask)
            self._jobs.answer(ask, error=str(error) or type(error).__name__)
            return
        seconds = time.perf_counter() - started
        log.info("question %d answered at step %d in %.2f s", ask, session.step, seconds)
        self._jobs.answer(ask, result={"pictures": files, "seconds": seconds, "step": session.step})

    def _draw(self, session: Session, ask: int, values: dict[str, Any]) -> list[str]:
        request = from_dict(SampleRequest, values)
        images = pictures(session, request)
        folder = self._jobs.folder(self._job.id) / f"ask-{ask}"
        folder.mkdir(exist_ok=True)
        files: list[str] = []
        for index, image in enumerate(images):
            prompt, i = request.prompt[index // request.num_images], index % request.num_images
            single = recipes.one(request, prompt, request.seed + i, image.size)
            named = dataclasses.replace(single, artifact=(str(session.folder.path),))
            files.append(str(folder / f"{index}.png"))
            recipes.write(Path(files[-1]), image, named)
        return files
