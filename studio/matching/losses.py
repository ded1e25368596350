"""Contrastive objectives on unit features, pair i matching pair i. Axes: `b` pairs, `d` features.

softmax  Radford et al., 2021, arXiv 2103.00020, figure 3: cross-entropy over rows and over columns, averaged
sigmoid  Zhai et al., 2023, arXiv 2303.15343, eq. 1: every cell is a yes-or-no question
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def softmax_loss(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """CLIP's symmetric cross-entropy."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2


def sigmoid_loss(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """SigLIP's loss: the sum over all cells, divided by the number of pairs."""
    wanted = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(wanted * logits).sum() / len(logits)


def in_chunks(encode: Callable[[Any], Tensor], rows: Sequence[Any] | Tensor, size: int) -> Tensor:
    """Features of many rows, so many at a time; activations are kept for one chunk only (0: all at once).

    Gradient caching (GradCache, Gao et al. 2021, arXiv 2101.06983): the loss sees all features, and each chunk is
    computed a second time when its gradient is needed. Gradients are those of one large pass, for one more forward.
    """
    if not size or len(rows) <= size or not torch.is_grad_enabled():
        return encode(rows)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    made: list[Any] = [checkpoint(encode, part, use_reentrant=False) for part in parts]
    return torch.cat(made)
