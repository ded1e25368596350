"""Nullspace finetuning of vision transformers.

    Liu, Singh, Li, Wang, "Approximate Nullspace Augmented Finetuning for Robust Vision Transformers", CPAL 2025,
    arXiv 2403.10476; github.com/Liu-Hy/ns-vit

With E the patch embedding and F the rest of the model up to the logits:

    f_v(x) = F(E(x) + v),   one v for all pictures, added before class token and positions             (sec. 3)
    v      : from U(-lim, lim), minimize mean ||F(E(x) + v) - F(E(x))||_2 until the outputs change by < eps
    L      = CE(F(E(x)), y) + weight * CE(F(E(x) + v), y)                       v fixed, one step, two forward passes

v is searched anew each epoch: the model moves, and stale noise is no longer benign. It is saved with the weights, so
that a resumed run has the same one. Departures: see `studio.vision.nullspace.search_noise`; both passes share E(x).
"""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.progress import counted
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.training.loop import rows
from studio.vision.nullspace import Found, noise_change, permuted, search_noise
from studio.vision.task import classification_loss, load_task
from studio.vision.trainers import Classifies
from trainers.vit_nullspace.config import VitNullspace

log = logging.getLogger(__name__)


class Noise(nn.Module):
    """The present token noise, as something that a run saves."""

    value: Tensor
    facts: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)
        self.register_buffer("facts", torch.zeros(4, device=value.device))  # norm, change, steps, stopped


class VitNullspaceTrainer(Classifies, Trainer):
    """Cross-entropy with and without noise that the encoder ignores."""

    @override
    def __init__(self, config: VitNullspace) -> None:
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        config = self.config
        self.task = load_task(config.model, config.data, config.tuning, backend)
        model = self.task.model
        blank = torch.zeros(1, 3, model.size, model.size, device=backend.device)
        with torch.no_grad():
            self.noise = Noise(torch.zeros_like(model.tokens(blank)))
        self.seed = int(torch.randint(1 << 62, ()))  # setup runs under the run's seed
        return [*self.task.tuned.groups(), Group(name="noise", module=self.noise, trains=False)]

    @override
    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        """The same batches; before those that begin a round, the noise is searched with the model as it is."""
        for step, batch in enumerate(data, first):
            size = rows(batch) * self.backend.world
            every = self.config.regenerate_every or max(len(self.task.train) // size, 1)
            if self.config.noise != "none" and step % every == 0:
                self._renew(step, size)
            yield batch

    def _renew(self, step: int, size: int) -> None:
        config, model = self.config, self.task.model
        rng = Rng.single(self.seed, step, 1)
        start = (2 * rng.uniform(*self.noise.value.shape) - 1).mul(config.limit).to(self.noise.value)
        found = (
            self._search(start, step, size)
            if config.noise != "random"
            else Found(start, 0, float("nan"), stopped=False)
        )
        value = permuted(found.noise, rng.generator) if config.noise == "permuted" else found.noise
        self.noise.value.copy_(value)
        facts = [float(value.norm()), found.change, found.steps, found.stopped]
        self.noise.facts.copy_(torch.tensor(facts))
        if config.noise == "learned" and not found.stopped:
            log.warning(
                "step %d: the search ended after %d steps with change %.3f, above eps %.3f: this noise is not benign; raise "
                "search_steps or noise_lr, or lower limit", step, found.steps, found.change, config.eps,
            )  # fmt: skip
        log.info("step %d: noise of norm %.1f, change %.4f after %d steps (%s)", step, *facts[:3], model.name)

    def _search(self, start: Tensor, step: int, size: int) -> Found:
        config = self.config
        stream = self.task.train.stream(self.seed + step, 0, Shard(size, 0, size))
        steps = counted(range(config.search_steps), "noise that the model ignores", config.search_steps)
        pictures = (next(stream)["images"].to(start) for _ in steps)
        found = search_noise(
            self.task.model, pictures, start, eps=config.eps, lr=config.noise_lr, metric=config.stop_metric
        )
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]  # a generator: stops reading ahead
        return found

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        del rng
        config, model = self.config, self.task.model
        if config.noise == "none":
            total = classification_loss(model(batch["images"]), batch)
            return Loss(total, {"clean": total})
        tokens = model.tokens(batch["images"])
        plain, disturbed = model.from_tokens(tokens), model.from_tokens(tokens + self.noise.value)
        clean, noisy = classification_loss(plain, batch), classification_loss(disturbed, batch)
        apart = (disturbed - plain).square().sum(1).mean()
        total = clean + config.weight * noisy + config.consistency_weight * apart
        norm, change, steps, stopped = self.noise.facts
        facts = {"noise_norm": norm, "noise_change": change, "search_steps": steps, "search_stopped": stopped}
        known = {
            key: value for key, value in facts.items() if config.noise != "random" or key == "noise_norm"
        }
        return Loss(total, {"clean": clean, "noisy": noisy, "consistency": apart, **known})

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        images = self.task.look()["images"].to(self.noise.value)
        change = noise_change(self.task.model, images, self.noise.value, self.config.stop_metric)
        return {**self.task.score(output, request), "noise_change": change}
