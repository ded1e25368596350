"""Updates of layers put on a model: as PEFT's LoRA or DoRA where they are that, else each as a layer of our own.

A layer of our own computes its update whenever it is asked: it needs the memory of its factors, not of the weights.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from typing_extensions import override

from studio.adapters.build import activate, inject
from studio.adapters.layer import OwnLayer, put, register, require_free
from studio.adapters.targets import root
from studio.adapters.updates import LowRank, Update
from studio.errors import StudioError


class Patched(OwnLayer):
    """A layer with weights, and a fixed update of them."""

    adapter_layer_names = ("patch",)

    def __init__(self, below: nn.Module, name: str, update: Update) -> None:
        """Wrap a layer."""
        super().__init__(below, name, update)
        device = next(self.get_base_layer().parameters()).device
        self.patch = nn.ModuleDict({name: _Kept(update, device)})

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer below plus the update's share."""
        y = self.base_layer(x, *args, **kwargs)
        if not self.acts:
            return y
        weight, bias = self._change()
        base = self.get_base_layer()
        if isinstance(base, nn.Linear):
            added = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        else:
            zero = None if getattr(base, "bias", None) is None else torch.zeros_like(base.bias)
            own = {"weight": weight.to(base.weight.dtype)}
            own |= {} if zero is None else {"bias": zero if bias is None else bias.to(zero.dtype)}
            added = torch.func.functional_call(base, own, (x, *args), kwargs)
        return y + self.strength * added.to(y.dtype)

    @override
    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the update to the base weights; `studio.adapters.merge` keeps the copy to go back to."""
        del safe_merge
        if adapter_names is None or self.name in adapter_names:
            base, (weight, bias) = self.get_base_layer(), self._change()
            base.weight.data = base.weight.data + self.strength * weight.to(base.weight.dtype)
            if bias is not None:
                base.bias.data = base.bias.data + self.strength * bias.to(base.bias.dtype)

    def _change(self) -> tuple[Tensor, Tensor | None]:
        update = self.patch[self.name].update()
        weight = self.get_base_layer().weight
        shape = _empty(self.get_base_layer()) if update.magnitude is None else weight
        return update.change(shape).to(weight.device), update.bias


class _Kept(nn.Module):
    """The tensors of an update, as parameters that do not train, so that they move with the model."""

    def __init__(self, update: Update, device: torch.device) -> None:
        super().__init__()
        self._update, self._of = update, _tensors(update)
        for i, value in enumerate(self._of):
            self.register_parameter(f"t{i}", nn.Parameter(value.to(device), requires_grad=False))

    def update(self) -> Update:
        """The update with the tensors where they are now."""
        now = {id(value): getattr(self, f"t{i}") for i, value in enumerate(self._of)}
        return _replaced(self._update, now)


def _tensors(part: Any) -> list[Tensor]:
    """Every tensor of an update."""
    if isinstance(part, Tensor):
        return [part]
    if isinstance(part, tuple):
        return [value for one in part for value in _tensors(one)]
    return (
        [v for one in vars(part).values() for v in _tensors(one)]
        if hasattr(part, "__dataclass_fields__")
        else []
    )


def _replaced(part: Any, now: Mapping[int, Tensor]) -> Any:
    """The same with other tensors."""
    if isinstance(part, Tensor):
        return now[id(part)]
    if isinstance(part, tuple):
        return tuple(_replaced(one, now) for one in part)
    if hasattr(part, "__dataclass_fields__"):
        return type(part)(**{key: _replaced(one, now) for key, one in vars(part).items()})
    return part


def _empty(layer: nn.Module) -> Tensor:
    """A tensor of the shape of a layer's weight, without memory; quantized weights have another shape."""
    if isinstance(layer, nn.Linear):
        return torch.empty(layer.out_features, layer.in_features, device="meta")
    return torch.empty(layer.weight.shape, device="meta")


def put_updates(updates: Mapping[str, Update], module: nn.Module, name: str) -> None:
    """Put updates of one component on it, beside the adapters that are there.

    Args:
        updates: By the name of the layer.
        module: The component.
        name: The adapter's name.

    Raises:
        StudioError: The name is in use, or a layer has no bias for the change of one.
    """
    if (
        all(_plain(one) for one in updates.values())
        and len({one.magnitude is None for one in updates.values()}) == 1
    ):
        _put_lora(updates, module, name)
        return
    require_free(module, name)
    for layer, update in updates.items():
        below = module.get_submodule(layer)
        if update.bias is not None and getattr(root(below), "bias", None) is None:
            raise StudioError(
                f"{layer} has no bias, and the file changes one; it was made for another model."
            )
        put(module, layer, Patched(below, name, update))
    register(
        module, name, LoraConfig(r=1, target_modules=sorted(updates))
    )  # a place in PEFT's list, not its method
    activate(module)


def _plain(update: Update) -> bool:
    """Whether PEFT's LoRA or DoRA computes it."""
    own = update.additive
    fits = (
        isinstance(own, LowRank)
        and own.mid is None
        and update.bias is None
        and own.up.flatten(1).shape[1] == own.rank
    )
    return fits and not update.by_columns and update.norm == "changed"


@torch.no_grad()
def _put_lora(updates: Mapping[str, Update], module: nn.Module, name: str) -> None:
    """PEFT's own layers, of the ranks that the updates have."""
    lows = {layer: one.additive for layer, one in updates.items() if isinstance(one.additive, LowRank)}
    dora = any(one.magnitude is not None for one in updates.values())
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        use_dora=dora,
        rank_pattern=_patterns({layer: low.rank for layer, low in lows.items()}),
        alpha_pattern=_patterns({layer: low.alpha for layer, low in lows.items()}),
        target_modules=_any_of(lows),
    )
    inject(config, module, name)
    for layer, low in lows.items():
        on = module.get_submodule(layer)
        while not (isinstance(on, LoraLayer) and name in on.lora_A):
            on = on.base_layer
        for to, value in ((on.lora_A[name].weight, low.down), (on.lora_B[name].weight, low.up)):
            to.copy_(value.reshape(to.shape))
        magnitude = updates[layer].magnitude
        if magnitude is not None:
            to = on.lora_magnitude_vector[name].weight
            to.copy_(magnitude.reshape(to.shape))


def _patterns(values: Mapping[str, float]) -> dict[str, Any]:
    """PEFT's patterns, one for each value: it tries them in turn at every layer."""
    return {f"^{_any_of([key for key in values if values[key] == one])}": one for one in set(values.values())}


def _any_of(layers: Iterable[str]) -> str:
    """A pattern of these names."""
    return f"({'|'.join(map(re.escape, layers))})"
