"""The low-rank update that comes nearest to a change of a weight."""

import torch
from jaxtyping import Float
from torch import Tensor

from studio.adapters.updates import LowRank


def nearest(change: Float[Tensor, "n ..."], rank: int) -> tuple[LowRank, float]:
    """The best approximation of rank `rank`, and the share of the squared norm it keeps (1 if there is no change).

    Args:
        change: A change of a weight, (n d) or of a convolution (n d k k).
        rank: Its rank is at most that, and at most the matrix's sides.
    """
    left, values, right = torch.linalg.svd(change.float().cpu().flatten(1), full_matrices=False)
    root = values[:rank].sqrt()
    energy = values.square()
    total = float(energy.sum())
    down, up = root[:, None] * right[:rank], left[:, :rank] * root
    if change.ndim == 4:
        down, up = down.reshape(-1, *change.shape[1:]), up[:, :, None, None]
    low = LowRank(down, up, float(len(root)))
    return low, float(energy[:rank].sum()) / total if total else 1.0
