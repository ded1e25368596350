"""Guidance: how a conditional and an unconditional prediction make one. Axes: `b` batch, `...` any others."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """Scale of classifier-free guidance, and share of its rescaling (phi in Lin et al. 2024; 0 none)."""

    scale: float
    phi: float = 0.0


def classifier_free(
    conditional: Float[Tensor, "b ..."], unconditional: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """Classifier-free guidance (Ho & Salimans 2022) as diffusers writes it: 1 is the conditional prediction."""
    return unconditional + scale * (conditional - unconditional)


def keep_norm(guided: Float[Tensor, "b n d"], conditional: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Each token of a guided prediction as long as the conditional one's (Qwen-Image's pipelines)."""
    return guided * (conditional.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))


def rescale(
    guided: Float[Tensor, "b ..."], conditional: Float[Tensor, "b ..."], phi: float
) -> Float[Tensor, "b ..."]:
    """Bring the spread of a guided prediction back to the conditional one's (Lin et al. 2024, eq. 15 and 16).

    `phi` in [0, 1]: 0 changes nothing; the paper uses 0.7 for models with zero terminal SNR.
    """
    if phi == 0:
        return guided
    axes = tuple(range(1, guided.ndim))
    factor = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return phi * guided * factor + (1 - phi) * guided
