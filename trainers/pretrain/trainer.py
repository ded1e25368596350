"""Pre-training as a trainer like any other: the same loop, checkpoints, events and exact resume.

What is learned is one of five recipes, each in its own file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, assert_never, runtime_checkable

from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from trainers.pretrain import config


@runtime_checkable
class Recipe(Protocol):
    """What one of the embedded models brings to its training; the words mean what they mean for a trainer."""

    def setup(self, backend: Backend) -> list[Group]:
        """Build the model; what the run remembers."""
        ...

    def source(self) -> Source:
        """Where the scenes come from."""
        ...

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The objective."""
        ...

    def prompts(self) -> Sequence[str]:
        """What previews ask for."""
        ...

    def sample(self, request: Request, rng: Rng) -> Output:
        """Answer a request."""
        ...

    def score(self) -> dict[str, float]:
        """Scores on unseen scenes."""
        ...

    def export(self, folder: Path) -> list[Path]:
        """Write the model in the ecosystem's format."""
        ...


def build(settings: config.Pretrain) -> Recipe:
    """The recipe that the settings name."""
    match settings.model:
        case config.Autoencoder():
            from trainers.pretrain.autoencoder import AutoencoderRecipe

            return AutoencoderRecipe(settings.model)
        case config.TextToImage():
            from trainers.pretrain.text_to_image import TextToImageRecipe

            return TextToImageRecipe(settings.model)
        case config.Dit():
            from trainers.pretrain.dit import DitRecipe

            return DitRecipe(settings.model)
        case config.Vit():
            from trainers.pretrain.vit import VitRecipe

            return VitRecipe(settings.model)
        case config.Clip():
            from trainers.pretrain.clip import ClipRecipe

            return ClipRecipe(settings.model)
        case _:
            assert_never(settings.model)


class PretrainTrainer(Trainer):
    """Makes one of the embedded models."""

    @override
    def __init__(self, settings: config.Pretrain) -> None:
        self.settings = settings
        self.recipe = build(settings)

    @override
    def setup(self, backend: Backend) -> list[Group]:
        return self.recipe.setup(backend)

    @override
    def source(self) -> Source:
        return self.recipe.source()

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        return self.recipe.loss(batch, rng)

    @override
    def prompts(self) -> Sequence[str]:
        return self.recipe.prompts()

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        return self.recipe.sample(request, rng)

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        return self.recipe.score()

    @override
    def export(self, folder: Path) -> list[Path]:
        return self.recipe.export(folder)
