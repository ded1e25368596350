"""Places in tensors of the simulated device, as torch has them on other devices."""

# torch's dispatcher has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

import torch
from torch import Tensor


def placed(at: Any, value: Tensor) -> Any:
    """Where in a tensor, with lists of numbers as tensors beside it."""
    if isinstance(at, tuple):
        return tuple(placed(each, value) for each in at)
    return torch.tensor(at).to(value.device) if isinstance(at, list) else at


def new_tensor(like: Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`Tensor.new_tensor`."""
    return torch.tensor(data, dtype=dtype or like.dtype).to(device or like.device)


def everywhere(mask: Tensor) -> list[Tensor]:
    """Where a mask is true, an index an axis: everywhere, since what is read back is one."""
    return [torch.empty_like(mask, dtype=torch.long).flatten() for _ in mask.shape]


def without_masks(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Indices of a tensor, masks among them as numbers."""
    found: list[Tensor | None] = []
    for index in indices:
        found += everywhere(index) if index is not None and index.dtype == torch.bool else [index]
    return found
