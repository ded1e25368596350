"""Layers whose input is rotated (OFT, BOFT): y = s (x R) W0^T + c.

`R` is orthogonal, so angles between neurons, their lengths and all singular values of W0 stay what they were; `s > 0`
(optional) fits the lengths. A layer is turned at its input, so that W0 may be quantized; a convolution, whose patches
cannot be turned, is turned at its flattened filters. By module type, never by the rank of the input.

A rotated layer is a PEFT tuner layer and sits below any other adapter: W = W0 R_1^T R_2^T + (what LoRA and others add).
Each adapter has its own layer object, so that several compose in the order they were attached.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from peft import BOFTConfig, OFTConfig, PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.func import functional_call

from studio.adapters.boft import Butterfly
from studio.adapters.config import Boft, Oft
from studio.adapters.layer import OwnLayer, ending, own_layers, put, register, require_free
from studio.adapters.oft import Blocks
from studio.adapters.orthogonal_blocks import Factor, turn, turn_back, turned_linear
from studio.adapters.targets import matched

Rotation = Blocks | Butterfly


class Rotated(OwnLayer):
    """A layer below one rotation, of strength R(s) = Cayley(s Q), orthogonal for every s. Subclasses say what is turned."""

    adapter_layer_names = ("oft_R", "oft_s")

    def __init__(self, below: nn.Module, name: str, rotation: Rotation, adapter: Oft | Boft) -> None:
        """Start at the layer below, bit for bit."""
        super().__init__(below, name, adapter)
        self.oft_R = nn.ModuleDict({name: rotation})
        self.oft_s = nn.ParameterDict()
        self._ready: tuple[object, list[Factor]] = (None, [])

    @property
    def rotation(self) -> Rotation:
        """The rotation."""
        return self.oft_R[self.name]  # pyright: ignore[reportReturnType]  # ModuleDict forgets its values' type

    def fit_lengths(self) -> None:
        """Learn the length of each neuron too: sigma = log s, zero at first (re-scaled OFT, section 3.4)."""
        base = self.get_base_layer()
        number = base.out_channels if isinstance(base, nn.Conv2d) else base.out_features
        self.oft_s[self.name] = nn.Parameter(torch.zeros(number, device=base.weight.device))

    def lengths(self) -> Float[Tensor, " n"] | None:
        """The factor s = exp(strength sigma) of each neuron; None if they are not fitted."""
        return torch.exp(self.strength * self.oft_s[self.name]) if self.name in self.oft_s else None

    def factors(self) -> list[Factor]:
        """The rotation at the present strength; kept between calls while no gradient is asked for."""
        rotation = self.rotation
        weight = rotation.weight
        if rotation.training or (torch.is_grad_enabled() and weight.requires_grad):
            # A step may follow, and fused optimizers do not raise torch's count of writes.
            self._ready = (None, [])
            return rotation.factors(self.strength)
        used = rotation.active if isinstance(rotation, Butterfly) else 0
        # `_version` is torch's count of writes.
        state = (weight._version, weight.untyped_storage()._cdata, torch.is_inference_mode_enabled())
        key = (*state, self.strength, used)
        if self._ready[0] != key:
            self._ready = (key, rotation.factors(self.strength))
        return self._ready[1]

    def turned(self, weight: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The weights diag(s) W R^T, computed in float32."""
        rows = turn_back(weight.float().flatten(1), self.factors()).reshape(weight.shape)
        lengths = self.lengths()
        return rows if lengths is None else rows * lengths.reshape(-1, *[1] * (weight.ndim - 1))


class RotatedLinear(Rotated):
    """A linear layer of any kind with its input turned; the input has any number of axes."""

    def forward(self, x: Float[Tensor, "*b d"], *args: Any, **kwargs: Any) -> Float[Tensor, "*b n"]:
        """The layer below on the turned input: s (x R) W^T + c."""
        if not self.acts:
            return self.base_layer(x, *args, **kwargs)
        factors, x = self.factors(), x.to(_compute_dtype(x))
        if self._turn_weights(x, factors):
            y = turned_linear(x, factors[0].blocks, self.base_layer.weight, self.base_layer.bias)
        else:
            y = self.base_layer(turn(x, factors), *args, **kwargs)
        lengths = self.lengths()
        if lengths is None:
            return y
        lengths, bias = lengths.to(y.dtype), self.get_base_layer().bias
        return y * lengths if bias is None else y * lengths + (bias * (1 - lengths)).to(y.dtype)

    def _turn_weights(self, x: Tensor, factors: list[Factor]) -> bool:
        """Whether turning the weights is as exact as turning the input, and less work.

        In half precision it is not as exact: a small turn is lost in the rounding of the weights.
        """
        base = self.base_layer
        if type(base) is not nn.Linear or len(factors) != 1 or not self.rotation.orthogonal:
            return False
        exact = x.dtype == base.weight.dtype == torch.float32 and not base.weight.requires_grad
        passes = 2 if torch.is_grad_enabled() else 1
        return exact and base.out_features < passes * x.numel() // x.shape[-1]


