"""Steps weight by weight: trained weights in bf16 without losing small changes, gradients that are gone once they are used.

A weight in bf16 is stepped in float32 and rounded up or down by chance, so that on average nothing is lost that is
smaller than a unit in its last place (Gupta et al. 2015, arXiv 1502.02551, section 3; kohya's `full_bf16`, OneTrainer's
stochastic rounding). With its optimizer's step in the backward pass a gradient lives as long as its weight's turn
(kohya's `fused_backward_pass`).
"""

# Optimizers' own annotations are partly unknown under the strict rules.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float32
from torch import Tensor

_KEPT_BITS = -1 << 16
"""bf16 is the upper half of float32."""


def rounded(values: Float32[Tensor, "..."]) -> Tensor:
    """Values in bf16, each rounded to one of its two neighbors with an expectation of itself."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + torch.randint_like(bits, 1 << 16)) & _KEPT_BITS).view(torch.float32).to(torch.bfloat16)


class OneByOne:
    """Steps an optimizer, whose state of a weight depends on that weight alone, a weight at a time."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, in_backward: bool) -> None:
        """Take an optimizer; with `in_backward`, step each weight as soon as its gradient is there."""
        self._optimizer, self.in_backward = optimizer, in_backward
        self._group_of = {w: i for i, group in enumerate(optimizer.param_groups) for w in group["params"]}
        self._squares: list[Tensor] = []
        if in_backward:
            for weight in self._group_of:
                weight.register_post_accumulate_grad_hook(self._at_once)

    def step(self) -> None:
        """Step every weight that has a gradient."""
        for weight in self._group_of:
            if weight.grad is not None:
                self._move(weight)

    def norm(self) -> Float32[Tensor, ""]:
        """Norm of the gradients that are gone since the last call; a part that was not finite moved nothing."""
        found = torch.stack(self._squares).sum().sqrt()
        self._squares.clear()
        return found

    def _at_once(self, weight: Tensor) -> None:
        gradient = weight.grad
        if gradient is None:
            return
        square = gradient.float().square().sum()
        self._squares.append(square)
        gradient.masked_fill_(~square.isfinite(), 0)
        self._move(weight)

    @torch.no_grad()
    def _move(self, weight: Tensor) -> None:
        gradient, dtype = weight.grad, weight.dtype
        if gradient is None:
            return
        if dtype != torch.float32:
            weight.grad = None
            weight.data = weight.data.float()
            weight.grad = gradient.float()
        with self._only(weight):
            self._optimizer.step()
        weight.grad = None
        if dtype != torch.float32:
            weight.data = rounded(weight.data)

    @contextlib.contextmanager
    def _only(self, weight: Tensor) -> Iterator[None]:
        """Have the optimizer see one weight."""
        groups = self._optimizer.param_groups
        kept = [group["params"] for group in groups]
        for index, group in enumerate(groups):
            group["params"] = [weight] if index == self._group_of[weight] else []
        try:
            yield
        finally:
            for group, own in zip(groups, kept, strict=True):
                group["params"] = own


def exact_states(optimizer: torch.optim.Optimizer, saved: dict[int, dict[str, object]]) -> None:
    """Give loaded moments the dtype that they were saved in: torch casts them to their weights'."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, moments in saved.items():
        own = optimizer.state[weights[index]]
        for name, value in moments.items():
            if (
                isinstance(value, Tensor)
                and isinstance(own.get(name), Tensor)
                and own[name].dtype != value.dtype
            ):
                own[name] = value.to(own[name].device)
