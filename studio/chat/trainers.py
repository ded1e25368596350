"""What the trainers of chat models share: how they answer and are exported. Mixed in before `Trainer`."""

from collections.abc import Sequence
from pathlib import Path

from studio.adapters.build import after_step
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.chat.task import Task
from studio.contracts.sampling import Output, Request


class Answers:
    """A trainer whose `setup` loads a `task` answers and is exported by it."""

    task: Task
    backend: Backend

    def after_step(self, step: int) -> None:
        """What adapters do to their weights after a step."""
        del step
        after_step({"language": self.task.model.language})

    def sample(self, request: Request, rng: Rng) -> Output:
        """Answers; the likeliest ones, so nothing about them is random."""
        del rng
        with self.backend.autocast():  # frozen weights may be in half precision, trained ones are not
            return self.task.answer(request)

    def prompts(self) -> Sequence[str]:
        """The first questions of the data."""
        return self.task.questions()

    def export(self, folder: Path) -> list[Path]:
        """A folder that transformers reads."""
        return self.task.export(folder)
