"""Fold adapters into the weights and take them out again, exactly.

Unmerging restores kept copies: subtracting an update, or multiplying by an inverse, drifts in half precision.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from studio.adapters.orthogonal import Rotated
from studio.adapters.strength import has_scale, watch
from studio.errors import StudioError

_FOLDED: "WeakSet[nn.Module]" = WeakSet()


@dataclass
class Merged:
    """What `unmerge` needs: the replaced tensors and the layers whose adapters rest."""

    modules: list[nn.Module] = field(default_factory=list)
    kept: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)
    resting: list[BaseTunerLayer] = field(default_factory=list)


def merge(modules: Mapping[str, nn.Module]) -> Merged:
    """Fold all active adapters, at their present strengths, into the base weights: sampling then costs no more.

    Raises:
        StudioError: The base weights are quantized, or are merged already.
    """
    done = Merged()
    for module in modules.values():
        if module in _FOLDED:
            raise StudioError("The adapters are merged into this model already; unmerge them first.")
        for layer in _outermost(module):
            values, roots = folded(layer), _root_parameters(layer)
            for name in roots.keys() & values.keys():
                done.kept.append((roots[name], roots[name].data))
                roots[name].data = values[name]
        for layer in _layers(module):
            if not layer.disable_adapters:
                layer._disable_adapters = True  # enable_adapters would switch requires_grad off
                done.resting.append(layer)
        _FOLDED.add(module)
        done.modules.append(module)
    return done


def unmerge(done: Merged) -> None:
    """Undo `merge`: the base weights are bit for bit what they were."""
    for value, before in done.kept:
        value.data = before
    for layer in done.resting:
        layer._disable_adapters = False
    for module in done.modules:
        _FOLDED.discard(module)


@contextmanager
def merged(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Adapters folded into the weights inside the context."""
    done = merge(modules)
    try:
        yield
    finally:
        unmerge(done)


def bare(module: nn.Module) -> nn.Module:
    """A copy of the model without its adapters that shares every weight (no memory)."""
    memo = {id(value): value for value in (*module.parameters(), *module.buffers())}
    for layer in _layers(module):  # where deepcopy meets an adapter, it takes the layer below
        memo[id(layer)] = copy.deepcopy(layer.get_base_layer(), memo)
    twin = copy.deepcopy(module, memo)
    if "peft_config" in vars(twin):
        del twin.peft_config
        twin._hf_peft_config_loaded = False
    return twin


def merged_copy(module: nn.Module) -> nn.Module:
    """A copy of the model with its adapters folded in; layers without adapters share their weights."""
    twin = bare(module)
    for path, layer in _outermost_named(module):
        target = twin.get_submodule(path)
        for name, value in folded(layer).items():
            owner, _, leaf = name.rpartition(".")
            setattr(target.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
    return twin


def as_type(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a model whose numbers have another type; the model itself stays as it is."""
    memo: dict[int, Any] = {
        id(value): nn.Parameter(value.detach().to(dtype), requires_grad=False)
        for value in module.parameters()
        if value.is_floating_point()
    }
    return copy.deepcopy(module, memo)


@torch.no_grad()
def folded(layer: BaseTunerLayer) -> dict[str, Tensor]:
    """New values of the base layer's parameters: W0 + sum_i s_i (W_i - W0), in fp32, rounded once.

    Rotations come first and compose: W0 R_1^T R_2^T takes the place of the first W0.

    Raises:
        StudioError: The base weights are quantized.
    """
    before = _root_parameters(layer)
    if any(not value.is_floating_point() for value in before.values()):
        raise StudioError(
            "Adapters cannot be merged into quantized weights; load the base model unquantized."
        )
    total = {name: value.data.float() for name, value in before.items()}
    stack = _stack(layer)
    for one in reversed(stack):
        if isinstance(one, Rotated) and one.acts:
            total["weight"] = one.turned(total["weight"])
    for one in stack:
        if isinstance(one, Rotated):
            continue
        blend = watch(one)
        for name in _active(one):
            strength = 1.0 if has_scale(one, name) or blend is None else blend.strengths.get(name, 1.0)
            for key, value in _with_one(one, name).items():
                total[key] = total[key] + strength * (value - before[key].data.float())
    changed = {key: value.to(before[key].dtype) for key, value in total.items()}
    return {key: value for key, value in changed.items() if not torch.equal(value, before[key].data)}


def _with_one(layer: BaseTunerLayer, name: str) -> dict[str, Tensor]:
    """The base layer's parameters as PEFT merges one adapter into them, in fp32; the layer is left alone."""
    twin = copy.deepcopy(layer)
    twin.base_layer = twin.get_base_layer()
    twin._disable_adapters = False
    twin.float().merge(adapter_names=[name])
    return {key: value.data for key, value in _root_parameters(twin).items()}


def _root_parameters(layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
    """Parameters of the layer under the adapters."""
    return dict(layer.get_base_layer().named_parameters())


def _stack(layer: BaseTunerLayer) -> list[BaseTunerLayer]:
    """The adapter layers wrapped around one base layer, outermost first."""
    found = [layer]
    while isinstance(found[-1].base_layer, BaseTunerLayer):
        found.append(found[-1].base_layer)
    return found


def _active(layer: BaseTunerLayer) -> list[str]:
    present = layer._all_available_adapter_names()  # PEFT has no public list
    return [] if layer.disable_adapters else [name for name in layer.active_adapters if name in present]


def _layers(module: nn.Module) -> list[BaseTunerLayer]:
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def _outermost_named(module: nn.Module) -> list[tuple[str, BaseTunerLayer]]:
    """Adapter layers that sit in no other one (an adapter of another kind wraps the first one)."""
    found: list[tuple[str, BaseTunerLayer]] = []
    for path, layer in module.named_modules():
        if isinstance(layer, BaseTunerLayer) and not any(path.startswith(f"{outer}.") for outer, _ in found):
            found.append((path, layer))
    return found


def _outermost(module: nn.Module) -> list[BaseTunerLayer]:
    return [layer for _, layer in _outermost_named(module)]
