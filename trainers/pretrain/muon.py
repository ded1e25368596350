"""Muon: momentum whose update is orthogonalized, for hidden weights; Adam for all else.

Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks". The quintic Newton-Schulz
coefficients are the authors'. Convolutions are seen as matrices (out, in * k * k).

Departure: which tensors are hidden weights is read from their shape. Vectors, embeddings (tables much taller than
wide) and thin first and last layers are left to Adam. One learning rate serves both: Adam's is `lr * adam_ratio`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

_SMALLEST = 32
"""A matrix with fewer rows or columns is not orthogonalized: first and last layers, position tables."""
_TALL = 8
"""A matrix this many times taller than wide is an embedding table."""


def orthogonalize(matrix: Float[Tensor, "rows columns"], steps: int) -> Float[Tensor, "rows columns"]:
    """The nearest (semi-)orthogonal matrix, roughly: its singular values are all near 1."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


def is_hidden(weight: Tensor) -> bool:
    """Whether Muon takes this tensor; Adam takes the others."""
    if weight.ndim < 2:
        return False
    rows, columns = weight.flatten(1).shape
    return min(rows, columns) >= _SMALLEST and rows < _TALL * columns


class Muon(torch.optim.Optimizer):
    """Muon for hidden weights and Adam for the rest, in one optimizer.

    Args:
        params: Parameters or groups of them.
        lr: Rate of the orthogonalized updates (0.02: Muon's authors).
        betas: Running means of Adam.
        weight_decay: Decoupled decay of hidden weights.
        momentum: Decay of Muon's momentum (Nesterov).
        adam_ratio: Adam's rate as a share of `lr`.
        newton_steps: Newton-Schulz steps (5: authors).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: float,
    ) -> None:
        known = {"momentum": 0.95, "adam_ratio": 0.05, "newton_steps": 5}
        if unknown := options.keys() - known.keys():
            raise TypeError(f"unknown options {sorted(unknown)}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, **known, **options})

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # no closure
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if is_hidden(weight):
                    self._muon(weight, weight.grad, group)
                else:
                    self._adam(weight, weight.grad, group)

    def _muon(self, weight: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = torch.lerp(gradient, momentum, group["momentum"]).flatten(1)
        rows, columns = update.shape
        update = orthogonalize(update, int(group["newton_steps"])) * max(1.0, rows / columns) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update.view_as(weight), alpha=-group["lr"])

    def _adam(self, weight: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        state["step"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(gradient, 1 - first)
        square = state["square"].lerp_(gradient.square(), 1 - second)
        scale = (square / (1 - second ** state["step"])).sqrt_().add_(1e-8)
        rate = group["lr"] * group["adam_ratio"] / (1 - first ** state["step"])
        weight.addcdiv_(mean, scale, value=-rate)
