"""ARREST: adversarial finetuning with a constraint on latent representations.

    Suzuki, Yamaguchi, Takeda, Kanai, Makishima, Ando, Masumura, "Adversarial Finetuning with Latent Representation
    Constraint to Mitigate Accuracy-Robustness Tradeoff", ICCV 2023, arXiv 2308.16454

With f = h o g the student, g its representation, and f_std the standardly trained net it starts from:

    AFT    L_CE = CE(f(x'), y),                      x' = PGD(x, y) against the student
    RGKD   L_R  = mean angle( g(x'), g_std(x) )      teacher on the clean picture, student on the attacked one
    NR     x'  <- x + noise                          where the representation has changed much
    total  L    = L_CE + lambda * L_R

There is no official code. Ours: what NR measures (the angle between g(x) and g_std(x)), its noise (uniform in the
ball), and the values of phi, tau and lambda; see the settings.
"""

import copy
import logging
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from studio.attacks.ball import Ball
from studio.attacks.gradient import Walk, ascend, cross_entropy, under_attack
from studio.backend.core import Backend
from studio.backend.precision import full_precision
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.trainer import Group, Loss, Trainer
from studio.errors import StudioError
from studio.models.vit import Classifier
from studio.vision.task import classification_loss, load_task
from studio.vision.trainers import Classifies, CountsSteps
from studio.vision.tuning import warn_if_partial
from trainers.arrest.config import Arrest
from trainers.arrest.representation import angle, drifted, replayed

log = logging.getLogger(__name__)

RATE = (0.02, 0.7)
"""Replay rates outside of this say that phi is not calibrated."""
WATCHED = 50
"""Steps over which the rate is averaged before it is judged."""


class ArrestTrainer(CountsSteps, Classifies, Trainer):
    """AFT, RGKD and NR."""

    @override
    def __init__(self, config: Arrest) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.task = load_task(config.model, config.data, config.tuning, backend)
        if self.task.model.fresh_head:
            raise StudioError(
                f"{config.model!r} has not learned these classes: ARREST starts from a net trained on the data; run `studio "
                "train vit` on it first and give that run as --model.",
                field="model",
            )
        warn_if_partial(self.task.tuned, "ARREST")
        self.teacher: Classifier = copy.deepcopy(self.task.model).eval().requires_grad_(False)
        self.rates = torch.zeros(WATCHED, device=backend.device)
        return [*self.task.tuned.groups(), Group(name="teacher", module=self.teacher, trains=False)]

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        config, images, student = self.config, batch["images"], self.task.model
        noise = rng.uniform(*images.shape), rng.uniform(*images.shape)
        ball, attacked = self._attack(batch, noise[0])
        with full_precision(images.device), torch.no_grad():
            anchor = self.teacher.features(images)
            clean_drift = self._drift(images, anchor)
            judged = clean_drift if config.replay.trigger == "clean" else self._drift(attacked, anchor)
            again = drifted(config.replay, judged)
            shown = replayed(attacked, images, again, ball, noise[1])
        features = student.features(shown)
        logits = student.classify(features)
        entropy, distance = classification_loss(logits, batch), angle(features, anchor).mean()
        rate = again.float().mean()
        if torch.is_grad_enabled():
            self.rates[self.step % WATCHED] = rate
        right = (logits.detach().argmax(1) == batch["labels"]).float().mean()
        parts = {
            "ce": entropy,
            "rgkd": distance,
            "replay_rate": rate,
            "drift_deg": clean_drift.mean(),
            "robust_accuracy": right,
        }
        return Loss(entropy + config.distillation_weight * distance, parts)

    def _attack(self, batch: Batch, uniform: Tensor) -> tuple[Ball, Tensor]:
        """The ball of this step and x'."""
        attack, warmup = self.config.attack, self.config.eps_warmup
        growth = min(1.0, (self.step + 1) / warmup) if warmup else 1.0
        ball, images = Ball(attack.norm, attack.radius * growth), batch["images"]
        walk = Walk(attack.steps, attack.stride * growth, cross_entropy)
        start = ball.start(images, uniform)
        return ball, ascend(self.task.model, images, batch["labels"], ball, start=start, walk=walk)

    def _drift(self, images: Tensor, anchor: Tensor) -> Tensor:
        """Angle in degrees of the student's representation to the teacher's clean one."""
        with under_attack(self.task.model, images.device), torch.no_grad():
            return torch.rad2deg(angle(self.task.model.features(images), anchor))

    @override
    def after_step(self, step: int) -> None:
        super().after_step(step)
        if self.config.replay.on and step == WATCHED:
            rate = float(self.rates.mean())
            if not RATE[0] <= rate <= RATE[1]:
                log.warning(
                    "replay rate %.2f over the first %d steps is outside of %.2f to %.2f: %s replay.degrees %.1f",
                    rate, step, *RATE, "lower" if rate < RATE[0] else "raise", self.config.replay.degrees,
                )  # fmt: skip

    @override
    def state(self) -> dict[str, Any]:
        return {**super().state(), "rates": self.rates}

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.rates.copy_(state["rates"])
