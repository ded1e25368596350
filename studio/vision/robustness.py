"""Measures of one classifier under corruptions, shifts and attacks. Pictures are in [0, 1].

Axes: `n` pictures, `c h w` picture, `k` classes.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from studio.attacks.build import Attacker
from studio.attacks.config import AttackName, Attacks
from studio.attacks.corruptions import corrupt_all
from studio.attacks.gradient import Walk, ascend, cross_entropy, under_attack
from studio.data.config import Labelled
from studio.data.labelled import LabelledPhotos
from studio.data.order import spread
from studio.data.pools import Pool, open_pool, split
from studio.errors import StudioError
from studio.metrics.robustness import Evidence, restricted
from studio.models.vit import Classifier, require_classes
from studio.settings.custom import Custom

log = logging.getLogger(__name__)

CHECKED = 64
"""Pictures that the checks for masked gradients use."""
HIDING = 64.0
"""Radius in 255ths at which no picture can be told apart any more."""
CHECK_QUERIES = 300
"""Most queries of the black-box check: enough to beat masked gradients, few enough for every evaluation."""


@dataclass(frozen=True)
class Examined:
    """The pictures that everything is measured on."""

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    batch_size: int

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First place, pictures and labels of each batch."""
        for first in range(0, len(self), self.batch_size):
            stop = first + self.batch_size
            yield first, self.images[first:stop], self.labels[first:stop]

    def few(self, count: int) -> "Examined":
        """Some of the pictures, spread over the classes."""
        chosen = torch.from_numpy(spread(self.labels.cpu().numpy(), count)).to(self.labels.device)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def held_out(
    model: Classifier, data: Labelled, num_images: int, batch_size: int, device: torch.device
) -> Examined:
    """Held-out pictures as the model takes them.

    Raises:
        StudioError: The classes of model and data differ, or the size does.
    """
    pool = split(data).test
    require_classes(model, pool.classes)
    return _read(model, data, pool, num_images, batch_size, device)


def _read(
    model: Classifier, data: Labelled, pool: Pool, num_images: int, batch_size: int, device: torch.device
) -> Examined:  # fmt: skip
    chosen = spread(pool.labels, num_images or len(pool))
    facts = resolve_model_data_config(model.network)
    photos = LabelledPhotos(data, pool.subset(chosen), facts, trains=False)
    batch = next(photos.ordered(len(chosen)))
    model.check(batch["images"])
    return Examined(batch["images"].to(device), batch["labels"].to(device), batch_size)


@torch.no_grad()
def logits(model: nn.Module, examined: Examined) -> Float[Tensor, "n k"]:
    """Logits of all pictures."""
    return torch.cat([model(images) for _, images, _ in examined.batches()])


def corrupted(examined: Examined, name: str, severity: int) -> Examined:
    """The pictures under one corruption; each has random numbers of its own."""
    pixels = rearrange((examined.images * 255).round().to(torch.uint8).cpu(), "n c h w -> n h w c").numpy()
    changed = corrupt_all(pixels, name, severity, range(len(examined)))
    images = rearrange(torch.from_numpy(changed), "n h w c -> n c h w").to(examined.images) / 255
    return replace(examined, images=images.contiguous())


def published(root: str, name: str, severity: int, like: Examined, model: Classifier) -> Examined:
    """The pictures of ImageNet-C as published; they have the model's size and are not resized again."""
    folder = Path(root) / name / str(severity)
    data = Labelled(train=str(folder), augment="none")
    pool = open_pool(str(folder), data, held_out=False)
    require_classes(model, pool.classes)
    return _read(model, data, pool, len(like), like.batch_size, like.images.device)


