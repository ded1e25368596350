"""Numbers of pictures and texts in one space. Axes: `n` pictures, `m` texts, `p` pairs. Accuracies are fractions."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def harmonic(base: float, new: float) -> float:
    """Harmonic mean of the accuracies on base and new classes, 2BN / (B + N) (arXiv 2203.05557)."""
    return 2 * base * new / (base + new) if base + new else 0.0


def recall(
    scores: Float[Tensor, "n m"], matches: Bool[Tensor, "n m"], ranks: Sequence[int]
) -> dict[int, float]:
    """R@k of rows: the share whose k highest columns hold a match."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = torch.gather(matches, 1, order)
    return {k: float(hits[:, :k].any(1).float().mean()) for k in ranks}


def swapped(scores: Float[Tensor, "p two two"]) -> dict[str, float]:
    """Compositional pairs: scores [pair, picture, caption] where caption i belongs to picture i.

    `text`: each picture picks its caption; `picture`: each caption picks its picture; `group`: both (Winoground, arXiv
    2204.03162, section 3). Chance is 1/4, 1/4 and 1/6.
    """
    text = (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] > scores[:, 1, 0])
    picture = (scores[:, 0, 0] > scores[:, 1, 0]) & (scores[:, 1, 1] > scores[:, 0, 1])
    found = {"text": text, "picture": picture, "group": text & picture}
    return {name: float(right.float().mean()) for name, right in found.items()}
