"""A classification task: the model, its data, what moves, and how it answers and is written.

Axes: `b` pictures, `c h w` picture in [0, 1], `k` classes.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from torch import Tensor
from torch.nn import functional as F

from studio.adapters.merge import merged_copy
from studio.backend.core import Backend
from studio.contracts.batch import Batch
from studio.contracts.sampling import Output, Request
from studio.data.config import Labelled
from studio.data.labelled import LabelledPhotos
from studio.data.pools import split
from studio.models import adaptformer
from studio.models.modes import evaluating
from studio.models.vit import Classifier, load_classifier, save_classifier
from studio.vision.config import Adapted, AdaptFormer, Tuning
from studio.vision.tuning import Tuned, tune

LOOK = 256
"""Held-out pictures that a preview is scored on."""


@dataclass(frozen=True)
class Task:
    """What every method that trains a classifier has."""

    tuned: Tuned
    tuning: Tuning
    train: LabelledPhotos
    test: LabelledPhotos

    @property
    def model(self) -> Classifier:
        """The classifier."""
        return self.tuned.model

    def answer(self, request: Request) -> Output:
        """Logits of the request's pictures, or of held-out ones of all classes if it brings none."""
        batch = request.batch or self.look()
        images = batch["images"].to(self.model.mean.device)
        self.model.check(images)
        with evaluating(self.model), torch.no_grad():
            return Output(logits=self.model(images))

    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Accuracy of an answer; the best checkpoint is the one with the highest."""
        if output.logits is None:
            return {}
        labels = (request.batch or self.look())["labels"].to(output.logits.device)
        found = float((output.logits.argmax(1) == labels).float().mean())
        return {"accuracy": found, "quality": found}

    def look(self) -> Batch:
        """Held-out pictures, spread over the classes."""
        return self.test.look(LOOK)

    def export(self, folder: Path) -> list[Path]:
        """Write a folder that timm and `load_classifier` read: adapters merged, bottlenecks in their own file."""
        model = self.model
        if isinstance(self.tuning, Adapted):
            return save_classifier(model, merged_copy(model.network), folder)
        if isinstance(self.tuning, AdaptFormer):
            plain = copy.deepcopy(model.network)
            adaptformer.detach(plain)
            shape = adaptformer.Shape(self.tuning.bottleneck, self.tuning.scale, self.tuning.dropout)
            return [*save_classifier(model, plain, folder), adaptformer.save(model.network, shape, folder)]
        return save_classifier(model, model.network, folder)


def load_task(model: str, data: Labelled, tuning: Tuning, backend: Backend) -> Task:
    """Load model and data, fit the head to the classes, and let the weights move that the settings name."""
    pools = split(data)
    classifier = load_classifier(model, pools.classes)
    config = resolve_model_data_config(classifier.network)
    train, test = (
        LabelledPhotos(data, p, config, trains=t) for p, t in ((pools.train, True), (pools.test, False))
    )
    backend.place(classifier, trains=True)
    return Task(tune(tuning, classifier), tuning, train, test)


def classification_loss(logits: Float[Tensor, "b k"], batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy with the labels, or with the soft targets of mixup and cutmix."""
    return F.cross_entropy(logits, batch.get("targets", batch["labels"]), label_smoothing=smoothing)
