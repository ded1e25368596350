"""OGEN.

Zang, Goh, Susskind, Huang, "Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization", ICLR
2024, arXiv 2401.15914; code: github.com/apple/ml-ogen (CoOp only)

    x^_c = G(w_c, W_near, V_near)             features of a class by its name and those of known classes (section 3.2)
    L = L_gen                                 while the generator warms up, then
    L = L_gen + L_real / 4 + CE(x^_known) / 4 + CE(x^_near) / 4k + CE(x^_new) / 2k + |x^ - x^_teacher|^2    (section 3.3)

Departures: targets of stream b are of unit length, as the answers are; the teacher, which the release never asks, gives
targets for the invented features; statistics are computed here, from the training shots; on whole towers and adapters
L_real is FLYP's contrast, and statistics can be taken anew as the image tower moves. New names are compared among
themselves, as released, unless `joint_softmax` says otherwise.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.files import lines, read_text
from studio.errors import StudioError
from studio.matching.asked import Asked, Counts
from studio.matching.build import tune
from studio.matching.config import Adapted, Whole
from studio.matching.losses import sigmoid_loss, softmax_loss
from studio.matching.words import drawn
from studio.models.clip import load_clip
from trainers.ogen.config import NewClasses, Ogen, Teacher
from trainers.ogen.generator import Generator
from trainers.ogen.neighbors import Statistics, statistics, tables
from trainers.ogen.streams import Invented, Known, Texts, averaged, classify, distance, invent
from trainers.ogen.teacher import LocalMean


class OgenTrainer(Counts, Asked, Trainer):
    """An inner method, a generator of unknown classes, a teacher."""

    @override
    def __init__(self, config: Ogen) -> None:
        self.config = config
        self.contrastive = isinstance(config.tuning, (Whole, Adapted))

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        model = load_clip(config.model, config.pretrained)
        task = self.open(config.data, config.classes, model)
        self.new_names = self._pool(task.unseen)
        self.tuned = tune(model, config.tuning, self.classes, config.templates, backend)
        features, labels = self.all_features(task.train)
        found = statistics(features, labels, len(self.classes))
        with torch.no_grad():
            texts = [
                self.tuned.matcher.names(names).float().cpu() for names in (self.classes, self.new_names)
            ]
        near = tables(found.mean, texts[0], texts[1], config.neighbors)
        self.known = Known(found, near, torch.zeros(features.shape[1])).to(backend.device)
        self.cache()
        self.generator = backend.place(Generator(features.shape[1], config.heads), trains=True)
        return self._groups()

    def _groups(self) -> list[Group]:
        groups = self.tuned.groups()
        if self.config.invents == "generator":
            scale = self.config.generator_lr_scale
            groups.append(Group(name="generator", module=self.generator, lr_scale=scale))
        student = {f"{g.name}/{k}": p for g in groups for k, p in g.parameters().items()}
        settings = self.config.teacher
        self.teacher = LocalMean(settings, student) if isinstance(settings, Teacher) else None
        return groups

    def _pool(self, unseen: tuple[str, ...]) -> tuple[str, ...]:
        """The names whose features are invented.

        Raises:
            StudioError: None is left beside the data's own classes.
        """
        pool = self.config.names
        if isinstance(pool, NewClasses):
            return unseen
        listed = lines(read_text(Path(pool.file))) if pool.file else []
        taken = {*self.classes, *unseen}
        left = tuple(
            dict.fromkeys(name.strip() for name in (*pool.words, *listed) if name.strip() not in taken)
        )
        left = tuple(name for name in left if name)
        if not left:
            raise StudioError(
                "Every name of the pool is a class of the data; give names that are not, or --names new-classes.",
                field="names",
            )
        return left

    @override
    def source(self) -> Source:
        return self.training

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        warm = self.step >= self.config.warmup
        labels = batch["labels"]
        features = batch["features"] if "features" in batch else self._seen(batch["images"], moves=warm)
        spread = torch.rand(features.shape[1], generator=rng.generator).to(features.device)
        texts = self._texts()
        known = self._known(texts, spread)
        lesson = self._lesson(features.detach(), labels, known) if warm else None
        made = self._invent(features.detach(), labels, texts, known)
        own = distance(made.known, features.detach()) + distance(made.near, made.near_targets)
        parts = {"generated": self.config.weights.generated * own}
        if warm:
            parts |= self._classes(features, batch, texts, made, rng)
        elif self.config.invents == "mean":  # nothing warms up: the inner method learns alone
            parts["real"] = self._real(features, batch, texts, rng)
        if lesson:
            distances = distance(made.known, lesson.known) + distance(made.new, lesson.new)
            parts["distill"] = self.config.weights.distill * distances
        return Loss(torch.stack(list(parts.values())).sum(), parts)

    def _seen(self, images: Tensor, *, moves: bool) -> Tensor:
        """Features of pictures; the tower learns nothing while the generator warms up."""
        if moves or self.config.invents == "mean":
            return self.tuned.matcher.images(images)
        with torch.no_grad():
            return self.tuned.matcher.images(images)

    def _known(self, texts: Texts, spread: Tensor) -> Known:
        """What is known of the classes, with the neighbors that the names have now: prompts and towers move (as released)."""
        found, still = self.known.statistics, texts.detached()
        near = tables(found.mean, still.known.float(), still.new.float(), self.config.neighbors)
        return Known(found, near, spread)

    def _texts(self) -> Texts:
        """Features of all names, in one pass."""
        found = self.tuned.matcher.names((*self.classes, *self.new_names))
        return Texts(found[: len(self.classes)], found[len(self.classes) :])

    def _invent(self, x: Tensor, labels: Tensor, texts: Texts, known: Known) -> Invented:
        if self.config.invents == "mean":
            return averaged(labels, known)
        return invent(self.generator, x, labels, texts, known)

    def _lesson(self, x: Tensor, labels: Tensor, known: Known) -> Invented | None:
        """What the teacher invents; nothing without a teacher or a generator."""
        if self.teacher is None or not self.teacher.ready or self.config.invents == "mean":
            return None
        with self.teacher.teaching(), torch.no_grad():
            self.generator.eval()
            lesson = self._invent(x, labels, self._texts(), known)
            self.generator.train()
        return lesson

    def _classes(
        self, features: Tensor, batch: Batch, texts: Texts, made: Invented, rng: Rng
    ) -> dict[str, Tensor]:
        """The losses after the warm-up."""
        weights, labels, count = self.config.weights, batch["labels"], self.config.neighbors
        scale = self.tuned.matcher.model.logit_scale
        among = torch.cat([texts.new, texts.known]) if self.config.joint_softmax else texts.new
        parts = {
            "real": weights.real * self._real(features, batch, texts, rng),
            "known": weights.known * classify(made.known, texts.known, labels, scale),
            "new": weights.new / count * classify(made.new, among, made.new_labels, scale),
        }
        if self.config.invents == "generator":
            parts["near"] = weights.near / count * classify(made.near, texts.known, made.near_labels, scale)
        return parts

    def _real(self, features: Tensor, batch: Batch, texts: Texts, rng: Rng) -> Tensor:
        """The inner method's own loss: cross-entropy and its pulls, or FLYP's contrast."""
        matcher = self.tuned.matcher
        if self.contrastive:
            said = drawn(self.config.templates, self.classes, batch["labels"].tolist(), rng)
            gather = self.backend.gather
            logits = matcher.model.logits(gather(features), gather(matcher.model.texts(said)))
            return sigmoid_loss(logits) if matcher.model.has_bias else softmax_loss(logits)
        logits = matcher.model.logits(features, texts.known)
        pulls = matcher.pull(features, logits, batch["images"], self.classes) if "images" in batch else {}
        return F.cross_entropy(logits, batch["labels"]) + sum(pulls.values())

    @override
    def after_step(self, step: int) -> None:
        super().after_step(step)
        if self.teacher:
            self.teacher.after_step(step)
        every = self.config.refresh
        if every and step % every == 0 and self.tuned.pictures and self.task:
            found = statistics(*self.all_features(self.task.train), len(self.classes))
            self.known = Known(found, self.known.tables, self.known.spread).to(self.backend.device)

    @override
    def state(self) -> dict[str, Any]:
        found = self.known.statistics
        kept = {"mean": found.mean, "deviation": found.deviation}
        return {
            **super().state(),
            "statistics": kept,
            "teacher": self.teacher.state() if self.teacher else {},
        }

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        kept = state["statistics"]
        found = Statistics(kept["mean"], kept["deviation"])
        self.known = Known(found, self.known.tables, self.known.spread).to(self.backend.device)
        if self.teacher:
            self.teacher.load_state(state["teacher"])

    @override
    def export(self, folder: Path) -> list[Path]:
        """The inner method alone: the generator is for training."""
        config = self.config
        return self.write(folder, config.model, config.pretrained, config.tuning, config.templates)
