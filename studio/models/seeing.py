"""Guidance where only the conditional half of the rows sees something: a reference, an adapter.

Axes: `b` pictures, `r` rows of one pass of the denoiser, `c h w` latent.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.contracts.batch import Batch
from studio.contracts.condition import Condition
from studio.diffusion.guidance import Guidance, classifier_free, rescale
from studio.models.base import Family
from studio.models.draw import guided

Seeing = Callable[[Bool[Tensor, " r"]], AbstractContextManager[None]]
"""Lets the rows that are True see, while the context is open."""


@dataclass(frozen=True)
class Passes:
    """A model, and what lets rows of its passes see."""

    family: Family
    seeing: Seeing


def guided_seeing(
    passes: Passes,
    x_t: Float[Tensor, "b c h w"],
    t: Float[Tensor, " b"],
    *,
    cond: Condition,
    uncond: Condition | None,
    guidance: Guidance,
) -> Float[Tensor, "b c h w"]:
    """The guided native prediction: the unconditional half sees nothing. One pass where both halves fit in one batch."""
    family, seeing = passes.family, passes.seeing
    yes = torch.ones(len(x_t), dtype=torch.bool, device=x_t.device)
    no = ~yes
    if uncond is None:
        with seeing(yes):
            return family.predict(x_t, t, cond)
    if uncond.tokens.shape == cond.tokens.shape:
        with seeing(torch.cat([no, yes])):
            return guided(family, x_t, t, cond=cond, uncond=uncond, guidance=guidance)
    with seeing(yes):
        conditional = family.predict(x_t, t, cond)
    with seeing(no):
        without = family.predict(x_t, t, uncond)
    return rescale(classifier_free(conditional, without, guidance.scale), conditional, guidance.phi)


@torch.no_grad()
def gain(loss: Callable[[Batch], Tensor], batch: Batch) -> dict[str, float]:
    """How much a method learns from views: its loss with the true ones and with those of other rows.

    `quality` is the share of the loss that the true ones take away, and names the best checkpoint.
    """
    true = float(loss(batch))
    shuffled = float(loss({**batch, "views": batch["views"].roll(1, 0)}))
    return {"loss_true": true, "loss_shuffled": shuffled, "quality": 1 - true / shuffled}
