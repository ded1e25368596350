"""Denoisers under their original names, whatever the family; and files of adapters applied to those names by formula."""

import torch

from studio.catalog import families
from tests.models import original_layout
from tests.models.original_transformers import ORIGINAL

SAME = ("qwen-image", "qwen-image-edit", "z-image", "qwen-image-2.1")
"""Families whose tools take diffusers' names."""


def same(family):
    return family in SAME


def of(family, module):
    """The weights under their original names."""
    if family in ("sd1", "sd2", "sdxl"):
        return original_layout.unet(module)
    return ORIGINAL[family](families.cards()[family], dict(module.state_dict()))


def applied(file, family, module, by_base):
    """Layers that a file of kohya, ComfyUI or diffusers names, and the changes of their weights; with the original weights
    under `original`, where they are the original layers."""
    by_ours = family in ("sd1", "sd2", *SAME) or any(
        key.startswith(("unet.", "transformer.")) for key in file
    )
    state = dict(module.state_dict()) if by_ours else of(family, module)
    found = {}
    rest = set(file)
    for key, weight in state.items():
        layer = key.removesuffix(".weight")
        stems = (
            f"lora_unet_{layer.replace('.', '_')}",
            f"diffusion_model.{layer}",
            f"unet.{layer}",
            f"transformer.{layer}",
        )
        own = {k: v for stem in stems for k, v in file.items() if k.startswith(f"{stem}.")}
        own = {
            k: v
            for k, v in own.items()
            if k.removeprefix(next(s for s in stems if k.startswith(f"{s}."))).count(".lora_") < 2
        }
        if own and key.endswith(".weight"):
            parts = {k[len(next(s for s in stems if k.startswith(f"{s}."))) + 1 :]: v for k, v in own.items()}
            found[layer] = change(parts, weight, by_base)
            rest -= set(own)
    assert not rest, sorted(rest)[:3]
    number = len(found)
    return number, found if by_ours else {**found, "original": state}


def change(parts, weight, by_base):
    """The update of a weight, as ComfyUI (by_base) or LyCORIS compute it."""
    down = next((v for k, v in parts.items() if k in ("lora_down.weight", "lora_A.weight")), None)
    up = next((v for k, v in parts.items() if k in ("lora_up.weight", "lora_B.weight")), None)
    alpha = parts.get("alpha")
    if down is not None:
        added = (up.flatten(1) @ down.flatten(1)) * (1.0 if alpha is None else alpha / len(down))
    elif "hada_w1_a" in parts:
        a, b, c, d = (parts[f"hada_w{n}_{end}"] for n in (1, 2) for end in "ab")
        added = (a @ b) * (c @ d) * alpha / len(b)
    else:
        first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
        second = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
        pair = parts.get("lokr_w2_b", parts.get("lokr_w1_b"))
        added = torch.kron(first, second) * (1.0 if pair is None else alpha / len(pair))
    added = added.reshape(weight.shape)
    magnitude = parts.get("dora_scale", parts.get("lora_magnitude_vector"))
    if magnitude is None:
        return added
    whole = weight + added
    lengths = (weight if by_base else whole).flatten(1).norm(dim=1)
    rows = [-1, *[1] * (weight.ndim - 1)]
    return whole * (magnitude.flatten() / lengths).reshape(rows) - weight
