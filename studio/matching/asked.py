"""What the trainers of dual encoders share: labelled pictures, answers, scores and files. Mixed in before `Trainer`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from studio.backend.rng import Rng
from studio.contracts.sampling import Output, Request
from studio.data.config import Labelled
from studio.matching.build import Tuned
from studio.matching.config import Classes, Tuning
from studio.matching.data import Features, Labels, Task, open_task
from studio.matching.files import Described, save_matcher
from studio.matching.matcher import features_of
from studio.models.dual import DualEncoder
from studio.models.modes import evaluating
from studio.vision.trainers import CountsSteps as Counts

__all__ = ["Asked", "Counts"]

LOOK = 256
"""Held-out pictures that a preview is scored on."""
BATCH = 64


class Asked:
    """A trainer that is asked about held-out pictures by the names of their classes."""

    tuned: Tuned
    task: Task | None = None
    training: Labels | Features

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes trained on; none for captions."""
        return self.task.classes if self.task else ()

    def open(self, data: Labelled, chosen: Classes, model: DualEncoder) -> Task:
        """Open labelled pictures."""
        self.task = open_task(data, chosen, model.data_config())
        self.training = self.task.train
        return self.task

    def cache(self) -> None:
        """Compute each picture's features once, where neither the picture nor the tower changes."""
        if self.task and not self.task.train.varies and not self.tuned.pictures:
            self.training = Features(*self.all_features(self.task.train))

    def all_features(self, source: Labels) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (n d) and labels (n) of all pictures of a source, unvaried, on the CPU."""
        with evaluating(self.tuned.matcher), torch.no_grad():
            parts = [
                (features_of(self.tuned.matcher, [batch["images"]]), batch["labels"])
                for batch in source.ordered(BATCH)
            ]
        return torch.cat([f for f, _ in parts]), torch.cat([y for _, y in parts])

    def held_out(self) -> Labels | None:
        """Held-out pictures of the classes trained on."""
        return self.task.test if self.task else None

    def sample(self, request: Request, rng: Rng) -> Output:
        """Logits of the request's pictures (or of held-out ones of all classes) over the classes, or over its prompts."""
        del rng
        matcher = self.tuned.matcher
        names = self.classes or tuple(request.prompts)
        batch = request.batch or self._look()
        if batch is None or not names:
            return Output()
        with evaluating(matcher), torch.no_grad():
            return Output(
                logits=matcher.logits(matcher.images(batch["images"].to(matcher.model.device)), names)
            )

    def prompts(self) -> Sequence[str]:
        """What a preview shows."""
        return ("held-out pictures",) if self.task else ()

    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Accuracy among the classes, which also names the best checkpoint."""
        batch = request.batch or self._look()
        if output.logits is None or batch is None or "labels" not in batch:
            return {}
        found = float((output.logits.argmax(1).cpu() == batch["labels"].cpu()).float().mean())
        return {"accuracy": found, "quality": found}

    def _look(self) -> dict[str, Any] | None:
        return self.task.test.look(LOOK) if self.task else None

    def write(
        self, folder: Path, model: str, pretrained: str, tuning: Tuning, templates: Sequence[str]
    ) -> list[Path]:
        """Write what was learned."""
        described = Described(
            base=model, pretrained=pretrained, tuning=tuning, classes=self.classes, templates=tuple(templates)
        )
        return save_matcher(self.tuned.matcher, described, folder)
