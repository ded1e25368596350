"""What methods of reinforcement learning share as trainers: everything but which modules move.

An abstract base, so that a method's file holds only what its paper changes.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from studio import export as exporting
from studio.adapters.build import attach, learning_rates, weight_decay
from studio.adapters.config import Adapter
from studio.adapters.metadata import Facts
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.batch import Batch, Source
from studio.metrics.images import to_tensor
from studio.models.base import Family
from studio.models.build import load
from studio.models.draw import draw
from studio.rl.config import Reinforced, read_prompts
from studio.rl.learner import PolicyGradient
from studio.rl.orders import Orders
from studio.trainer import Group, Loss, Output, Request, Trainer

NUM_PREVIEWS = 4
"""Prompts drawn as previews when the person named none."""


class ReinforcedTrainer(Trainer):
    """Rollouts, rewards and the policy gradient around whatever `modules` names."""

    family: Family
    learner: PolicyGradient

    def __init__(self, config: Reinforced) -> None:
        """Read the prompts."""
        self.settings = config
        self._prompts = read_prompts(config)

    @abstractmethod
    def modules(self, family: Family) -> dict[str, nn.Module]:
        """What trains, by component name."""

    @abstractmethod
    def adapter(self) -> Adapter:
        """How it may move."""

    @abstractmethod
    def learns(self, trained: Mapping[str, nn.Module], backend: Backend) -> PolicyGradient:
        """The policy and its gradient, once adapters are attached."""

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.family = load(self.settings.model, backend)
        self.trained = self.modules(self.family)
        attached = attach(self.adapter(), self.trained)
        for module in self.trained.values():
            module.eval()  # a policy with dropout would not be the one that drew
        self.learner = self.learns(self.trained, backend)
        return [
            Group(name=key if scale == 1.0 else f"{key}-fast", module=module, names=names, lr_scale=scale,
                  weight_decay=weight_decay(self.adapter()))
            for key, module in self.trained.items()
            for scale, names in learning_rates(self.adapter(), attached[key]).items()
        ]  # fmt: skip

    @override
    def source(self) -> Source:
        rollouts, per_image = self.settings.rollouts, self.learner.per_image * self.settings.ppo.epochs
        return Orders(self._prompts, images=rollouts.images, group=rollouts.group, per_image=per_image)

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

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        return Output(images=draw(self.family, request, rng))

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Rewards, held-out reward and diversity of the previews, drawn as a user would draw them."""
        prompts = [prompt for prompt in request.prompts for _ in range(request.num_images)]
        images = torch.stack([to_tensor(image) for image in output.images]).to(self.backend.device)
        return self.learner.appraise(images, prompts)

    @override
    def prompts(self) -> Sequence[str]:
        return self._prompts[:NUM_PREVIEWS]

    @override
    def export(self, folder: Path) -> list[Path]:
        facts = Facts(base_model=self.settings.model)
        written = exporting.export(
            self.family, self.trained, folder, settings=self.settings.export, facts=facts
        )
        return [one.path for one in written]
