"""OFT: one block-diagonal rotation of a layer's input, learned through its Cayley parameters.

Controlling Text-to-Image Diffusion by Orthogonal Finetuning, Qiu et al. 2023, arXiv 2306.07280 (OFT, COFT, eqs. 3-6);
Orthogonal Finetuning Made Scalable, Qiu et al. 2025, arXiv 2506.19847 (turn the input, Cayley-Neumann). Tensors are
PEFT's: `weight` (k, b (b - 1) / 2). PEFT's two modes read opposite signs from them (exact: R = (I - Q)(I + Q)^-1,
Neumann: R ~ (I + Q)(I - Q)^-1), so the sign goes with the mode here as well.

Departures: COFT bounds the whole layer's |R - I|_F <= radius, as every block keeps |Q_k|_F <= radius / (2 sqrt(k)) (paper:
a radius on Q that means something else in every layer); strength s is Cayley(s Q), orthogonal for every s (paper: none);
dropout puts whole blocks to I (paper of BOFT).
"""

import logging

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.adapters.cayley import cayley, largest_angle, neumann, num_entries, skew, within
from studio.adapters.config import Oft
from studio.adapters.orthogonal_blocks import Factor
from studio.errors import StudioError

log = logging.getLogger(__name__)
WORRYING_ANGLE = 0.3
"""theta at which K = 5 terms are off by 0.8 %."""
LARGEST_ANGLE = 0.7
"""theta at which they are off by a quarter; the Neumann series is kept below."""


class Blocks(nn.Module):
    """A block-diagonal rotation of `features` features."""

    def __init__(self, adapter: Oft, features: int, layer: str) -> None:
        """Start at the identity.

        Raises:
            StudioError: The blocks do not fit the layer's width.
        """
        super().__init__()
        self.features, self.size = features, block_size(adapter, features, layer)
        self.count = features // self.size
        self.terms = adapter.terms if adapter.cayley == "neumann" else 0
        self.radius, self.dropout, self.layer = adapter.radius, adapter.dropout, layer
        self.orthogonal = not self.terms
        self.weight = nn.Parameter(torch.zeros(1 if adapter.share else self.count, num_entries(self.size)))

    def factors(self, strength: float = 1.0) -> list[Factor]:
        """The rotation at a strength: 0 is the identity, -1 the inverse (exactly so without Neumann)."""
        blocks = self.rotations(strength)
        if self.training and self.dropout:
            keep = torch.rand(self.count, 1, 1, device=blocks.device) >= self.dropout
            blocks = torch.where(keep, blocks, torch.eye(self.size, device=blocks.device))
        return [Factor(blocks)]

    def rotations(self, strength: float = 1.0) -> Float[Tensor, "k b b"]:
        """The blocks in float32."""
        if self.terms:
            return neumann(strength * self.weight, self.size, self.terms)
        return cayley(-strength * self.weight, self.size)

    @torch.no_grad()
    def project(self) -> None:
        """Put the parameters back where they belong: inside COFT's ball, and where the Neumann series holds."""
        if self.radius:
            self.weight.copy_(within(self.weight, self.radius / (2 * self.count**0.5)))
        if self.terms:
            angles = largest_angle(skew(self.weight.float(), self.size))[:, None]
            if float(angles.max()) > WORRYING_ANGLE:
                log.warning(
                    "%s: an angle of %.2f is too large for the Neumann series; use cayley exact.",
                    self.layer,
                    float(angles.max()),
                )
            self.weight.mul_((LARGEST_ANGLE / angles.clamp_min(1e-30)).clamp(max=1.0))


def block_size(adapter: Oft, features: int, layer: str) -> int:
    """Features a block of one layer.

    Raises:
        StudioError: They do not divide the layer's width.
    """
    given = adapter.blocks or adapter.block_size
    if features % given:
        field = "blocks" if adapter.blocks else "block_size"
        raise StudioError(
            f"OFT {field} {given} does not divide the input width {features} of layer {layer}; "
            f"choose a divisor, such as {nearest_divisor(features, given)}.",
            field=f"adapter.{field}",
        )
    return features // given if adapter.blocks else given


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of a number that is nearest to the wanted one, the larger of two."""
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return min(divisors, key=lambda n: (abs(n - wanted), -n))
