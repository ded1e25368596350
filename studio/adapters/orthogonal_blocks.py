"""Multiply by a block-diagonal or butterfly rotation without building it.

Axes: `d` features, `k` blocks, `b` block size; a row vector x is turned as x R.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Factor:
    """A rotation that is block-diagonal after a permutation of parts of `width` features.

    Block (g, s) acts on the parts s, s + stride, s + 2 stride ... of group g. Stride 1 is plain block-diagonal.
    One block stands for all where `blocks` holds only one.
    """

    blocks: Float[Tensor, "k b b"]
    stride: int = 1
    width: int = 1

    def transposed(self) -> "Factor":
        """The inverse rotation."""
        return Factor(self.blocks.mT, self.stride, self.width)


def turn(x: Float[Tensor, "*t d"], factors: Sequence[Factor]) -> Float[Tensor, "*t d"]:
    """Turn the last axis of any tensor, x F_1 F_2 ..., by the factors in order."""
    for factor in factors:
        if factor.stride == 1:
            x = turn_blocks(x, factor.blocks)
            continue
        sizes = {"s": factor.stride, "h": factor.width, "n": factor.blocks.shape[-1] // factor.width}
        parts = rearrange(x, "... (g n s h) -> ... (g s n h)", **sizes)
        x = rearrange(turn_blocks(parts, factor.blocks), "... (g s n h) -> ... (g n s h)", **sizes)
    return x


def turn_back(x: Float[Tensor, "*t d"], factors: Sequence[Factor]) -> Float[Tensor, "*t d"]:
    """Turn by R^T, R the product of the factors: what a row of a weight becomes, as (x R) W^T = x (W R^T)^T."""
    return turn(x, [factor.transposed() for factor in reversed(factors)])


def turn_blocks(x: Float[Tensor, "*t d"], blocks: Float[Tensor, "k b b"]) -> Float[Tensor, "*t d"]:
    """Turn by diag(R_1, ..., R_k); the blocks are cast to the type of x."""
    return _Turn.apply(x, blocks.to(x.dtype))


def turned_linear(
    x: Float[Tensor, "*t d"],
    blocks: Float[Tensor, "k b b"],
    weight: Float[Tensor, "n d"],
    bias: Float[Tensor, " n"] | None,
) -> Float[Tensor, "*t n"]:
    """A linear layer of turned input, x diag(R_1, ..., R_k) W^T + c, by turning the n rows of the frozen W instead.

    Cheaper where there are more tokens than rows: x is never turned, forward or backward.
    """
    return _TurnedLinear.apply(x, blocks.to(x.dtype), weight, bias)


def dense(factors: Sequence[Factor], size: int) -> Float[Tensor, "d d"]:
    """R itself, for tests and for looking at it."""
    first = factors[0].blocks
    return turn(torch.eye(size, dtype=first.dtype, device=first.device), factors)


class _Turn(torch.autograd.Function):
    """One batched product each way, written straight into the result's layout: no permuted copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, blocks)
        return _product(flat, blocks).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, blocks = ctx.saved_tensors
        grad = grads[0].reshape(x.shape).to(x.dtype)
        by_x = _product(grad, blocks.mT).view(grads[0].shape) if ctx.needs_input_grad[0] else None
        by_blocks = _outer(x, grad, blocks) if ctx.needs_input_grad[1] else None
        return by_x, by_blocks


class _TurnedLinear(torch.autograd.Function):
    """With E = W R^T: y = x E^T and g_x = g E. As g W = g_x R, also g_R = x^T (g W) = (x^T g_x) R, block by block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        turned = _product(weight, blocks.mT)
        ctx.save_for_backward(x, blocks, turned)
        return F.linear(x, turned, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, blocks, turned = ctx.saved_tensors
        by_x = grads[0].to(x.dtype) @ turned
        by_blocks = None
        if ctx.needs_input_grad[1]:
            by_blocks = _outer(x.reshape(-1, x.shape[-1]), by_x.reshape(-1, x.shape[-1]), blocks) @ blocks
        return by_x, by_blocks, None, None


def _by_block(x: Tensor, size: int) -> Tensor:
    """(t, d) as (k, t, b), a view."""
    return rearrange(x, "t (k b) -> k t b", b=size)


def _product(x: Tensor, blocks: Tensor) -> Tensor:
    size = blocks.shape[-1]
    if len(blocks) == 1:
        return (x.reshape(-1, size) @ blocks[0]).view(x.shape)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.bmm(_by_block(x, size), blocks, out=_by_block(out, size))
    return out


def _outer(x: Tensor, grad: Tensor, blocks: Tensor) -> Tensor:
    size = blocks.shape[-1]
    if len(blocks) == 1:
        return (x.reshape(-1, size).mT @ grad.reshape(-1, size)).unsqueeze(0)
    return torch.bmm(_by_block(x, size).mT, _by_block(grad, size))
