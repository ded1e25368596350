"""What methods that learn from rewards or preferences share as trainers: everything but what their papers change.

Abstract bases, so that a method's file holds only its own science.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from typing_extensions import override

from studio.adapters.build import attach, groups
from studio.adapters.config import Adapter
from studio.adapters.metadata import Facts
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.errors import StudioError
from studio.metrics.images import to_tensor
from studio.models.base import Family
from studio.models.build import load
from studio.models.draw import draw
from studio.rl.config import Adapted, Part, Reinforced, Rewarded, read_prompts
from studio.rl.judges import Judges
from studio.rl.learner import PolicyGradient
from studio.rl.orders import Orders
from studio.weights import export as exporting

C = TypeVar("C", bound=Adapted)
R = TypeVar("R", bound=Rewarded)
P = TypeVar("P", bound=Reinforced)
NUM_PREVIEWS = 4
"""Prompts drawn as previews when the person named none."""


def part_of(family: Family, part: Part) -> dict[str, nn.Module]:
    """The denoiser, or every CLIP text encoder, by component name.

    Raises:
        StudioError: The family has no CLIP text encoder.
    """
    if part == "denoiser":
        return {family.denoiser_name: family.denoiser}
    if not family.clip_encoders:
        raise StudioError(f"{family.name} has no CLIP text encoder to train.", field="model")
    return family.clip_encoders


class AdaptedTrainer(Trainer, Generic[C]):
    """An adapter on one part of a text-to-image model."""

    config: C
    family: Family
    trained: dict[str, nn.Module]

    def __init__(self, config: C) -> None:
        """Keep the settings."""
        self.config = config

    @abstractmethod
    def modules(self, family: Family) -> dict[str, nn.Module]:
        """What trains, by component name; a method refuses here a family that it cannot train."""

    @abstractmethod
    def adapter(self) -> Adapter:
        """How it may move."""

    @abstractmethod
    def prepare(self, trained: Mapping[str, nn.Module], backend: Backend) -> None:
        """What the method needs beside the model, once adapters are attached."""

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.family = load(self.config.model, backend, text=self.config.text, parts=self.config.parts)
        self.trained = self.modules(self.family)
        self.family.hold(*self.trained)
        attached = attach(self.adapter(), self.trained)
        exporting.require_writable(self.family, self.trained, self.config.export)
        for module in self.trained.values():
            module.eval()  # a policy with dropout would not be the one that drew
        self.prepare(self.trained, backend)
        return [
            group
            for key, module in self.trained.items()
            for group in groups(self.adapter(), key, module, attached[key])
        ]

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        return Output(images=draw(self.family, request, rng))

    @override
    def export(self, folder: Path) -> list[Path]:
        facts = Facts(base_model=self.config.model)
        written = exporting.export(
            self.family, self.trained, folder, settings=self.config.export, facts=facts
        )
        return [one.path for one in written]


class RewardedTrainer(AdaptedTrainer[R]):
    """An adapter that learns from rewards; its previews are judged by them."""

    judges: Judges

    def __init__(self, config: R) -> None:
        """Read the prompts."""
        super().__init__(config)
        self._prompts = read_prompts(config)

    @override
    def prepare(self, trained: Mapping[str, nn.Module], backend: Backend) -> None:
        self.judges = Judges(self.config, backend.device)

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Rewards, held-out reward and diversity of the previews, drawn as a user would draw them."""
        prompts = [prompt for prompt in request.prompts for _ in range(request.num_images)]
        images = torch.stack([to_tensor(image) for image in output.images]).to(self.backend.device)
        return self.judges.appraise(images, prompts)

    @override
    def prompts(self) -> Sequence[str]:
        return self._prompts[:NUM_PREVIEWS]


class ReinforcedTrainer(RewardedTrainer[P]):
    """Rollouts, rewards and the policy gradient around whatever `modules` names."""

    learner: PolicyGradient

    @override
    def adapter(self) -> Adapter:
        return self.config.adapter

    @abstractmethod
    def learns(self, trained: Mapping[str, nn.Module], backend: Backend) -> PolicyGradient:
        """The policy and its gradient, once adapters are attached."""

    @override
    def prepare(self, trained: Mapping[str, nn.Module], backend: Backend) -> None:
        super().prepare(trained, backend)
        self.learner = self.learns(trained, backend)

    @override
    def source(self) -> Source:
        rollouts, epochs = self.config.rollouts, self.config.ppo.epochs
        return Orders(self._prompts, images=rollouts.images, group=rollouts.group, epochs=epochs)

    @override
    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        return self.learner.batches(data, first)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng  # all chance is in the rollout
        return self.learner.loss(batch)

    @override
    def after_step(self, step: int) -> None:
        self.learner.after_step(step)

    @override
    def resumable(self, step: int) -> bool:
        return self.learner.resumable(step)

    @override
    def state(self) -> dict[str, Any]:
        return self.learner.state()

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state)
