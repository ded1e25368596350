"""Results of operators remembered by the shapes that went in: a model's layers ask the same a thousand times."""

# torch's dispatcher has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

Made = tuple[torch.Size, tuple[int, ...], torch.dtype]
"""A tensor's shape, strides and type."""


class Remembered:
    """What operators make of fake tensors of one device; those that change or share a tensor are never remembered."""

    def __init__(self, fake: FakeTensorMode, device: torch.device) -> None:
        self._fake, self._device = fake, device
        self._made: dict[Any, tuple[Made, ...]] = {}
        self._plain: dict[Any, bool] = {}

    def key(self, operator: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What the result depends on; None if it may not be remembered."""
        plain = self._plain.get(operator)
        if plain is None:
            plain = self._plain[operator] = _is_plain(operator)
        if not plain:
            return None
        found: list[Any] = [operator]
        for value in (*args, *options.values()):
            if not self._add(found, value):
                return None
        return (*found, *options)

    def _add(self, found: list[Any], value: Any) -> bool:
        if isinstance(value, Tensor):
            if type(value) is not FakeTensor or value.fake_device != self._device:
                return False
            found += [value.shape, value.stride(), value.dtype]
        elif isinstance(value, list | tuple):
            found.append(len(value))
            return all(self._add(found, each) for each in value)
        else:
            found += [type(value), value]
        return True

    def again(self, key: Any) -> Any:
        """The result that such inputs gave before, made anew; None if they never did."""
        made = self._made.get(key)
        if made is None:
            return None
        new = [self._tensor(each) for each in made]
        return new[0] if len(new) == 1 else tuple(new)

    def keep(self, key: Any, result: Any) -> None:
        """Remember what came out, if it is tensors of the device and nothing else."""
        several = result if isinstance(result, tuple) else (result,)
        if len(several) != 1 or not isinstance(result, tuple):
            ours = all(type(each) is FakeTensor and each.fake_device == self._device for each in several)
            if ours and several:
                self._made[key] = tuple((each.shape, each.stride(), each.dtype) for each in several)

    def _tensor(self, made: Made) -> Tensor:
        shape, strides, dtype = made
        return FakeTensor(
            self._fake, torch.empty_strided(shape, strides, dtype=dtype, device="meta"), self._device
        )


def _is_plain(operator: Any) -> bool:
    """Whether an operator's results are new tensors, and its inputs stay as they are."""
    schema = operator._schema
    return not any(each.alias_info for each in (*schema.arguments, *schema.returns))
