"""Files of adapters written anew: in another dialect, of another rank, several as one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from studio.adapters import formats
from studio.adapters.dialects.reading import BASE_NORM
from studio.adapters.files import staged, write
from studio.adapters.metadata import hashes
from studio.adapters.nearest import nearest
from studio.adapters.updates import LowRank, Update, Updates
from studio.errors import StudioError
from studio.weights.structure import Opened, Structure

Target = Literal["kohya", "comfy", "diffusers"]
WRITERS = {
    "kohya": formats.to_kohya,
    "comfy": formats.to_comfy,
    "diffusers": lambda parts, card, modules: formats.to_diffusers(parts),
}
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_OWN = (
    "lora_adapter_metadata",
    BASE_NORM,
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.hash_sha256",
    "modelspec.date",
)
"""Metadata that are true of the first file alone."""


def save(
    updates: Updates,
    structure: Structure,
    target: Target,
    path: Path,
    *,
    header: Mapping[str, str],
    precision: str = "",
) -> int:
    """Write updates in a dialect; gives the number of tensors.

    Args:
        updates: By component and layer.
        structure: The model that they are for.
        target: The dialect.
        path: The file; it is written whole or not at all.
        header: Metadata to keep; hashes, rank and alpha are told anew.
        precision: fp32, fp16 or bf16; empty keeps what the tensors have.

    Raises:
        StudioError: The dialect cannot hold them.
    """
    if path.suffix != ".safetensors":
        raise StudioError(f"{path} would be no .safetensors file; give a name that ends so.", field="to")
    formats.require_named(structure.card, (target,))
    values: dict[str, Tensor] = WRITERS[target](updates, structure.card, structure.modules)
    kept = {key: value.to(TYPES[precision] if precision else value.dtype) for key, value in values.items()}
    told = {key: value for key, value in header.items() if key not in _OWN}
    ranks = {one.additive.rank for layers in updates.values() for one in layers.values() if one.additive}
    if "ss_network_dim" in told and len(ranks) == 1:
        told["ss_network_dim"] = str(ranks.pop())
    magnitudes = any(key.endswith(".dora_scale") for key in kept)
    digest, legacy = hashes(kept, told)
    told |= {
        "format": "pt",
        "sshs_model_hash": digest,
        "sshs_legacy_hash": legacy,
        "modelspec.hash_sha256": f"0x{digest}",
    }
    told |= {BASE_NORM: "base"} if target == "comfy" and magnitudes else {}
    with staged(path) as place:
        write(place, kept, told)
    return len(kept)


def resized(
    updates: Updates, structure: Structure, *, rank: int = 0, keep: float = 0.0
) -> tuple[Updates, dict[str, float]]:
    """The nearest LoRA of a rank, or of the smallest rank that keeps a share of each layer's change; and the shares kept.

    Args:
        updates: Of any kind; DoRA needs the model's weights.
        structure: The model.
        rank: The rank at most.
        keep: The share of the squared norm to keep, in (0, 1]; 0 takes the rank.
    """
    found: Updates = {}
    shares: dict[str, float] = {}
    for component, layers in updates.items():
        for layer, update in layers.items():
            change = change_of(update, structure, component, layer)
            wanted = rank or min(change.flatten(1).shape)
            if keep:
                wanted = min(wanted, _rank_for(change, keep))
            low, shares[f"{component}.{layer}"] = nearest(change, wanted)
            found.setdefault(component, {})[layer] = Update(low, bias=update.bias)
    return found, shares


def merged(
    parts: Sequence[tuple[Updates, float]], structure: Structure, rank: int = 0
) -> tuple[Updates, dict[str, float]]:
    """The sum of several, each times a strength: exact as a LoRA whose rank is the sum of theirs, or the nearest of a rank."""
    found: Updates = {}
    for component in dict.fromkeys(key for updates, _ in parts for key in updates):
        for layer in dict.fromkeys(key for updates, _ in parts for key in updates.get(component, {})):
            own = [
                (updates[component][layer], s) for updates, s in parts if layer in updates.get(component, {})
            ]
            found.setdefault(component, {})[layer] = _sum(own, structure, component, layer)
    return resized(found, structure, rank=rank) if rank else (found, {})


def change_of(update: Update, structure: Structure, component: str, layer: str) -> Tensor:
    """W - W0 of a layer, float32.

    Raises:
        StudioError: It depends on the weights, and the model has none.
    """
    weight: Tensor = dict(structure.modules[component].get_submodule(layer).named_parameters(recurse=False))[
        "weight"
    ]
    if update.magnitude is not None and weight.is_meta:
        raise StudioError(
            "A DoRA's change depends on the weights of its base; give them with --model FOLDER or FILE.",
            field="model",
        )
    return update.change(weight.detach())


def _sum(own: Sequence[tuple[Update, float]], structure: Structure, component: str, layer: str) -> Update:
    lows = [
        (one.additive, s) for one, s in own if isinstance(one.additive, LowRank) and one.magnitude is None
    ]
    biases = [one.bias * s for one, s in own if one.bias is not None]
    bias = torch.stack(biases).sum(0) if biases else None
    if len(lows) == len(own) and all(low.mid is None for low, _ in lows):
        down = torch.cat([low.down.float() for low, _ in lows])
        up = torch.cat([low.up.float() * low.scale * s for low, s in lows], dim=1)
        return Update(LowRank(down, up, float(len(down))), bias=bias)
    change = torch.stack([change_of(one, structure, component, layer) * s for one, s in own]).sum(0)
    low, _ = nearest(change, min(change.flatten(1).shape))
    return Update(low, bias=bias)


def _rank_for(change: Tensor, keep: float) -> int:
    """The smallest rank that keeps a share of the squared norm."""
    energy = torch.linalg.svdvals(change.flatten(1)).square()
    total = float(energy.sum())
    if not total:
        return 1
    return min(int((energy.cumsum(0) / total < keep - 1e-6).sum()) + 1, len(energy))


def apart(first: Opened, second: Opened) -> dict[str, float | int]:
    """How two adapters differ: layers of each, in common, largest and relative difference of the changes."""
    sides = [
        {(c, layer): one for c, layers in side.reading.updates.items() for layer, one in layers.items()}
        for side in (first, second)
    ]
    largest, squared, norm = 0.0, 0.0, 0.0
    for component, layer in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (
            change_of(side[component, layer], first.structure, component, layer)
            if (component, layer) in side
            else 0.0
            for side in sides
        )
        difference = torch.as_tensor(a - b)
        largest = max(largest, float(difference.abs().max()))
        squared += float(difference.square().sum())
        norm += float(torch.as_tensor(a).square().sum())
    return {
        "layers of the first": len(sides[0]),
        "layers of the second": len(sides[1]),
        "in common": len(sides[0].keys() & sides[1].keys()),
        "largest difference": largest,
        "relative difference": (squared / norm) ** 0.5 if norm else float(bool(squared)),
    }


def listed(shares: Mapping[str, float]) -> str:
    """What was kept, in words."""
    values = sorted(shares.values())
    if not values:
        return "exact"
    return f"keeps {min(values):.4f} to {max(values):.4f} of each layer's change (share of the squared norm)"
