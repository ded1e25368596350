"""Adversarial training of classifiers.

    PGD-AT  Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks", 2018,
            arXiv 1706.06083:   L = CE(f(x'), y),   x' = argmax over the ball of CE                       (eq. 2.1)
    TRADES  Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically principled trade-off between robustness and accuracy",
            2019, arXiv 1901.08573:   L = CE(f(x), y) + beta * KL(p(x) || p(x')),   x' maximizes the same KL    (eq. 5)

As in TRADES' code: the attack runs in eval mode, the KL is summed over the classes and averaged over the batch, and
the gradient flows into p(x) too. The clean term of the attack is computed once, as it does not depend on x'.
"""

from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.attacks.ball import Ball
from studio.attacks.gradient import Objective, Walk, ascend, cross_entropy, divergence, under_attack
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.trainer import Group, Loss, Trainer
from studio.vision.task import classification_loss, load_task
from studio.vision.trainers import Classifies, CountsSteps
from studio.vision.tuning import warn_if_partial
from trainers.adversarial.config import Adversarial, PgdAt, Trades

NEAR = 0.001
"""Spread of TRADES' start beside the picture (official code)."""


class AdversarialTrainer(CountsSteps, Classifies, Trainer):
    """PGD-AT or TRADES."""

    @override
    def __init__(self, config: Adversarial) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.task = load_task(config.model, config.data, config.tuning, backend)
        warn_if_partial(self.task.tuned, "adversarial training")
        return self.task.tuned.groups()

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        match self.config.objective:
            case PgdAt():
                return self._madry(batch, rng)
            case Trades(beta=beta):
                return self._trades(batch, rng, beta)
            case other:
                assert_never(other)

    def _madry(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 2.1 of PGD-AT."""
        attacked = self._attack(batch["images"], batch["labels"], rng)
        logits = self.task.model(attacked)
        return Loss(classification_loss(logits, batch), {"robust_accuracy": _right(logits, batch)})

    def _trades(self, batch: Batch, rng: Rng, beta: float) -> Loss:
        """Eq. 5 of TRADES."""
        model, images = self.task.model, batch["images"]
        with under_attack(model, images.device), torch.no_grad():
            plain = model(images).softmax(1)
        attacked = self._attack(images, plain, rng, divergence)
        clean, robust = model(images), model(attacked)
        natural = classification_loss(clean, batch)
        pull = F.kl_div(robust.log_softmax(1), clean.softmax(1), reduction="batchmean")
        parts = {
            "clean": natural,
            "pull": pull,
            "accuracy": _right(clean, batch),
            "robust_accuracy": _right(robust, batch),
        }
        return Loss(natural + beta * pull, parts)

    def _attack(
        self, images: Tensor, target: Tensor, rng: Rng, objective: Objective = cross_entropy
    ) -> Tensor:
        """The attacked pictures x' of the inner maximization."""
        attack, near = self.config.attack, self.config.start == "near"
        near = near or (self.config.start == "auto" and isinstance(self.config.objective, Trades))
        growth = min(1.0, (self.step + 1) / self.config.eps_warmup) if self.config.eps_warmup else 1.0
        ball = Ball(attack.norm, attack.radius * growth)
        start = (
            images + NEAR * rng.normal(*images.shape)
            if near
            else ball.start(images, rng.uniform(*images.shape))
        )
        walk = Walk(attack.steps, attack.stride * growth, objective)
        start = ball.project(start, images)
        return ascend(self.task.model, images, target, ball, start=start, walk=walk)


def _right(logits: Tensor, batch: Batch) -> Tensor:
    return (logits.detach().argmax(1) == batch["labels"]).float().mean()
