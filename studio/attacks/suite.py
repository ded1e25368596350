"""AutoAttack and the Square attack, by their authors' own code (pyautoattack).

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
2020, arXiv 2003.01690; Andriushchenko, Croce, Flammarion, Hein, "Square Attack", 2020, arXiv 1912.00049
"""

import torch
from jaxtyping import Float, Int
from pyautoattack import AutoAttack
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from studio.attacks.ball import Ball
from studio.attacks.gradient import under_attack

_NORMS = {"linf": "Linf", "l2": "L2"}
TARGETS = 9
"""Target classes of the standard suite."""


def autoattack(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    ball: Ball,
    *,
    seed: int,
    mini: bool = False,
) -> Float[Tensor, "b c h w"]:
    """The standard suite: APGD-CE, targeted APGD-DLR, targeted FAB, Square, one after the other.

    Each attack sees the pictures that the ones before it left standing. With three classes or fewer the targeted
    losses do not exist; APGD-CE, FAB and Square then run alone, as the authors advise. `mini` keeps the four and
    shortens them (20 steps, 3 targets, 50 queries): an upper bound that takes seconds.
    """
    with torch.no_grad():
        num_classes = model(images[:1]).shape[1]
    few = num_classes <= 3
    with under_attack(model, images.device), torch.random.fork_rng():
        suite = AutoAttack(
            model,
            norm=_NORMS[ball.norm],  # pyright: ignore[reportArgumentType]  # a Literal there
            eps=ball.radius,
            device=images.device,
            seed=seed,
            version="custom" if few else "standard",
            attacks=["apgd-ce", "fab", "square"] if few else None,
        )
        suite.verbose = False
        suite.apgd.n_restarts = 1
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(TARGETS, num_classes - 1)
        if mini:
            _shorten(suite, num_classes)
        moved, _ = suite.run_standard_evaluation(images, labels, batch_size=len(images))
    return moved.detach()


def square(
    model: nn.Module, images: Tensor, labels: Tensor, ball: Ball, *, queries: int, seed: int
) -> Float[Tensor, "b c h w"]:
    """The black-box Square attack: asks for logits only, so masked gradients do not stop it."""
    with under_attack(model, images.device), torch.random.fork_rng():
        attack = SquareAttack(
            model,
            p_init=0.8,
            n_queries=queries,
            eps=ball.radius,
            norm=_NORMS[ball.norm],
            n_restarts=1,
            seed=seed,
            verbose=False,
            device=images.device,
            resc_schedule=False,
        )
        return attack.perturb(images, labels).detach()


def _shorten(suite: AutoAttack, num_classes: int) -> None:
    suite.apgd.n_iter = suite.apgd_targeted.n_iter = 20
    suite.apgd_targeted.n_target_classes = min(3, num_classes - 1)
    suite.fab.n_iter, suite.fab.n_target_classes = 5, min(2, num_classes - 1)
    suite.square.n_queries = 50
