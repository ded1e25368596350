"""How strongly adapters act: the base model inside a context, and a strength for each stacked adapter.

An adapter of strength s moves every weight to W0 + s (W - W0), where W are the weights it stands for; several
adapters add up. PEFT has this as a scale for LoRA, LoHa, LoKr and SHiRA. For the others (DoRA, HRA, DeLoRA ...)
a layer's output is mixed here: y = base(x) + sum_i s_i (adapter_i(x) - base(x)), the same map, as the layers are
linear in their weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from peft.tuners.shira.layer import ShiraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from studio.adapters.layer import OwnLayer
from studio.errors import StudioError, unknown

ASSISTANT = "studio_assistant"
"""Name of an adapter that acts only while a loss is computed (see `assisting`): never in pictures or exports."""
_KEPT: "WeakKeyDictionary[nn.Module, dict[str, Tensor]]" = WeakKeyDictionary()
_PULL: "WeakKeyDictionary[nn.Module, float]" = WeakKeyDictionary()


class Blend:
    """Forward hook of a layer whose adapters have no scale of their own; holds their strengths."""

    def __init__(self) -> None:
        """All adapters at full strength."""
        self.strengths: dict[str, float] = {}

    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        """The mixed output; the layer's own where nothing is to be mixed."""
        if not isinstance(layer, BaseTunerLayer) or layer.disable_adapters:
            return output
        active = [name for name in layer.active_adapters if not has_scale(layer, name)]
        present = [name for name in active if name in layer._all_available_adapter_names()]  # no public list
        if not present or (len(layer.active_adapters) == 1 and self.strengths.get(present[0], 1.0) == 1.0):
            return output
        below = layer.base_layer(*args, **kwargs)
        base = layer.get_base_layer()(*args, **kwargs)
        scaled = [name for name in layer.active_adapters if name not in active]
        parts = [(1.0, scaled)] + [(self.strengths.get(name, 1.0), [name]) for name in present]
        for strength, chosen in parts:
            if chosen and strength:
                below = below + strength * (_alone(layer, chosen, args, kwargs) - base)
        return below


def _alone(layer: BaseTunerLayer, chosen: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The layer's output with only `chosen` active, over the bare base layer."""
    active, inner = layer._active_adapter, layer.base_layer  # set_adapter would change requires_grad
    layer._active_adapter, layer.base_layer = chosen, layer.get_base_layer()
    try:
        return layer.forward(*args, **kwargs)
    finally:
        layer._active_adapter, layer.base_layer = active, inner


def has_scale(layer: BaseTunerLayer, name: str) -> bool:
    """Whether PEFT can scale this adapter's update of the weights."""
    if isinstance(layer, LoraLayer) and not isinstance(layer, AdaLoraLayer):
        return name not in layer.lora_variant
    return isinstance(layer, (LycorisLayer, ShiraLayer, OwnLayer))


def watch(layer: BaseTunerLayer) -> Blend | None:
    """Give a layer its mixing hook, once; None for layers that never need one."""
    for hook in layer._forward_hooks.values():  # torch has no public list of hooks
        if isinstance(hook, Blend):
            return hook
    if all(has_scale(layer, name) for name in layer._all_available_adapter_names()):
        return None
    hook = Blend()
    layer.register_forward_hook(hook, with_kwargs=True)
    return hook


def set_strength(modules: Mapping[str, nn.Module], name: str, strength: float) -> None:
    """Let one adapter act with a strength, on its own: 0 is the base model, 1 as trained, beyond 1 exaggerates.

    Raises:
        StudioError: No module has an adapter of that name, or the module was finetuned whole.
    """
    known: set[str] = set()
    found = False
    for module in modules.values():
        for layer in _layers(module):
            known.update(layer._all_available_adapter_names())
            if name in layer._all_available_adapter_names():
                found = True
                _set_layer(layer, name, strength)
    if not found:
        raise unknown("adapter", name, known)


def _set_layer(layer: BaseTunerLayer, name: str, strength: float) -> None:
    if has_scale(layer, name):
        layer.set_scale(name, strength)
    elif (blend := watch(layer)) is not None:
        blend.strengths[name] = strength


@contextmanager
def assisting(module: nn.Module) -> Iterator[None]:
    """The assistant acts inside the context, beside the adapters that do anyway."""
    layers = [one for one in _layers(module) if ASSISTANT in one._all_available_adapter_names()]
    before = [list(layer.active_adapters) for layer in layers]
    try:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = [*active, ASSISTANT]  # set_adapter would change requires_grad
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active


@contextmanager
def detached(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """The base model inside the context: adapters off, weights finetuned whole swapped for the first ones.

    An assistant that acts goes on: it is part of what a loss takes for the base.

    Raises:
        StudioError: The model was finetuned whole with `keep_base` off.
    """
    layers = [layer for module in modules.values() for layer in _layers(module)]
    before = [layer.disable_adapters for layer in layers]
    active = [list(layer.active_adapters) for layer in layers]
    swapped = [(module, _KEPT[module]) for module in modules.values() if module in _KEPT]
    if any(not base for _, base in swapped):
        raise StudioError(
            "The base weights were not kept; set adapter.keep-base to compare with the base model."
        )
    try:
        for layer, names in zip(layers, active, strict=True):
            layer._disable_adapters = ASSISTANT not in names  # enable_adapters would switch requires_grad off
            layer._active_adapter = [ASSISTANT] if ASSISTANT in names else names
        for module, base in swapped:
            _swap(module, base)
        yield
    finally:
        for layer, was, names in zip(layers, before, active, strict=True):
            layer._disable_adapters, layer._active_adapter = was, names
        for module, base in swapped:
            _swap(module, base)


def keep_base(module: nn.Module, *, copy: bool, pull: float = 0.0) -> None:
    """Remember a module's present weights, in CPU memory, as its base; without `copy`, only that they are lost."""
    _PULL[module] = pull
    _KEPT[module] = {name: value.detach().cpu().clone() for name, value in module.named_parameters() if copy}


@torch.no_grad()
def pull_back(modules: Mapping[str, nn.Module]) -> None:
    """After a step: weights that train move towards the first ones by the share that was asked for.

    L2-SP (Li et al. 2018, eq. 2) as a step of its own, as AdamW does with weight decay, so that Adam does not rescale it.
    """
    for module in modules.values():
        if not (share := _PULL.get(module, 0.0)):
            continue
        for name, value in module.named_parameters():
            if value.requires_grad:
                value.lerp_(_KEPT[module][name].to(value.device, value.dtype), share)


@torch.no_grad()
def _swap(module: nn.Module, base: dict[str, Tensor]) -> None:
    """Exchange weights and kept copies, in place."""
    for name, value in module.named_parameters():
        mine = value.detach().cpu().clone()
        value.copy_(base[name])
        base[name] = mine


def _layers(module: nn.Module) -> list[BaseTunerLayer]:
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
