"""What the trainers of classifiers share: how they answer, are scored and exported. Mixed in before `Trainer`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.backend.rng import Rng
from studio.contracts.sampling import Output, Request
from studio.data.labelled import LabelledPhotos
from studio.vision.task import Task


class Classifies:
    """A trainer whose `setup` loads a `task` answers, is scored and is exported by it."""

    task: Task

    def source(self) -> LabelledPhotos:
        """Training pictures."""
        return self.task.train

    def held_out(self) -> LabelledPhotos:
        """Held-out pictures."""
        return self.task.test

    def sample(self, request: Request, rng: Rng) -> Output:
        """Logits; nothing about them is random."""
        del rng
        return self.task.answer(request)

    def prompts(self) -> Sequence[str]:
        """What a preview shows."""
        return ("held-out pictures",)

    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Accuracy, which also names the best checkpoint."""
        return self.task.score(output, request)

    def export(self, folder: Path) -> list[Path]:
        """A folder that timm and `load_classifier` read."""
        return self.task.export(folder)


class CountsSteps:
    """A trainer whose loss depends on how many steps are done."""

    step: int = 0

    def after_step(self, step: int) -> None:
        """Keep the count."""
        self.step = step

    def state(self) -> dict[str, Any]:
        """The count."""
        return {"step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the count back."""
        self.step = state["step"]
