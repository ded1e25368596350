"""Two small additive adapters that PEFT lacks: DiaBlo and BitFit.

DiaBlo: Diagonal Blocks Are Sufficient For Finetuning, 2025: y = W0 x + blockdiag(D_1 ... D_N) x, D zero at first; there
is no product of factors, so every entry has a gradient from the first step on.
BitFit, Ben Zaken et al. 2021, arXiv 2106.10199: biases alone train. Departure: the change of a bias is what is kept, so
that it has a strength and the base model is never altered.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from peft import OFTConfig
from torch import Tensor, nn
from typing_extensions import override

from studio.adapters.config import Bitfit, Diablo
from studio.adapters.layer import OwnLayer, ending, put, register, require_free
from studio.adapters.targets import matched, root
from studio.errors import StudioError, unknown


class DiagonalBlocks(OwnLayer):
    """A linear layer plus trained blocks along the diagonal of its weights; the last ones may stick out."""

    adapter_layer_names = ("diablo_D",)

    def __init__(self, below: nn.Module, name: str, adapter: Diablo) -> None:
        """Start at the layer below."""
        super().__init__(below, name, adapter)
        base = self.get_base_layer()
        rows, columns = -(-base.in_features // adapter.blocks), -(-base.out_features // adapter.blocks)
        number = max(-(-base.in_features // rows), -(-base.out_features // columns))
        blocks = torch.zeros(number, rows, columns, device=base.weight.device)
        self.diablo_D = nn.ParameterDict({name: nn.Parameter(blocks)})

    def forward(self, x: Float[Tensor, "*b d"], *args: Any, **kwargs: Any) -> Float[Tensor, "*b n"]:
        """The layer below plus the blocks' share."""
        y = self.base_layer(x, *args, **kwargs)
        if not self.acts:
            return y
        blocks = self.diablo_D[self.name].to(x.dtype)
        padded = F.pad(x, (0, blocks.shape[0] * blocks.shape[1] - x.shape[-1]))
        parts = rearrange(padded, "... (k i) -> ... k i", k=len(blocks))
        added = rearrange(einsum(parts, blocks, "... k i, k i o -> ... k o"), "... k o -> ... (k o)")
        return y + self.strength * added[..., : y.shape[-1]].to(y.dtype)

    @override
    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the blocks to the base weights; `studio.adapters.merge` keeps the copy to go back to."""
        del safe_merge
        if adapter_names is None or self.name in adapter_names:
            weight = self.get_base_layer().weight
            whole = torch.block_diag(*self.diablo_D[self.name]).T[: weight.shape[0], : weight.shape[1]]
            weight.data = weight.data + self.strength * whole.to(weight.dtype)


class BiasDelta(OwnLayer):
    """A layer with a bias, and a trained change of it."""

    adapter_layer_names = ("bias_delta",)

    def __init__(self, below: nn.Module, name: str, adapter: Bitfit) -> None:
        """Start at the layer below."""
        super().__init__(below, name, adapter)
        bias = self.get_base_layer().bias
        self.bias_delta = nn.ParameterDict({name: nn.Parameter(torch.zeros(bias.shape, device=bias.device))})
        self.by_channel = isinstance(self.get_base_layer(), (nn.Conv2d, nn.GroupNorm))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer below plus the change, on the last axis or, of convolutions and group norms, on the second."""
        y = self.base_layer(x, *args, **kwargs)
        if not self.acts:
            return y
        change = self.strength * self.bias_delta[self.name].to(y.dtype)
        return y + (change.reshape(-1, *[1] * (y.ndim - 2)) if self.by_channel else change)

    @override
    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the change to the base bias; `studio.adapters.merge` keeps the copy to go back to."""
        del safe_merge
        if adapter_names is None or self.name in adapter_names:
            bias = self.get_base_layer().bias
            bias.data = bias.data + self.strength * self.bias_delta[self.name].to(bias.dtype)


def add_delta(adapter: Diablo | Bitfit, module: nn.Module, name: str) -> None:
    """Put DiaBlo or BitFit on a model, above the adapters that are there.

    Raises:
        StudioError: The name is in use, or no layer fits.
    """
    require_free(module, name)
    if isinstance(adapter, Diablo):
        ends = matched(adapter, module)
        for path in ending(module, ends):
            put(module, path, DiagonalBlocks(module.get_submodule(path), name, adapter))
    else:
        ends = biased(adapter, module)
        for path in ends:
            put(module, path, BiasDelta(module.get_submodule(path), name, adapter))
    register(
        module, name, OFTConfig(r=0, oft_block_size=1, target_modules=ends)
    )  # a place in PEFT's list, not its method


def biased(adapter: Bitfit, module: nn.Module) -> list[str]:
    """Names of the layers whose bias can be changed.

    Raises:
        StudioError: A name that matches none, or there are none.
    """
    kinds = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)
    closed = [path for path, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)]
    layers = {path: root(layer) for path, layer in module.named_modules() if ".base_layer" not in path}
    found = [
        path
        for path, layer in layers.items()
        if isinstance(layer, kinds)
        and layer.bias is not None
        and not any(path.startswith(f"{one}.") for one in closed)
    ]
    chosen = [path for path in found if not adapter.only or path in ending(module, list(adapter.only))]
    for end in adapter.only:
        if not any(path == end or path.endswith(f".{end}") for path in found):
            raise unknown(
                "layer with a bias", end, {path.rsplit(".", 1)[-1] for path in found}, field="adapter.only"
            )
    if not chosen:
        raise StudioError(f"{type(module).__name__} has no layer with a bias; use another adapter.")
    return chosen
