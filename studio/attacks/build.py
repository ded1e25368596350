"""From the name of an attack to attacked pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.attacks import gradient, suite
from studio.attacks.ball import Ball
from studio.attacks.config import AttackName, Attacks, Pgd
from studio.attacks.own import OwnAttack
from studio.backend.rng import mix
from studio.settings.custom import Custom

BLACK_BOX = ("square", "transfer")
"""Attacks that never ask the model for a gradient."""
PATCH_STRIDE = 0.1
"""Step of the patch attack, in units of the pixel range (ours)."""


def own_attacks(settings: Attacks) -> dict[Custom, OwnAttack]:
    """The attacks from outside that the settings name.

    Raises:
        StudioError: One is not there, or does not take its options.
    """
    return {custom: OwnAttack(custom) for custom in settings.custom}


@dataclass(frozen=True)
class Attacker:
    """Runs attacks on one model; every random number is a function of `seed` and `first`, the pictures' place."""

    model: nn.Module
    settings: Attacks
    seed: int
    surrogate: nn.Module | None = None
    own: Mapping[Custom, OwnAttack] = field(default_factory=dict[Custom, OwnAttack])

    def ball(self, eps: float) -> Ball:
        """The set of allowed pictures; `eps` as in the settings."""
        return Ball(self.settings.norm, Pgd(norm=self.settings.norm, eps=eps).radius)

    def __call__(
        self,
        name: AttackName | Custom,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        eps: float,
        first: int = 0,
    ) -> Float[Tensor, "b c h w"]:
        """Attacked pictures; a radius of 0 gives them back."""
        ball, seed = self.ball(eps), mix(self.seed, first) % (1 << 31)
        if ball.radius == 0 and name != "patch":
            return images
        if isinstance(name, Custom):
            return self.own[name](self.model, images, labels, ball, seed)
        return self._ours(name, images, labels, ball, seed)

    def _ours(
        self, name: AttackName, images: Tensor, labels: Tensor, ball: Ball, seed: int
    ) -> Float[Tensor, "b c h w"]:
        match name:
            case "fgsm":
                return gradient.fgsm(self.model, images, labels, ball)
            case "pgd" | "pgd-margin":
                objective = gradient.margin if name == "pgd-margin" else gradient.cross_entropy
                return self._pgd(images, labels, ball, objective, seed)
            case "patch":
                return self._patch(images, labels, seed)
            case "transfer":
                return gradient.momentum(self.surrogate or self.model, images, labels, ball)
            case "square":
                return suite.square(
                    self.model, images, labels, ball, queries=self.settings.queries, seed=seed
                )
            case "autoattack" | "autoattack-mini":
                return suite.autoattack(
                    self.model, images, labels, ball, seed=seed, mini=name == "autoattack-mini"
                )
            case _:
                assert_never(name)

    def _pgd(
        self, images: Tensor, labels: Tensor, ball: Ball, objective: gradient.Objective, seed: int
    ) -> Tensor:
        settings = self.settings
        stride = Pgd(norm=settings.norm, eps=1.0, steps=settings.steps).stride
        stride = stride * ball.radius / Pgd(norm=settings.norm, eps=1.0).radius
        walk = gradient.Walk(settings.steps, stride, objective)
        starts = _starts(images, ball, settings.restarts, seed)
        return gradient.pgd(self.model, images, labels, ball, starts=starts, walk=walk)

    def _patch(self, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        side = max(1, round(self.settings.patch_share * images.shape[-1]))
        ball = Ball("linf", 1.0, gradient.worst_patch(self.model, images, labels, side))
        starts = _starts(images, ball, self.settings.restarts, seed)
        walk = gradient.Walk(self.settings.steps, PATCH_STRIDE, gradient.cross_entropy)
        return gradient.pgd(self.model, images, labels, ball, starts=starts, walk=walk)


def _starts(images: Tensor, ball: Ball, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        ball.start(images, torch.rand(images.shape, generator=generator).to(images)) for _ in range(count)
    ]
