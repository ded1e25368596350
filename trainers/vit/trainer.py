"""Finetuning of image classifiers, the baseline of every robustness method.

    LP-FT       Kumar, Raghunathan, Jones, Ma, Liang, 2022, arXiv 2202.10054
    AdaptFormer Chen et al., 2022, arXiv 2205.13535 (studio/models/adaptformer.py)
    SubTuning   Kaplun et al., 2023, arXiv 2302.06354 (subtuning.py)

Departures: LP-FT's two stages run in one loop with one schedule, and AdaptFormer keeps the model's own head (no
BatchNorm before it, which matters for MAE features).
"""

import dataclasses

import torch
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.trainer import Group, Loss, Trainer
from studio.vision.config import LpFt, SubTuning
from studio.vision.task import classification_loss, load_task
from studio.vision.trainers import Classifies, CountsSteps
from trainers.vit.config import Vit
from trainers.vit.subtuning import choose_blocks


class VitTrainer(CountsSteps, Classifies, Trainer):
    """Cross-entropy on labelled pictures."""

    @override
    def __init__(self, config: Vit) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config, tuning = self.config, self.config.tuning
        if isinstance(tuning, SubTuning) and not tuning.blocks:
            tuning = dataclasses.replace(tuning, blocks=choose_blocks(config, tuning, backend))
        self.task = load_task(config.model, config.data, tuning, backend)
        return self.task.tuned.groups(config.head_lr_scale)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng
        logits = self._logits(batch["images"])
        right = (logits.detach().argmax(1) == batch["labels"]).float().mean()
        return Loss(classification_loss(logits, batch, self.config.label_smoothing), {"accuracy": right})

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; while LP-FT probes, no gradient reaches the body, so that the optimizer leaves it alone."""
        model, tuning = self.task.model, self.config.tuning
        if not isinstance(tuning, LpFt) or self.step >= tuning.probe_steps:
            return model(images)
        with torch.no_grad():
            features = model.features(images)
        return model.classify(features)
