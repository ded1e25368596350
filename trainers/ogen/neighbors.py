"""What the training shots say about each class, and which classes are near which.

Axes: `c` known classes, `u` new names, `k` neighbors, `n` pictures, `d` width of the common space.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each class's unit features, over its training shots."""

    mean: Float[Tensor, "c d"]
    deviation: Float[Tensor, "c d"]


@dataclass(frozen=True)
class Tables:
    """Nearest classes.

    Attributes:
        known: Nearest known classes of a known one, by the pictures' means; itself excluded.
        new: Nearest new names of a known class, by text.
        of_new: Nearest known classes of a new name, by text.
    """

    known: Int[Tensor, "c k"]
    new: Int[Tensor, "c m"]
    of_new: Int[Tensor, "u j"]


def statistics(features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], num_classes: int) -> Statistics:
    """Statistics of each class; the deviation of a single shot is 0."""
    parts = [features[labels == label] for label in range(num_classes)]
    return Statistics(
        torch.stack([part.mean(0) for part in parts]),
        torch.stack([part.std(0, correction=0) for part in parts]),
    )


def tables(
    means: Float[Tensor, "c d"], known: Float[Tensor, "c d"], new: Float[Tensor, "u d"], neighbors: int
) -> Tables:
    """The `neighbors` nearest classes, or as many as there are.

    Args:
        means: Mean features of the known classes' pictures.
        known: Text features of the known classes.
        new: Text features of the new names.
        neighbors: How many.
    """
    near = F.normalize(means, dim=-1) @ F.normalize(means, dim=-1).T
    near.fill_diagonal_(-torch.inf)
    alike = known @ new.T
    return Tables(
        known=near.topk(min(neighbors, len(means) - 1)).indices,
        new=alike.topk(min(neighbors, len(new))).indices,
        of_new=alike.T.topk(min(neighbors, len(known))).indices,
    )
