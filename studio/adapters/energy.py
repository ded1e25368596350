"""What orthogonal finetuning keeps: hyperspherical energy, and how far a rotation is from orthogonal.

    HE(W) = mean over i < j of 1 / |w_i / |w_i| - w_j / |w_j||          (Qiu et al. 2023, arXiv 2306.07280, eq. 1)

The rows of W are its neurons; convolutions are flattened. A mean, not the paper's sum, so that layers compare. The
half-space form (each neuron and its opposite, as the official code does) gives other numbers: never mix the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.adapters.cayley import orthogonality_error
from studio.adapters.orthogonal import rotated_layers

MOST_NEURONS = 2048
"""Neurons to look at in one layer; the cost grows with their square."""
_SEED = 0


@dataclass(frozen=True)
class Kept:
    """One layer's energy before and after, and the largest entry of |R^T R - I| over its blocks."""

    energy: float
    base_energy: float
    orthogonality: float

    @property
    def change(self) -> float:
        """Relative change of the energy."""
        return abs(self.energy - self.base_energy) / self.base_energy


@torch.no_grad()
def hyperspherical_energy(weight: Float[Tensor, "n ..."], *, half: bool = False) -> float:
    """Mean inverse distance of normalized neurons, of at most MOST_NEURONS chosen once and for all, in float64.

    Args:
        weight: Weights, one neuron a row.
        half: Add the opposite of each neuron (half-space form).
    """
    rows = neurons(weight).double()
    directions = torch.nn.functional.normalize(rows, dim=1)
    directions = torch.cat([directions, -directions]) if half else directions
    number = len(directions)
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    for chunk in directions.split(1024):
        squared = (2 - 2 * chunk @ directions.T).clamp_min(1e-12)
        total += squared.rsqrt().sum()
    return float(
        (total - number * 1e6) / (number * (number - 1))
    )  # the diagonal's clamped zeros, 1e-12^(-1/2) each


@torch.no_grad()
def kept(modules: Mapping[str, nn.Module], name: str) -> dict[str, Kept]:
    """What an orthogonal adapter kept in every layer it is on, by `module.layer`."""
    found: dict[str, Kept] = {}
    for key, module in modules.items():
        for path, layer in rotated_layers(module, name):
            weight = layer.get_base_layer().weight.detach()
            if not weight.is_floating_point():  # quantized: its neurons cannot be read
                continue
            turned = layer.turned(neurons(weight))
            blocks = layer.rotation.rotations(layer.strength).flatten(end_dim=-3)
            found[f"{key}.{path}"] = Kept(
                hyperspherical_energy(turned),
                hyperspherical_energy(weight),
                float(orthogonality_error(blocks)),
            )
    return found


def summary(found: Mapping[str, Kept]) -> dict[str, float]:
    """Numbers to log: the mean and the largest change of energy, the largest error of orthogonality."""
    changes = [one.change for one in found.values()]
    if not changes:
        return {}
    return {
        "energy_change": sum(changes) / len(changes),
        "energy_change_max": max(changes),
        "orthogonality_error": max(one.orthogonality for one in found.values()),
    }


def neurons(weight: Float[Tensor, "n ..."]) -> Float[Tensor, "k d"]:
    """Flattened rows, a fixed choice of them where there are many."""
    rows = weight.flatten(1)
    if len(rows) <= MOST_NEURONS:
        return rows
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SEED))[:MOST_NEURONS]
    return rows[chosen.sort().values.to(rows.device)]