class RotatedConv(Rotated):
    """A convolution with its filters, flattened over (channels, height, width), turned."""

    def forward(self, x: Float[Tensor, "b c h w"], *args: Any, **kwargs: Any) -> Float[Tensor, "b n i j"]:
        """The layer's own convolution (stride, padding, dilation, groups) with turned filters."""
        weights = {"weight": self.effective()}
        return functional_call(self.get_base_layer(), weights, (x, *args), kwargs)

    @property
    def groups(self) -> int:
        """Groups of the convolution, which PEFT asks the layer below its own."""
        return self.get_base_layer().groups

    def effective(self) -> Float[Tensor, "n c i j"]:
        """The filters of this layer and those below it."""
        below = self.base_layer
        weight = below.effective() if isinstance(below, RotatedConv) else below.weight
        return self.turned(weight).to(weight.dtype) if self.acts else weight


def rotate(adapter: Oft | Boft, module: nn.Module, name: str) -> None:
    """Put an orthogonal adapter on a model, below those that are there.

    Raises:
        StudioError: The name is in use, no layer fits, or the blocks do not fit a layer.
    """
    require_free(module, name)
    ends = matched(adapter, module, conv=adapter.conv)
    wanted = ending(module, ends)
    made = {path: _rotated(adapter, _rotatable(module.get_submodule(path)), name, path) for path in wanted}
    for path, layer in made.items():
        put(module, path, layer)
    register(module, name, _peft_config(adapter, ends))


def rotated_layers(module: nn.Module, name: str = "") -> Iterator[tuple[str, Rotated]]:
    """The rotated layers of a model (of one adapter), by the name of the layer they turn."""
    for path, layer in own_layers(module, name):
        if isinstance(layer, Rotated):
            yield path, layer


def project(modules: Mapping[str, nn.Module]) -> None:
    """Put parameters back into their bounds (COFT's radius); call it after each optimizer step and before saving."""
    for module in modules.values():
        for _, layer in rotated_layers(module):
            layer.rotation.project()


def use_factors(modules: Mapping[str, nn.Module], name: str, number: int) -> None:
    """Let only the first `number` butterfly factors of a BOFT act: a path from the tuned model to the base model."""
    for module in modules.values():
        for _, layer in rotated_layers(module, name):
            if isinstance(layer.rotation, Butterfly):
                layer.rotation.active = min(number, layer.rotation.num_factors)


def _rotatable(layer: nn.Module) -> nn.Module:
    """What a new rotation goes on top of: the base layer or its rotations, below all other adapters."""
    while isinstance(layer, BaseTunerLayer) and not isinstance(layer, Rotated):
        layer = layer.base_layer
    return layer


def _rotated(adapter: Oft | Boft, below: nn.Module, name: str, path: str) -> Rotated:
    base = below.get_base_layer() if isinstance(below, Rotated) else below
    conv = isinstance(base, nn.Conv2d)
    features = base.weight[0].numel() if conv else base.in_features
    kind = Blocks if isinstance(adapter, Oft) else Butterfly
    rotation = kind(adapter, features, path).to(base.weight.device)  # pyright: ignore[reportArgumentType]  # they pair up
    layer = (RotatedConv if conv else RotatedLinear)(below, name, rotation, adapter)
    if adapter.lengths != "fixed":
        layer.fit_lengths()
    rotation.requires_grad_(adapter.lengths != "only")
    return layer.train(below.training)


def _peft_config(adapter: Oft | Boft, ends: list[str]) -> PeftConfig:
    """What PEFT calls this; its readers load linear OFT layers without lengths from it."""
    if isinstance(adapter, Boft):
        return BOFTConfig(
            boft_block_size=adapter.block_size, boft_n_butterfly_factor=adapter.factors, target_modules=ends
        )
    return OFTConfig(
        r=adapter.blocks,
        oft_block_size=0 if adapter.blocks else adapter.block_size,
        block_share=adapter.share,
        use_cayley_neumann=adapter.cayley == "neumann",
        num_cayley_neumann_terms=adapter.terms,
        target_modules=ends,
    )


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The type a linear layer computes in, so that the input is turned in it and not converted twice."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
