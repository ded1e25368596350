"""The mathematics of DECOR: components of an embedding, and projection out of a subspace.

Jang et al. 2024, arXiv 2412.09169, sections 3 (components) and 4 (projection). Axes: `l` rows of a prompt, `k`
undesired rows, `r` directions, `d` width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CUTOFF = 1e-4
"""Singular values below this share of the largest are rounding, not meaning."""


def directions(
    undesired: Float[Tensor, "k d"], *, max_rank: int, energy: float = 1.0
) -> Float[Tensor, "d r"]:
    """Orthonormal directions of the undesired rows, strongest first.

    Takes those above rounding, at most `max_rank`, and no more than are needed for `energy` of the squared
    singular values.
    """
    if not len(undesired):
        return undesired.new_zeros(undesired.shape[1], 0, dtype=torch.float32)
    _, s, vh = torch.linalg.svd(undesired.float(), full_matrices=False)
    kept = int((s > CUTOFF * s[0]).sum())
    share = (s**2).cumsum(0) / (s**2).sum()
    enough = int((share < energy - 1e-6).sum()) + 1
    return vh[: min(kept, max_rank, enough)].T


def project_out(x: Float[Tensor, "*b d"], v: Float[Tensor, "d r"], strength: float) -> Float[Tensor, "*b d"]:
    """X' = X - alpha X V V^T (eq. 4), in float32, in the type of X."""
    if strength == 0 or v.shape[1] == 0:
        return x
    wide = x.float()
    return (wide - strength * (wide @ v) @ v.T).to(x.dtype)


def without(v: Float[Tensor, "k d"], protected: Float[Tensor, "p d"]) -> Float[Tensor, "k d"]:
    """Rows with their part in the span of the protected rows taken out."""
    basis = (
        directions(protected, max_rank=len(protected))
        if len(protected)
        else protected.new_zeros(v.shape[1], 0)
    )
    return project_out(v.float(), basis, 1.0)


def overlap(rows: Float[Tensor, "p d"], v: Float[Tensor, "d r"]) -> Float[Tensor, " p"]:
    """Cosine between each row and its projection on the directions: 1 is wholly inside."""
    return (rows.float() @ v).norm(dim=1) / rows.float().norm(dim=1).clamp_min(1e-12)


@dataclass(frozen=True)
class Components:
    """A prompt's embedding taken apart: X = U S V^T."""

    u: Float[Tensor, "l r"]
    s: Float[Tensor, " r"]
    vh: Float[Tensor, "r d"]
    tokens: Sequence[str]

    @property
    def energy(self) -> Float[Tensor, " r"]:
        """Share of each component, s_i^2 / sum s^2."""
        return self.s**2 / (self.s**2).sum()

    @property
    def loadings(self) -> Float[Tensor, "l r"]:
        """|U_i s_i|: how much of a component each token has."""
        return (self.u * self.s).abs()

    def rebuild(self, keep: Sequence[int]) -> Float[Tensor, "l d"]:
        """The embedding of some components only."""
        index = torch.tensor(list(keep), dtype=torch.long)
        return (self.u[:, index] * self.s[index]) @ self.vh[index]


def analyze(x: Float[Tensor, "l d"], tokens: Sequence[str]) -> Components:
    """The components of a prompt's embedding, words and padding together."""
    u, s, vh = torch.linalg.svd(x.float(), full_matrices=False)
    return Components(u, s, vh, tuple(tokens))
