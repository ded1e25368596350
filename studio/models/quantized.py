"""Frozen weights in fewer bits: Linear layers that store codes and scales, and multiply in the compute dtype.

What is quantized are the Linear layers of a network's blocks, its embeddings and last layers are not: so do the trainers
that people know. Axes: `o` output, `i` input features of a layer; codes and scales are bytes, which no `.to(dtype)` casts.
"""

import functools
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from studio.backend.precision import kept_exact
from studio.errors import StudioError

_BLOCK = 64
"""Weights that share a scale in nf4 (QLoRA, Dettmers et al. 2023, section 3)."""
_FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Coding:
    """How weights (o i) become codes and float32 scales, and come back."""

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Tensor, torch.Size, torch.dtype], Tensor]


def _rows(weight: Float[Tensor, "o i"], largest: float) -> Float[Tensor, "o 1"]:
    """The scale of each output, such that its largest weight becomes the largest code."""
    return (weight.abs().amax(1, keepdim=True).float() / largest).clamp_min(torch.finfo(torch.float32).tiny)


def _to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = _rows(weight, torch.finfo(_FP8).max)
    return (weight / scales).to(_FP8), scales


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = _rows(weight, 127)
    return (weight / scales).round().to(torch.int8), scales


def _of_rows(
    codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype, kind: torch.dtype
) -> Tensor:
    return (codes.view(kind).to(dtype) * scales.to(dtype)).view(shape)


def _bitsandbytes() -> Any:
    """Its operators, which run on every device that torch has."""
    try:
        importlib.import_module("bitsandbytes")  # registers them
    except ImportError:
        raise StudioError(
            "--hardware.quantize nf4 needs bitsandbytes; install finetuning-studio[bnb], or set --hardware.quantize int8.",
            field="hardware.quantize",
        ) from None
    return torch.ops.bitsandbytes


def _to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    return _bitsandbytes().quantize_4bit(weight.contiguous(), _BLOCK, "nf4", torch.uint8)


def _of_nf4(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return _bitsandbytes().dequantize_4bit(codes, scales, _BLOCK, "nf4", shape, dtype)


CODINGS = {
    "nf4": Coding(_to_nf4, _of_nf4),
    "int8": Coding(_to_int8, functools.partial(_of_rows, kind=torch.int8)),
    "fp8": Coding(_to_fp8, functools.partial(_of_rows, kind=_FP8)),
}
"""By the values of `--hardware.quantize`."""


class Quantized(nn.Linear):
    """A frozen Linear layer that keeps codes; whoever reads `weight` gets what they stand for, made anew."""

    def __init__(self, layer: nn.Linear, coding: str, device: torch.device, dtype: torch.dtype) -> None:
        """Take over a layer, its weights quantized on a device and left there; `dtype` is that of `weight`."""
        nn.Module.__init__(self)
        self.dtype = dtype
        self.in_features, self.out_features, self.coding = layer.in_features, layer.out_features, coding
        codes, scales = CODINGS[coding].encode(layer.weight.detach().to(device))
        self.codes = nn.Parameter(codes.view(torch.uint8), requires_grad=False)
        self.scales = nn.Parameter(scales.contiguous().view(torch.uint8), requires_grad=False)
        self.bias = (
            None if layer.bias is None else nn.Parameter(layer.bias.detach().to(device), requires_grad=False)
        )

    @property
    @override
    def weight(self) -> Float[Tensor, "o i"]:  # pyright: ignore[reportIncompatibleVariableOverride]  # read alone
        """The weights, in the compute dtype."""
        return _dense(self.codes, self.scales, self, self.dtype)

    @override
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Codes go by the name `weight`, as bitsandbytes' do: diffusers looks layers up by it."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination.pop(f"{prefix}codes")

    @override
    def forward(self, input: Tensor) -> Tensor:
        place = input.device.type
        if torch.is_autocast_enabled(place):
            input = input.to(torch.get_autocast_dtype(place))
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return _Product.apply(input, self.codes, self.scales, bias, self)


def _dense(
    codes: UInt8[Tensor, "..."], scales: UInt8[Tensor, "..."], layer: Quantized, dtype: torch.dtype
) -> Tensor:
    shape = torch.Size((layer.out_features, layer.in_features))
    return CODINGS[layer.coding].decode(codes, scales.view(torch.float32), shape, dtype)


class _Product(torch.autograd.Function):
    """x W^T + b that keeps codes for the backward pass, not the weights they stand for."""

    @staticmethod
    @override
    def forward(
        ctx: Any, input: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, layer: Quantized
    ) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(codes, scales)
        ctx.layer = layer
        return F.linear(input, _dense(codes, scales, layer, input.dtype), bias)

    @staticmethod
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        codes, scales = ctx.saved_tensors
        return grad @ _dense(codes, scales, ctx.layer, grad.dtype), None, None, None, None


def quantize(network: nn.Module, coding: str, device: torch.device, dtype: torch.dtype) -> int:
    """Quantize the Linear layers of a network's blocks in place; gives how many.

    Args:
        network: Frozen; its weights may lie anywhere.
        coding: nf4 (4.5 bits a weight), int8 or fp8 (8 bits).
        device: Where codes are made, and stay.
        dtype: The compute dtype; what the network keeps in float32 beside it is left as it is.
    """
    exact = {name for name, _ in kept_exact(network, dtype)}
    found = {name: each for name, each in _layers(network) if f"{name}.weight" not in exact}
    for name, layer in found.items():
        place, _, own = name.rpartition(".")
        setattr(network.get_submodule(place), own, Quantized(layer, coding, device, dtype))
    return len(found)


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The Linear layers inside lists of blocks, by name."""
    lists = ((place, each) for place, each in network.named_modules() if isinstance(each, nn.ModuleList))
    for name, layer in itertools.chain.from_iterable(
        blocks.named_modules(prefix=place) for place, blocks in lists
    ):
        if type(layer) is nn.Linear:
            yield name, layer


def is_quantized(modules: Iterable[nn.Module]) -> bool:
    """Whether any layer among modules is stored in fewer bits."""
    return any(isinstance(each, Quantized) for module in modules for each in module.modules())
