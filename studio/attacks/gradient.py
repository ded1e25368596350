"""Attacks that follow the gradient: FGSM, PGD, momentum (MIM) and patches; shared by training and evaluation.

    FGSM  Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572
    PGD   Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv 1706.06083
    MIM   Dong et al. 2018, arXiv 1710.06081

Everything random comes in as `start`. Axes: `b` pictures, `c h w` picture, `k` classes.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from studio.attacks.ball import Ball
from studio.backend.precision import full_precision


@dataclass(frozen=True)
class Walk:
    """How an attack moves: this many steps of this length (in units of the pixel range) up this objective."""

    steps: int
    stride: float
    objective: "Objective"


Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) -> (b,): what the attack raises. The target is a label, or what TRADES compares with."""


def cross_entropy(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Cross-entropy of each picture."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """max_{k != y} z_k - z_y (Carlini and Wagner 2017): does not saturate where cross-entropy does."""
    own = logits.gather(1, rearrange(labels, "b -> b 1"))
    others = logits.scatter(1, rearrange(labels, "b -> b 1"), -torch.inf)
    return reduce(others, "b k -> b", "max") - rearrange(own, "b 1 -> b")


def divergence(logits: Float[Tensor, "b k"], probabilities: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """KL(p || softmax(logits)) of each picture, summed over the classes."""
    return reduce(F.kl_div(logits.log_softmax(1), probabilities, reduction="none"), "b k -> b", "sum")


@contextlib.contextmanager
def under_attack(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model in eval mode, fp32, with no gradients to its weights; afterwards as it was before."""
    modes = {module: module.training for module in model.modules()}
    wants = {value: value.requires_grad for value in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        with full_precision(device), torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for value, wanted in wants.items():
            value.requires_grad_(wanted)


def ascend(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    target: Tensor,
    ball: Ball,
    *,
    start: Float[Tensor, "b c h w"],
    walk: Walk,
) -> Float[Tensor, "b c h w"]:
    """The last of the projected gradient steps from `start`: the attack of adversarial training."""
    moved = start
    with under_attack(model, images.device):
        for _ in range(walk.steps):
            _, gradient = _slope(model, moved, target, walk.objective)
            moved = ball.project(moved + walk.stride * ball.direction(gradient), images)
    return moved


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, ball: Ball) -> Float[Tensor, "b c h w"]:
    """One step of full length from the picture itself."""
    return ascend(model, images, labels, ball, start=images, walk=Walk(1, ball.radius, cross_entropy))


def pgd(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    ball: Ball,
    *,
    starts: list[Float[Tensor, "b c h w"]],
    walk: Walk,
) -> Float[Tensor, "b c h w"]:
    """The worst picture met on any path: the first misclassified one, else the end of the last path.

    Pictures that are misclassified leave the batch, so that weak models cost little.
    """
    result = images.clone()
    left = torch.arange(len(images), device=images.device)
    with under_attack(model, images.device):
        for start in starts:
            result[left] = _worst_on_path(
                model, images[left], labels[left], ball.rows(left), start[left], walk
            )
            with torch.no_grad():
                left = left[model(result[left]).argmax(1) == labels[left]]
            if not len(left):
                break
    return result


def _worst_on_path(
    model: nn.Module, images: Tensor, labels: Tensor, ball: Ball, start: Tensor, walk: Walk
) -> Float[Tensor, "b c h w"]:
    """For each picture the first misclassified one on a path, else the path's end."""
    result, moved = start.clone(), start
    left = torch.arange(len(images), device=images.device)
    for _ in range(walk.steps):
        logits, gradient = _slope(model, moved, labels[left], walk.objective)
        broken = logits.argmax(1) != labels[left]
        result[left[broken]] = moved[broken]
        left, moved, gradient = left[~broken], moved[~broken], gradient[~broken]
        if not len(left):
            return result
        moved = ball.rows(left).project(moved + walk.stride * ball.direction(gradient), images[left])
    result[left] = moved
    return result


def momentum(
    model: nn.Module, images: Tensor, labels: Tensor, ball: Ball, *, steps: int = 10, decay: float = 1.0
) -> Float[Tensor, "b c h w"]:
    """MIM-10: the steps follow a running mean of gradients, which transfers better to other models."""
    moved, mean = images, torch.zeros_like(images)
    with under_attack(model, images.device):
        for _ in range(steps):
            _, gradient = _slope(model, moved, labels, cross_entropy)
            mean = decay * mean + gradient / reduce(gradient.abs(), "b c h w -> b 1 1 1", "mean").clamp_min(
                1e-12
            )
            moved = ball.project(moved + ball.radius / steps * ball.direction(mean), images)
    return moved


def worst_patch(
    model: nn.Module, images: Float[Tensor, "b c h w"], labels: Tensor, side: int
) -> Float[Tensor, "b 1 h w"]:
    """Where one square of `side` pixels would hurt most: 1 in the grid cell with the largest gradient.

    PatchFool (Fu et al. 2022, arXiv 2203.08392) chooses the token by attention; the gradient asks no architecture.
    """
    with under_attack(model, images.device):
        _, gradient = _slope(model, images, labels, cross_entropy)
    power = F.avg_pool2d(reduce(gradient.square(), "b c h w -> b 1 h w", "sum"), side)
    flat = rearrange(power, "b 1 h w -> b (h w)")
    chosen = rearrange(F.one_hot(flat.argmax(1), flat.shape[1]), "b (h w) -> b 1 h w", h=power.shape[2])
    cells = repeat(chosen.to(images), "b 1 h w -> b 1 (h p) (w q)", p=side, q=side)
    room = (0, images.shape[3] - cells.shape[3], 0, images.shape[2] - cells.shape[2])
    return F.pad(cells, room)


def _slope(model: nn.Module, moved: Tensor, target: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Logits at a point and the gradient of the objective there; nothing is left in the weights."""
    point = moved.detach().requires_grad_()
    logits = model(point)
    return logits.detach(), torch.autograd.grad(objective(logits, target).sum(), point)[0]
