"""The difference of two models as a LoRA of a rank."""

from collections.abc import Collection

import torch
from torch import nn

from studio.adapters.nearest import nearest
from studio.adapters.updates import Update, Updates
from studio.errors import StudioError
from studio.weights.structure import Structure, of_model

LEAST = 1e-6
"""Changes of which no number is larger are rounding, and no layer of the LoRA."""


def extracted(
    base: str, tuned: str, rank: int, components: Collection[str] = ()
) -> tuple[Structure, Updates, dict[str, float]]:
    """The LoRA of a rank that comes nearest to what finetuning changed, and the share of each layer's change that it keeps.

    Args:
        base: The model before.
        tuned: The same after.
        rank: The rank at most.
        components: Which parts; none takes the denoiser and the text encoders that are trained.

    Raises:
        StudioError: They are of two families or sizes, or nothing differs.
    """
    before, after = of_model(base, weights=True), of_model(tuned, weights=True)
    if before.card.name != after.card.name:
        raise StudioError(
            f"{base} is {before.card.title} and {tuned} is {after.card.title}; give two models of one family."
        )
    found: Updates = {}
    shares: dict[str, float] = {}
    trained = {before.card.denoiser, *before.card.words.trains}
    for component in components or [key for key in before.modules if key in trained]:
        for layer, low, share in _layers(before.modules[component], after.modules[component], rank):
            found.setdefault(component, {})[layer] = low
            shares[f"{component}.{layer}"] = share
    if not found:
        raise StudioError(f"{base} and {tuned} have the same weights; there is nothing to extract.")
    return before, found, shares


@torch.no_grad()
def _layers(before: nn.Module, after: nn.Module, rank: int) -> list[tuple[str, Update, float]]:
    """Linear layers and convolutions that changed; norms and embeddings have no LoRA."""
    found: list[tuple[str, Update, float]] = []
    tuned = after.state_dict()
    for layer, one in before.named_modules():
        if not isinstance(one, (nn.Linear, nn.Conv2d)):
            continue
        other = tuned[f"{layer}.weight"]
        if other.shape != one.weight.shape:
            raise StudioError(f"{layer} has other sizes in the two models; give two of one size.")
        change = other.float() - one.weight.float()
        if float(change.abs().max()) > LEAST:
            low, share = nearest(change, rank)
            found.append((layer, Update(low), share))
    return found
