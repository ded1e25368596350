"""What our own adapted layers share: PEFT's view of a layer, one adapter each, with a strength."""

from collections.abc import Iterator
from typing import Any

from diffusers.loaders.peft import PeftAdapterMixin as DiffusersAdapters
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.integrations.peft import PeftAdapterMixin as TransformersAdapters

from studio.errors import StudioError


class OwnLayer(nn.Module, BaseTunerLayer):
    """A layer with one adapter of ours on it, which PEFT's tools take for one of theirs.

    Attributes:
        name: The adapter's name.
        adapter: Its settings.
        strength: How strongly it acts: 0 not at all, 1 as trained.
    """

    def __init__(self, below: nn.Module, name: str, adapter: Any) -> None:
        """Wrap a layer, adapted or not."""
        super().__init__()
        self.base_layer, self.name, self.adapter, self.strength = below, name, adapter, 1.0
        self._active_adapter = [name]
        self.merged_adapters: list[str] = []

    @property
    def acts(self) -> bool:
        """Whether the adapter takes part."""
        return not self.disable_adapters and self.name in self.active_adapters

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the strength, if this is the adapter that is meant."""
        if adapter == self.name:
            self.strength = float(scale)

    def scale_layer(self, scale: float) -> None:
        """Multiply the strength (diffusers' `scale` of attention)."""
        self.strength *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Undo `scale_layer`; without a number, back to full strength."""
        self.strength = self.strength / scale if scale else 1.0


def own_layers(module: nn.Module, name: str = "") -> Iterator[tuple[str, OwnLayer]]:
    """Layers with an adapter of ours (of one name), by the name of the layer they are on."""
    for path, layer in list(module.named_modules()):
        if isinstance(layer, OwnLayer) and name in ("", layer.name):
            yield path.replace(".base_layer", ""), layer


def adapter_on(module: nn.Module, name: str) -> Any:
    """The settings of an adapter of ours on a model; None if the adapter of that name is PEFT's."""
    return next((layer.adapter for _, layer in own_layers(module, name)), None)


def require_free(module: nn.Module, name: str) -> None:
    """Refuse a name that an adapter has.

    Raises:
        StudioError: It is in use.
    """
    if name in vars(module).get("peft_config", {}):
        raise StudioError(f"The model already has an adapter named {name!r}; choose another name.")


def register(module: nn.Module, name: str, config: PeftConfig) -> None:
    """Tell PEFT's, diffusers' and transformers' tools about an adapter that was put on a model."""
    module.peft_config = {**vars(module).get("peft_config", {}), name: config}  # pyright: ignore[reportArgumentType]  # as PEFT does
    if isinstance(module, (DiffusersAdapters, TransformersAdapters)):
        module._hf_peft_config_loaded = True  # as their add_adapter does


def ending(module: nn.Module, ends: list[str]) -> list[str]:
    """Names of layers that end as given, outside of adapters."""
    paths = [path for path, _ in module.named_modules() if ".base_layer" not in path]
    return [path for path in paths if any(path == end or path.endswith(f".{end}") for end in ends)]


def put(module: nn.Module, path: str, layer: OwnLayer) -> None:
    """Replace what the new layer wraps, wherever in the stack of adapters it is."""
    parent, _, leaf = path.rpartition(".")
    owner = module.get_submodule(parent)
    while getattr(owner, leaf) is not layer.base_layer:
        owner, leaf = getattr(owner, leaf), "base_layer"
    setattr(owner, leaf, layer)
