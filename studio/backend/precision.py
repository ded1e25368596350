"""Places that must compute in fp32, and weights that must stay so, whatever the run's precision is."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Switch mixed precision off: sign gradients of attacks and angles near zero vanish in half precision."""
    return torch.autocast(device.type, enabled=False)


def kept_exact(module: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that a library keeps in fp32 when it loads the model in a half precision, and its `to` does not.

    transformers' models say it by parts of names for fp16 (T5's `wo`, which overflows) and for every half precision;
    diffusers' (Krea 2's norms) for every one.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return
    for place, part in module.named_modules():
        own: Any = part
        usual = (
            getattr(own, "_keep_in_fp32_modules", None) or ()
        )  # on most classes None, on torch's own nothing
        strict = getattr(own, "_keep_in_fp32_modules_strict", None)
        names = {*(strict or ()), *(usual if dtype == torch.float16 or strict is None else ())}
        for name, value in part.named_parameters(prefix=place) if names else ():
            if names & set(name.split(".")):
                yield name, value
