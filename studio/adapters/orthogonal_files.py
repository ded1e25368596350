"""Our own adapters on disk: PEFT folders where PEFT means the same, our own folder otherwise; LoRA as an approximation.

A folder is `adapter_config.json` and `adapter_model.safetensors`, as PEFT's. Where PEFT has no such method, or another
one under the same name (BOFT, convolutions, fitted lengths), `peft_type` is one that PEFT does not know, so that it
refuses instead of loading something else; `settings` re-creates the adapter.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from studio.adapters.build import tensors
from studio.adapters.config import Bitfit, Boft, Diablo, Oft
from studio.adapters.layer import adapter_on
from studio.adapters.nearest import nearest
from studio.adapters.orthogonal import RotatedLinear, rotated_layers
from studio.adapters.updates import Update, Updates
from studio.errors import StudioError

NATIVE = "STUDIO"
_KINDS = {"oft": Oft, "boft": Boft, "diablo": Diablo, "bitfit": Bitfit}


def readable_by_peft(module: nn.Module, name: str) -> bool:
    """Whether PEFT's OFT computes the same from the same tensors: linear layers of fixed lengths."""
    layers = [layer for _, layer in rotated_layers(module, name)]
    plain = all(isinstance(layer, RotatedLinear) and not layer.oft_s for layer in layers)
    return plain and isinstance(adapter_on(module, name), Oft)


def folder_config(module: nn.Module, name: str) -> dict[str, Any]:
    """What `adapter_config.json` says about an adapter of ours, beside or instead of PEFT's own settings."""
    adapter = adapter_on(module, name)
    if adapter is None or readable_by_peft(module, name):
        return {}
    kind = next(key for key, cls in _KINDS.items() if isinstance(adapter, cls))
    return {"peft_type": NATIVE, "kind": kind, "settings": dataclasses.asdict(adapter)}


def adapter_in(config: Mapping[str, Any]) -> Oft | Boft | Diablo | Bitfit | None:
    """Our adapter that an `adapter_config.json` describes, PEFT's OFT included; None if it is another one."""
    if config.get("peft_type") == NATIVE:
        settings = config["settings"] | {"only": tuple(config["target_modules"])}
        return _KINDS[config["kind"]](**settings)
    if config.get("peft_type") != "OFT":
        return None
    return Oft(
        only=tuple(config["target_modules"]),
        block_size=config["oft_block_size"] if not config["r"] else 0,
        blocks=config["r"],
        share=config["block_share"],
        cayley="neumann" if config["use_cayley_neumann"] else "exact",
        terms=max(config["num_cayley_neumann_terms"], 4),  # PEFT computes 4 terms where 3 are asked for
    )


@torch.no_grad()
def take_up(folder: Path, module: nn.Module, name: str) -> None:
    """Start an attached rotation from a saved one (a second stage that fits lengths, or training on).

    Raises:
        StudioError: It was saved in the other mode, whose tensors mean the inverse, or does not fit.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    saved, wanted = adapter_in(config), adapter_on(module, name)
    if saved is None or wanted is None or type(saved) is not type(wanted):
        raise StudioError(
            f"{folder} holds another kind of adapter than is being trained; choose the same one."
        )
    if isinstance(saved, Oft) and isinstance(wanted, Oft) and saved.cayley != wanted.cayley:
        raise StudioError(
            f"{folder} was made with adapter.cayley {saved.cayley}, whose tensors mean the inverse rotation under "
            f"{wanted.cayley}; set adapter.cayley {saved.cayley}.",
            field="adapter.cayley",
        )
    found = load_file(folder / "adapter_model.safetensors")
    values = {key.removeprefix("base_model.model."): value for key, value in found.items()}
    for key, live in tensors(module, name).items():
        if key in values and values[key].shape == live.shape:
            live.copy_(values[key])
        elif not key.endswith(".oft_s"):
            raise StudioError(
                f"{folder} has no {key} of shape {tuple(live.shape)}; use the settings it was made with."
            )


@torch.no_grad()
def low_rank(modules: Mapping[str, nn.Module], name: str, rank: int) -> tuple[Updates, dict[str, float]]:
    """LoRA factors that come nearest to a rotation, and the share of the change's energy that each layer keeps.

    The change W0 (R^T - I) has full rank, so this is never lossless: say the shares with the file.

    Raises:
        StudioError: The adapter is no rotation, or sits on convolutions.
    """
    parts: Updates = {}
    shares: dict[str, float] = {}
    for key, module in modules.items():
        for path, layer in rotated_layers(module, name):
            if not isinstance(layer, RotatedLinear):
                raise StudioError(
                    f"{path} is a convolution; its rotation has no LoRA approximation, export merged."
                )
            weight = layer.get_base_layer().weight.float()
            low, shares[f"{key}.{path}"] = nearest(layer.turned(weight) - weight, rank)
            parts.setdefault(key, {})[path] = Update(low)
    if not parts:
        raise StudioError(f"Adapter {name!r} is no rotation; export it in its own format.")
    return parts, shares
