"""Attach adapters to models, name what trains, read and write the adapter's tensors.

Layers are PEFT's, put in place (`inject_adapter_in_model`), so that the models stay diffusers and transformers
models and those libraries' own loading and saving keep working.
"""

import warnings
from collections.abc import Mapping

import torch
from diffusers.loaders.peft import PeftAdapterMixin as DiffusersAdapters
from peft import PeftConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.integrations.peft import PeftAdapterMixin as TransformersAdapters

from studio.adapters.config import Adapter, Bitfit, Boft, Diablo, Full, Lora, Oft
from studio.adapters.delta import add_delta
from studio.adapters.orthogonal import project, rotate
from studio.adapters.own import base_kept, own_config
from studio.adapters.shelf import peft_config
from studio.adapters.strength import ASSISTANT, keep_base, pull_back, watch
from studio.contracts.trainer import Group
from studio.errors import StudioError
from studio.settings.custom import Custom

NAME = "studio"


def attach(adapter: Adapter, modules: Mapping[str, nn.Module], name: str = NAME) -> dict[str, frozenset[str]]:
    """Put an adapter on each module and freeze everything else in it.

    New weights come from torch's global generator: call it under a seeded one. Adapters that were there before keep
    working and keep their `requires_grad`.

    Args:
        adapter: The settings.
        modules: Models by their name in the family, such as unet and text_encoder.
        name: Name of this adapter, for stacking several.

    Returns:
        Names of the parameters that train, for each module; they are fp32.

    Raises:
        StudioError: A layer name that matches nothing, a model without a preset, a name in use.
    """
    return {key: _attach_one(adapter, module, name) for key, module in modules.items()}


def put_on(adapter: Adapter, module: nn.Module, name: str) -> None:
    """Put an adapter's layers on a model, whatever trains.

    Raises:
        StudioError: A layer name that matches nothing, a model without a preset, a name in use, sizes that do not fit.
    """
    match adapter:
        case Oft() | Boft():
            rotate(adapter, module, name)
        case Diablo() | Bitfit():
            add_delta(adapter, module, name)
        case Full():
            raise TypeError("full finetuning has no layers of its own")
        case Custom():
            with base_kept(adapter, module):
                inject(own_config(adapter, module), module, name)
        case _:
            inject(peft_config(adapter, module), module, name)


