"""BOFT: a rotation of a layer's input as a product of butterfly factors.

Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, Liu et al. 2023, arXiv 2311.06243, eq. 6:
R = B_m ... B_2 B_1. With half blocks of h = b / 2 features, factor i (from 0) couples half block j with j + 2^i inside
groups of 2^(i+1) half blocks, through Cayley blocks of size b. m = 1 is OFT; m = 1 + log2(d / b) makes R dense.

Nothing of size d x d is built. Neighboring factors are multiplied into blocks of at most LARGEST_BLOCK features first
(the product of L factors is again block-diagonal, after a permutation, with blocks of h 2^L), so that m <= 2 costs one
pass over the input, as OFT does.

Departure: dropout is as in the paper (a share of the factors, in them a share of the blocks), not as in PEFT.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from studio.adapters.cayley import cayley, num_entries
from studio.adapters.config import Boft
from studio.adapters.oft import nearest_divisor
from studio.adapters.orthogonal_blocks import Factor
from studio.errors import StudioError

LARGEST_BLOCK = 64
"""Products of factors up to this size are cheaper than one pass over the input a factor."""


class Butterfly(nn.Module):
    """A butterfly rotation of `features` features; `weight` is (factors, blocks, entries)."""

    def __init__(self, adapter: Boft, features: int, layer: str) -> None:
        """Start at the identity.

        Raises:
            StudioError: Blocks and factors do not fit the layer's width.
        """
        super().__init__()
        self.features, self.size, self.num_factors = features, adapter.block_size, adapter.factors
        self.dropout, self.dropout_factors = adapter.dropout, adapter.dropout_factors
        self.active = adapter.factors
        self.orthogonal = True
        if features % (self.size << (self.num_factors - 1)):
            raise StudioError(
                f"BOFT of block_size {self.size} and {self.num_factors} factors does not fit the input width {features} "
                f"of layer {layer}: {self.size} x 2^{self.num_factors - 1} must divide it; choose "
                f"{_fitting(features, self.size)}.",
                field="adapter.factors",
            )
        blocks = features // self.size
        self.weight = nn.Parameter(torch.zeros(self.num_factors, blocks, num_entries(self.size)))

    def factors(self, strength: float = 1.0) -> list[Factor]:
        """The rotation at a strength, as few passes: x R = x B_m ... B_1, so the last factor comes first."""
        rotations = self._dropped(self.rotations(strength))
        half, step = self.size // 2, self._together()
        parts = [(start, min(start + step, self.active)) for start in range(0, self.active, step)]
        return [
            Factor(_composed(rotations[start:stop], start, half), 1 << start, half)
            for start, stop in reversed(parts)
        ]

    def rotations(self, strength: float = 1.0) -> Float[Tensor, "m k b b"]:
        """The blocks of every factor, float32."""
        blocks = cayley(-strength * self.weight.flatten(0, 1), self.size)
        return blocks.unflatten(0, (self.num_factors, -1))

    def project(self) -> None:
        """BOFT has no bound to keep."""

    def _together(self) -> int:
        """Number of factors to multiply into one: two cost no more operations than one after the other."""
        return max(2, (LARGEST_BLOCK // (self.size // 2)).bit_length() - 1)

    def _dropped(self, rotations: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return rotations
        number = (len(rotations), rotations.shape[1], 1, 1)
        keep = torch.rand(number, device=rotations.device) >= self.dropout
        keep |= torch.rand((number[0], 1, 1, 1), device=rotations.device) >= self.dropout_factors
        return torch.where(keep, rotations, torch.eye(self.size, device=rotations.device))


def _composed(rotations: Float[Tensor, "m k b b"], first: int, half: int) -> Float[Tensor, "n c c"]:
    """Factors `first`, `first` + 1 ... multiplied: blocks (group, s) of h 2^m features for s < 2^first.

    A group of the next factor is two groups q of the product so far: P' = B diag(P_0, P_1), in h x h pieces of B.
    """
    product = rotations[0]
    for local in range(1, len(rotations)):
        sizes = {"a": 1 << local, "s": 1 << first}
        factor = rearrange(rotations[local], "(g a s) i (q k) -> g s q a i k", k=half, **sizes)
        below = rearrange(product, "(g q s) (a k) r -> g s q a k r", q=2, k=half, **sizes)
        product = rearrange(factor @ below, "g s q a (p h) r -> (g s) (p a h) (q r)", h=half)
    return product


def _fitting(features: int, size: int) -> str:
    """A block size and the most factors that fit a width."""
    even = 2 * nearest_divisor(features // 2, max(size // 2, 1)) if features % 2 == 0 else 0
    if not even:
        return "other layers, as the width is odd"
    most = 1
    while features % (even << most) == 0:
        most += 1
    return f"block_size {even} and at most {most} factors"
