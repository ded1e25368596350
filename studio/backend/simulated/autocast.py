"""Mixed precision on the simulated device: the operators that CUDA's autocast runs in the lower precision, in fp32, and in the widest.

Torch has the lists in C++ for each device (ATen/autocast_mode.h), and none for a device in Python.
"""

# torch's dispatcher has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "simulated"
LOWER = (
    "_convolution", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d.input",
    "conv_transpose3d.input", "convolution", "prelu", "addmm", "addmv", "addr", "matmul", "einsum", "mm", "mv",
    "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot",
    "scaled_dot_product_attention",
)  # fmt: skip
"""Run in bf16 or fp16."""
EXACT = (
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh",
    "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm", "rms_norm",
    "group_norm", "frobenius_norm.dim", "nuclear_norm", "nuclear_norm.dim", "cosine_similarity", "poisson_nll_loss",
    "cosine_embedding_loss", "nll_loss", "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss", "smooth_l1_loss",
    "huber_loss", "mse_loss", "margin_ranking_loss", "multilabel_margin_loss", "soft_margin_loss",
    "triplet_margin_loss", "multi_margin_loss", "binary_cross_entropy_with_logits", "dist", "pdist", "cdist", "renorm",
    "logsumexp", "prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm",
    "linalg_matrix_norm", "linalg_matrix_norm.str_ord", "sum", "sum.dim_IntList", "norm.Scalar", "norm.ScalarOpt_dim",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
)  # fmt: skip
"""Run in fp32."""
WIDEST = (
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "grid_sampler", "index_put", "tensordot",
    "scatter_add",
)  # fmt: skip
"""Run in fp32 if one of their tensors is, else in the lower precision."""
_CASTS: dict[int, tuple[Tensor, Tensor]] = {}
"""Trained weights and their copies in the lower precision, which torch keeps until the outermost autocast ends."""
_KEEP: list[torch.library.Library] = []
"""Kernels live as long as the library object that holds them."""


def register() -> None:
    """Give the device's autocast its kernels; operators outside of the lists run as they come."""
    rest = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    rest.fallback(torch.library.fallthrough_kernel)
    own = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for names, dtype in ((LOWER, _lower), (EXACT, _exact), (WIDEST, _widest)):
        for operator in _operators(names):
            own.impl(operator, _kernel(operator, dtype))
    _KEEP.extend((rest, own))


def _operators(names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        packet, _, overload = name.partition(".")
        yield getattr(getattr(torch.ops.aten, packet), overload or "default")


def forget() -> None:
    """Let the copies of weights go: the place of `torch.clear_autocast_cache`, which knows of torch's own alone."""
    _CASTS.clear()


def lowered(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as autocast gives it to an operator: a weight's copy is made once (`cached_cast` in autocast_mode.cpp)."""
    if value.device.type != NAME or not value.is_floating_point() or value.dtype in (dtype, torch.float64):
        return value
    kept = value.is_leaf and value.requires_grad and value.dtype == torch.float32 and dtype != torch.float32
    if not (kept and torch.is_autocast_cache_enabled()):
        return value.to(dtype)
    if id(value) not in _CASTS:
        with (
            torch.enable_grad()
        ):  # one copy for all: made where no gradient is asked for, it has one all the same
            _CASTS[id(value)] = (value, value.to(dtype))
    return _CASTS[id(value)][1]


def _lower(_: Any) -> torch.dtype:
    return torch.get_autocast_dtype(NAME)


def _exact(_: Any) -> torch.dtype:
    return torch.float32


def _widest(given: Any) -> torch.dtype:
    exact = any(isinstance(each, Tensor) and each.dtype == torch.float32 for each in tree_leaves(given))
    return torch.float32 if exact else torch.get_autocast_dtype(NAME)


def _kernel(operator: Any, chosen: Callable[[Any], torch.dtype]) -> Any:
    keys: Any = torch._C.DispatchKey
    inside = torch._C.DispatchKeySet(keys.AutocastPrivateUse1)

    def cast(*args: Any, **options: Any) -> Any:
        dtype = chosen((args, options))
        args, options = tree_map_only(Tensor, lambda value: lowered(value, dtype), (args, options))
        with torch._C._ExcludeDispatchKeyGuard(inside):
            return operator(*args, **options)

    return cast