def inject(config: PeftConfig, module: nn.Module, name: str) -> None:
    """Put a PEFT adapter on a model, beside those that are there; all stay active.

    Raises:
        StudioError: The name is in use.
    """
    before = names(module)
    if name in before:
        raise StudioError(f"The model already has an adapter named {name!r}; choose another name.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # a copied GroupNorm works
        try:
            inject_adapter_in_model(config, module, adapter_name=name)
        except ValueError as error:  # sizes that do not divide a layer's width
            kind = type(config).__name__.removesuffix("Config")
            raise StudioError(f"{kind} does not fit {type(module).__name__}: {error}") from error
    if isinstance(module, (DiffusersAdapters, TransformersAdapters)):
        module._hf_peft_config_loaded = True  # as their add_adapter does; it cannot keep others active
    activate(module)


def activate(module: nn.Module) -> None:
    """Have every adapter of a model act but an assistant; other libraries' loaders leave only the last one on."""
    present = [name for name in names(module) if name != ASSISTANT]
    for layer in tuner_layers(module):  # set_adapter would also change requires_grad
        layer._active_adapter = [one for one in present if one in layer._all_available_adapter_names()]
        watch(layer)


def names(module: nn.Module) -> list[str]:
    """Names of the adapters on a model, in the order they were put there."""
    return list(module.peft_config) if any(tuner_layers(module)) else []


def tuner_layers(module: nn.Module) -> list[BaseTunerLayer]:
    """Every adapted layer of a model."""
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def tensors(module: nn.Module, name: str = NAME) -> dict[str, Tensor]:
    """The adapter's tensors, live, under PEFT's file names: layer.lora_A.weight, without the adapter's name."""
    found = get_peft_model_state_dict(module, adapter_name=name, save_embedding_layers=False)
    return {key.replace(".base_layer", ""): value for key, value in found.items()}


def load_tensors(module: nn.Module, values: Mapping[str, Tensor], name: str = NAME) -> None:
    """Take back what `tensors` gave.

    Raises:
        StudioError: A tensor is missing, unexpected or of another shape.
    """
    live = tensors(module, name)
    odd = sorted(set(live) ^ set(values))
    odd += [key for key in live if key in values and live[key].shape != values[key].shape]
    if odd:
        raise StudioError(
            f"Adapter {name!r} does not fit {type(module).__name__}: {len(odd)} tensors are missing, unexpected or "
            f"of another shape, first {odd[0]!r}; use the base model and settings it was made with."
        )
    with torch.no_grad():
        for key, value in live.items():
            value.copy_(values[key])


def learning_rates(adapter: Adapter, attached: frozenset[str]) -> dict[float, frozenset[str]]:
    """Factors on the learning rate and the parameters each is for (LoRA+: `lora_B` and vectors are faster)."""
    if isinstance(adapter, (Oft, Boft)) and (
        lengths := frozenset(key for key in attached if ".oft_s." in key)
    ):
        return {1.0: attached - lengths, 0.1: lengths} if attached - lengths else {0.1: lengths}
    if not isinstance(adapter, Lora) or adapter.lr_ratio == 1.0:
        return {1.0: attached}
    fast = frozenset(key for key in attached if ".lora_B." in key or ".lora_magnitude_vector." in key)
    return {1.0: attached - fast, adapter.lr_ratio: fast}


def groups(
    adapter: Adapter,
    name: str,
    module: nn.Module,
    attached: frozenset[str],
    *,
    lr: float | None = None,
    numbered: bool = False,
) -> list[Group]:
    """What an adapter trains in a module; what has a factor of its own on the learning rate is a group of its own.

    Args:
        adapter: The settings.
        name: Name of the group; the one with another factor than 1 is `name-fast`.
        module: Whose parameters are meant.
        attached: Names of those that train, as `attach` gives them.
        lr: Learning rate in place of the run's.
        numbered: Call them `name-0` and `name-1` instead. Names are keys of checkpoints: a method keeps its own.
    """
    found: list[Group] = []
    for index, (scale, names) in enumerate(learning_rates(adapter, attached).items()):
        label = f"{name}-{index}" if numbered else name if scale == 1.0 else f"{name}-fast"
        found.append(
            Group(
                name=label,
                module=module,
                names=names,
                lr=lr,
                lr_scale=scale,
                weight_decay=weight_decay(adapter),
            )
        )
    return found


def after_step(modules: Mapping[str, nn.Module]) -> None:
    """What adapters do to their parameters after each optimizer step: COFT's radius, the pull to the first weights."""
    project(modules)
    pull_back(modules)


def weight_decay(adapter: Adapter) -> float | None:
    """The weight decay an adapter needs whatever was asked for: none for rotations, which it would pull to the base."""
    return 0.0 if isinstance(adapter, (Oft, Boft)) else None


def _attach_one(adapter: Adapter, module: nn.Module, name: str) -> frozenset[str]:
    if isinstance(adapter, Full):
        return _free(adapter, module)
    others = {id(value): value.requires_grad for value in module.parameters()}
    adapted = bool(tuner_layers(module))
    put_on(adapter, module, name)
    trains = frozenset(key for key, value in module.named_parameters() if _is_new(key, value, name, others))
    for key, value in module.named_parameters():
        if key in trains:
            value.data = value.data.float()
        else:
            value.requires_grad_(adapted and others.get(id(value), False))
    return trains


def _is_new(key: str, value: nn.Parameter, name: str, others: Mapping[int, bool]) -> bool:
    return id(value) not in others and value.requires_grad and name in key.split(".")


def _free(adapter: Full, module: nn.Module) -> frozenset[str]:
    if ASSISTANT in names(module):
        raise StudioError(
            "denoising.assistant is taken off again from under an adapter, and adapter full has none; choose an adapter, such "
            "as lora, or leave the assistant out.",
            field="method.adapter",
        )
    keep_base(module, copy=adapter.keep_base, pull=adapter.pull)
    chosen = {
        key for key, _ in module.named_parameters() if not adapter.only or any(o in key for o in adapter.only)
    }
    if not chosen:
        raise StudioError(
            f"No parameter of {type(module).__name__} contains any of {', '.join(adapter.only)}."
        )
    for key, value in module.named_parameters():
        value.requires_grad_(key in chosen)
        if key in chosen:
            value.data = value.data.float()
    return frozenset(chosen)
