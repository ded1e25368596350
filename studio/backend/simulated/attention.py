"""Attention as a GPU's fused kernels hold it: queries, keys, values, the result and one number a row.

Fake tensors know torch's attention only as its two matrix products, whose scores no GPU ever holds whole. The operator
that torch has for the CPU's fused kernel keeps what FlashAttention-2 keeps (arXiv 2307.08691, algorithms 1 and 2).
"""

from typing import Any

import torch
from torch import Tensor

_kernel: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_KEEP: list[torch.library.Library] = []


def register() -> None:
    """Let the device's attention be the fused kernel, also where a backward pass computes it again."""
    own = torch.library.Library("aten", "IMPL", "AutogradPrivateUse1")
    own.impl("scaled_dot_product_attention", fused)
    _KEEP.append(own)


def fused(  # noqa: PLR0913  # torch's own
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` on the simulated device.

    Raises:
        RuntimeError: Tensors are on several devices or of several types, which the kernels refuse.
    """
    del dropout_p
    _refuse(query, key, value, attn_mask)
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(times, dim=-3) for each in (key, value))
    flat = [each.reshape(-1, *each.shape[-3:]) if each.ndim != 4 else each for each in (query, key, value)]
    out, _ = _kernel(*flat, 0.0, is_causal, attn_mask=None, scale=scale)
    return out.reshape(*query.shape[:-1], value.shape[-1]) if query.ndim != 4 else out


def _refuse(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    tensors = [query, key, value, *(() if mask is None else (mask,))]
    if len(places := {str(each.device) for each in tensors}) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {' and '.join(sorted(places))}"
        )
    if len(kinds := {str(each.dtype) for each in tensors[:3]}) > 1:
        raise RuntimeError(
            f"Expected query, key, and value to have the same dtype, but got {' and '.join(sorted(kinds))}"
        )
