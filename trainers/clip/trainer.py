"""Finetuning of dual encoders.

    CLIP       Radford et al., 2021, arXiv 2103.00020: the softmax loss
    SigLIP     Zhai et al., 2023, arXiv 2303.15343: the sigmoid loss
    FLYP       Goyal, Kumar, Garg, Kolter, Raghunathan, 2022, arXiv 2212.00638: finetune as you were pretrained, the caption
               of a labelled picture being a sentence about its class
    LP-FT      Kumar et al., 2022, arXiv 2202.10054; prompts: studio/matching/{coop,cocoop,deep}.py

Departures: FLYP draws one sentence a picture and keeps pictures of one class as false negatives of each other, as its
code does. LP-FT's stages run in one loop with one schedule.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.config import Labelled
from studio.matching.asked import Asked, Counts
from studio.matching.build import tune
from studio.matching.config import LpFt
from studio.matching.data import captioned
from studio.matching.losses import in_chunks, sigmoid_loss, softmax_loss
from studio.matching.words import drawn
from studio.models.clip import load_clip
from trainers.clip.config import Clip, is_contrastive

SIGLIP_BIAS = -10.0
"""Where a bias of the logits starts (SigLIP, section 3.2)."""
_HIGHEST = math.log(100)


class ClipTrainer(Counts, Asked, Trainer):
    """Pictures and texts, or pictures and names."""

    @override
    def __init__(self, config: Clip) -> None:
        self.config = config
        self.contrastive = is_contrastive(config)

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        model = load_clip(config.model, config.pretrained)
        if config.objective == "sigmoid":
            model.add_bias(SIGLIP_BIAS)
        if isinstance(config.data, Labelled):
            self.open(config.data, config.classes, model)
        else:
            self.pairs = captioned(config.data, model.size)
        self.tuned = tune(model, config.tuning, self.classes, config.templates, backend)
        if self.task and not self.contrastive:
            self.cache()
        self.sigmoid = config.objective == "sigmoid" or (config.objective == "auto" and model.has_bias)
        self.highest = max(_HIGHEST, float(model.network.logit_scale.detach()))
        return self.tuned.groups(config.tuning.head_lr_scale if isinstance(config.tuning, LpFt) else 1.0)

    @override
    def source(self) -> Source:
        return self.training if self.task else self.pairs

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        return self._contrast(batch, rng) if self.contrastive else self._name(batch)

    def _contrast(self, batch: Batch, rng: Rng) -> Loss:
        model, config = self.tuned.matcher.model, self.config
        images = in_chunks(model.images, batch["images"], config.chunk)
        texts = in_chunks(model.texts, self._captions(batch, rng), config.chunk)
        logits = model.logits(self.backend.gather(images), self.backend.gather(texts))
        loss = sigmoid_loss(logits) if self.sigmoid else softmax_loss(logits)
        target = torch.arange(len(logits), device=logits.device)
        return Loss(loss, {"retrieved": (logits.detach().argmax(1) == target).float().mean()})

    def _captions(self, batch: Batch, rng: Rng) -> Sequence[str]:
        if "captions" in batch:
            return batch["captions"]
        return drawn(self.config.templates, self.classes, batch["labels"].tolist(), rng)

    def _name(self, batch: Batch) -> Loss:
        matcher = self.tuned.matcher
        features = self._features(batch)
        logits = matcher.logits(features, self.classes)
        target = batch.get("targets", batch["labels"])
        loss = F.cross_entropy(logits, target)
        pulls = matcher.pull(features, logits, batch["images"], self.classes) if "images" in batch else {}
        right = (logits.detach().argmax(1) == batch["labels"]).float().mean()
        return Loss(loss + sum(pulls.values()), {"cross_entropy": loss, **pulls, "accuracy": right})

    def _features(self, batch: Batch) -> Tensor:
        """Features of the pictures; while LP-FT probes, no gradient reaches the tower."""
        tuning = self.config.tuning
        if "features" in batch:
            return batch["features"]
        if not isinstance(tuning, LpFt) or self.step >= tuning.probe_steps:
            return self.tuned.matcher.images(batch["images"])
        with torch.no_grad():
            return self.tuned.matcher.images(batch["images"])

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        super().after_step(step)
        scale = self.tuned.matcher.model.network.logit_scale
        if scale.requires_grad and not self.sigmoid:
            scale.clamp_(0, self.highest)  # open_clip's training loop

    @override
    def export(self, folder: Path) -> list[Path]:
        config = self.config
        return self.write(folder, config.model, config.pretrained, config.tuning, config.templates)
