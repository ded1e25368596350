"""Rotations from skew-symmetric matrices: the Cayley transform and its Neumann series.

    Q = -Q^T,   R = (I + Q)(I - Q)^-1 = 2 (I - Q)^-1 - I            (Qiu et al. 2023, arXiv 2306.07280, section 3.3)
    R_K = (I + Q)(I + Q + ... + Q^(K-2)) = R (I - Q^(K-1))           (Qiu et al. 2025, arXiv 2506.19847)

R is orthogonal with determinant 1; an eigenvalue i theta of Q turns by 2 atan(theta). R_K is not orthogonal: for K = 5
its singular values are |1 - theta^4|. Blocks are stored as their strict upper triangle, row by row, as PEFT does.
Axes: `k` blocks, `b` block size, `p` = b (b - 1) / 2 entries.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from studio.backend.precision import full_precision

LARGEST_BATCHED = 128
"""Above this block size MKL's batched solve is wrong on several threads (pytorch issue 142815): solve one by one."""
CLOSED_FORM = 4
"""Up to this block size the inverse is a polynomial of Q."""


def num_entries(size: int) -> int:
    """Free entries of a skew-symmetric matrix."""
    return size * (size - 1) // 2


def skew(entries: Float[Tensor, "k p"], size: int) -> Float[Tensor, "k b b"]:
    """Skew-symmetric matrices with the given strict upper triangles."""
    index, sign = _layout(size, str(entries.device))
    padded = torch.nn.functional.pad(entries, (0, 1))
    return padded.index_select(1, index).unflatten(1, (size, size)) * sign.to(entries.dtype)


def triangle(matrices: Float[Tensor, "k b b"]) -> Float[Tensor, "k p"]:
    """The strict upper triangles, the inverse of `skew`."""
    return matrices.flatten(1).index_select(1, _upper(matrices.shape[-1], str(matrices.device)))


def cayley(entries: Float[Tensor, "k p"], size: int) -> Float[Tensor, "k b b"]:
    """Exact rotations, computed and differentiated in float32 or better whatever the surroundings."""
    return _Cayley.apply(entries if entries.dtype == torch.float64 else entries.float(), size)


def neumann(entries: Float[Tensor, "k p"], size: int, terms: int) -> Float[Tensor, "k b b"]:
    """The truncated series R_K, K = `terms` >= 2: (I + Q)(I + ... + Q^(K-2)), without a solve."""
    with full_precision(entries.device):
        power = q = skew(entries.float(), size)
        series = eye = torch.eye(size, device=q.device).expand_as(q)
        for _ in range(terms - 2):
            series = series + power
            power = power @ q
        return (eye + q) @ series


def resolvent(q: Float[Tensor, "k b b"]) -> Float[Tensor, "k b b"]:
    """(I - Q)^-1, which exists for every skew-symmetric Q."""
    size = q.shape[-1]
    eye = torch.eye(size, dtype=q.dtype, device=q.device)
    if size <= CLOSED_FORM:
        return _closed_form(q, eye)
    if size > LARGEST_BATCHED and q.device.type == "cpu":
        return torch.stack([torch.linalg.inv(one) for one in eye - q])
    return torch.linalg.inv_ex(eye - q).inverse  # no check for singularity, which would wait for the device


def largest_angle(q: Float[Tensor, "k b b"], iterations: int = 8) -> Float[Tensor, " k"]:
    """theta_max of each block, the spectral norm of Q, by power iterations on Q^T Q from a fixed start (from below)."""
    start = torch.linspace(1.0, 2.0, q.shape[-1], device=q.device, dtype=q.dtype).cos()
    vector = start.expand(q.shape[0], -1).unsqueeze(-1)
    length = q.new_zeros(q.shape[0])
    for _ in range(iterations):
        moved = q @ (vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-30))
        length = moved.norm(dim=1).squeeze(-1)
        vector = q.mT @ moved
    return length


def orthogonality_error(blocks: Float[Tensor, "k b b"]) -> Float[Tensor, ""]:
    """Largest entry of |R^T R - I|."""
    eye = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    with full_precision(blocks.device):
        return (blocks.mT @ blocks - eye).abs().max()


def polish(blocks: Float[Tensor, "k b b"], steps: int = 3) -> Float[Tensor, "k b b"]:
    """Newton-Schulz steps R <- R (3 I - R^T R) / 2 towards the nearest rotation (from R_K: three for theta < 0.7)."""
    eye = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    for _ in range(steps):
        blocks = blocks @ (3 * eye - blocks.mT @ blocks) / 2
    return blocks


def within(entries: Float[Tensor, "k p"], radius: float) -> Float[Tensor, "k p"]:
    """Entries scaled so that |Q_k|_F <= radius for each block; |Q|_F = sqrt(2) |entries|."""
    norms = entries.norm(dim=1, keepdim=True) * 2**0.5
    return entries * (radius / norms.clamp_min(1e-30)).clamp(max=1.0)


class _Cayley(torch.autograd.Function):
    """R = 2 M - I with M = (I - Q)^-1, so dR = 2 M dQ M: the backward pass needs no solve."""

    @staticmethod
    def forward(ctx: Any, entries: Tensor, size: int) -> Tensor:
        with full_precision(entries.device):
            inverse = resolvent(skew(entries, size))
        ctx.save_for_backward(inverse)
        return 2 * inverse - torch.eye(size, dtype=inverse.dtype, device=inverse.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        with full_precision(inverse.device):
            by_q = torch.bmm(torch.bmm(inverse.mT, grads[0]), inverse.mT)
        return 2 * triangle(by_q - by_q.mT), None


def _closed_form(q: Tensor, eye: Tensor) -> Tensor:
    """(I - Q)^-1 = (I + Q)(I - Q^2)^-1 by Cayley-Hamilton: Q^2 has one eigenvalue pair for b <= 3, two for b = 4."""
    size = q.shape[-1]
    upper = triangle(q)
    squares = upper.square().sum(1)[:, None, None]
    if size == 1:
        return eye.expand_as(q)
    if size == 2:
        return (eye + q) / (1 + squares)
    square = q @ q
    if size == 3:
        return (eye + q) @ (eye + square / (1 + squares))
    pfaffian = upper[:, 0] * upper[:, 5] - upper[:, 1] * upper[:, 4] + upper[:, 2] * upper[:, 3]
    determinant = 1 + squares + pfaffian.square()[:, None, None]
    return (eye + q) @ ((1 + squares) * eye + square) / determinant


@lru_cache(maxsize=64)
def _upper(size: int, device: str) -> Tensor:
    """Positions of the strict upper triangle in a flattened matrix."""
    rows, columns = torch.triu_indices(size, size, 1)
    return (rows * size + columns).to(device)


@lru_cache(maxsize=64)
def _layout(size: int, device: str) -> tuple[Tensor, Tensor]:
    """For each cell of a matrix, the entry it holds (the last one is padding) and its sign."""
    rows, columns = torch.triu_indices(size, size, 1)
    index = torch.full((size, size), num_entries(size))
    index[rows, columns] = index[columns, rows] = torch.arange(num_entries(size))
    sign = torch.zeros(size, size)
    sign[rows, columns], sign[columns, rows] = 1.0, -1.0
    return index.flatten().to(device), sign.to(device)