def shifted_accuracy(model: Classifier, where: str, data: Labelled, like: Examined) -> tuple[float, int]:
    """Accuracy on other data, among its classes only, and how many pictures it has.

    Raises:
        StudioError: It has a class that the model does not know by this name.
    """
    pool = open_pool(where, data, held_out=True)
    known = {name: index for index, name in enumerate(model.classes)}
    if strange := [name for name in pool.classes if name not in known]:
        raise StudioError(
            f"Class {strange[0]!r} of {where} is none of the model's {len(known)} classes; rename its folder, or leave "
            "it out of --shifts.",
            field="shifts",
        )
    classes = torch.tensor([known[name] for name in pool.classes], device=like.images.device)
    found = _read(model, data, pool, 0, like.batch_size, like.images.device)
    answers = restricted(logits(model, found), classes.tolist()).argmax(1)
    return float((answers == classes[found.labels]).float().mean()), len(found)


@dataclass(frozen=True)
class Survivors:
    """Who is still told right under an attack, and the pictures that it made."""

    right: Tensor
    images: Float[Tensor, "n c h w"]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right.float().mean())


def attacked(
    attacker: Attacker, model: nn.Module, examined: Examined, name: AttackName | Custom, eps: float
) -> Survivors:
    """All pictures under one attack. Pictures that are wrong already are not attacked: they stay wrong."""
    right, made = [], []
    for first, images, labels in examined.batches():
        with torch.no_grad():
            standing = model(images).argmax(1) == labels
        moved = images.clone()
        if standing.any():
            moved[standing] = attacker(name, images[standing], labels[standing], eps, first)
        _require_allowed(attacker, name, images, moved, eps)
        with torch.no_grad():
            right.append((model(moved).argmax(1) == labels) & standing)
        made.append(moved)
    return Survivors(torch.cat(right), torch.cat(made))


def _require_allowed(
    attacker: Attacker, name: AttackName | Custom, images: Tensor, moved: Tensor, eps: float
) -> None:
    """Stop where an attack broke its promise: the numbers would mean nothing."""
    change, ball = (moved - images).flatten(1), attacker.ball(eps)
    size = change.abs().amax() if ball.norm == "linf" else torch.linalg.vector_norm(change, dim=1).amax()
    inside = float(moved.min()) >= 0 and float(moved.max()) <= 1
    if not inside or (name != "patch" and float(size) > ball.radius + 1e-5):
        raise RuntimeError(
            f"{name} left its ball: change {float(size):.6f}, radius {ball.radius:.6f}, in [0, 1]: {inside}"
        )


def masking_evidence(
    model: nn.Module, examined: Examined, settings: Attacks, seed: int, eps: float
) -> Evidence:
    """What tells whether gradients are masked, on a few pictures."""
    few = examined.few(CHECKED)
    quick = replace(settings, queries=min(settings.queries, CHECK_QUERIES))

    def under(name: AttackName, radius: float, restarts: int = 1) -> float:
        attacker = Attacker(model, replace(quick, restarts=restarts), seed)
        return attacked(attacker, model, few, name, radius).accuracy

    hiding = HIDING if settings.norm == "linf" else HIDING / 255 * float(np.sqrt(few.images[0].numel()))
    pgd = under("pgd", eps)
    return Evidence(
        n=len(few),
        clean=float((logits(model, few).argmax(1) == few.labels).float().mean()),
        fgsm=under("fgsm", eps),
        pgd=pgd,
        pgd_restarted=under("pgd", eps, restarts=5),
        black_box=under("square", eps),
        large_radius=under("pgd", hiding),
        strongest=min(pgd, under("pgd-margin", eps)),
        rises=_rises(model, few, Attacker(model, quick, seed), eps),
    )


def _rises(model: nn.Module, few: Examined, attacker: Attacker, eps: float, steps: int = 8) -> float:
    """Share of small steps up the gradient after which the loss of a picture is higher."""
    ball, risen = attacker.ball(eps), []
    moved, before = few.images, None
    for _ in range(steps + 1):
        with under_attack(model, moved.device), torch.no_grad():
            after = cross_entropy(model(moved), few.labels)
        if before is not None:
            risen.append((after >= before).float().mean())
        before = after
        walk = Walk(1, ball.radius / steps, cross_entropy)
        moved = ascend(model, few.images, few.labels, ball, start=moved, walk=walk)
    return float(torch.stack(risen).mean())
