"""Stable Diffusion 1.x, 2.x and XL as one file in the names of the original checkpoints: what A1111, Forge and ComfyUI load.

The way back from `convert.py`. U-Net: `studio.models.checkpoints.sgm`; the autoencoder's and open_clip's names stand here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from studio.catalog.family import FamilyCard
from studio.errors import StudioError
from studio.models.checkpoints.sgm import sgm_name

DENOISER, AUTOENCODER = "model.diffusion_model.", "first_stage_model."
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_AUTOENCODER = (
    (r"^(en|de)coder\.mid_block\.resnets\.(\d+)\.", lambda m: f"{m[1]}coder.mid.block_{int(m[2]) + 1}."),
    (r"^(en|de)coder\.mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0)\.",
     lambda m: f"{m[1]}coder.mid.attn_1.{_ATTENTION[m[2]]}."),
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda m: f"encoder.down.{m[1]}.block.{m[2]}."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", lambda m: f"encoder.down.{m[1]}.downsample."),
    (r"\.conv_shortcut\.", lambda _: ".nin_shortcut."),
    (r"\.conv_norm_out\.", lambda _: ".norm_out."),
)  # fmt: skip
_OPEN_CLIP = (
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.fc1\.", ".c_fc."),
    (r"\.fc2\.", ".c_proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
)
_LAST = 23
"""Layers of SD 2's encoder; its files have one more, which nothing reads, and readers that count want it."""


def require_one_file(card: FamilyCard) -> None:
    """Refuse families that are not written as one file.

    Raises:
        StudioError: This is one.
    """
    if card.denoiser != "unet":
        raise StudioError(
            f"{card.title} is not written as one file here; export merged, whose folder diffusers and ComfyUI's diffusers nodes read.",
            field="export.formats",
        )


def one_file(card: FamilyCard, modules: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of a model under its original name.

    Args:
        card: Its family, whose text encoders' keys begin as the card says.
        modules: Its networks, by component.

    Raises:
        StudioError: The family is not written as one file.
    """
    require_one_file(card)
    found = {DENOISER + key: value for key, value in _unet(modules[card.denoiser]).items()}
    found |= {AUTOENCODER + key: value for key, value in _autoencoder(modules["vae"]).items()}
    for name, starts in card.recognize.text.items():
        state = {key.removeprefix("text_model."): value for key, value in modules[name].state_dict().items()}
        own = (
            _open_clip(state)
            if starts[0].endswith(".model.")
            else {_clip(key): value for key, value in state.items()}
        )
        found |= {starts[0] + key: value for key, value in own.items()}
    return found


def _unet(module: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in module.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        found[f"{sgm_name(layer, module.config)}.{leaf}"] = value
    return found


def _autoencoder(module: nn.Module) -> dict[str, Tensor]:
    """Attention is of 1 x 1 convolutions there, and the decoder counts from the picture."""
    last = len(module.config.up_block_types) - 1
    turned = (
        (
            r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.",
            lambda m: f"decoder.up.{last - int(m[1])}.block.{m[2]}.",
        ),
        (
            r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\.",
            lambda m: f"decoder.up.{last - int(m[1])}.upsample.",
        ),
    )
    found: dict[str, Tensor] = {}
    for key, value in module.state_dict().items():
        name = key
        for old, new in (*_AUTOENCODER, *turned):
            name = re.sub(old, new, name)
        linear = ".attn_1." in name and value.ndim == 2
        found[name] = value[..., None, None] if linear else value
    return found


def _clip(key: str) -> str:
    return key if key.startswith("text_projection") else f"text_model.{key}"


def _open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One weight for query, key and value; the projection stands the other way round."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key
        for old, new in _OPEN_CLIP:
            name = re.sub(old, new, name)
        if key == "text_projection.weight":
            found["text_projection"] = value.T
        elif ".q_proj." in name:
            three = [state[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            found[name.replace("q_proj.", "in_proj_")] = torch.cat(three)
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[name] = value
    layers = {int(key.split(".")[2]) for key in found if key.startswith("transformer.resblocks.")}
    if len(layers) == _LAST:
        start = f"transformer.resblocks.{_LAST - 1}."
        found |= {
            key.replace(start, f"transformer.resblocks.{_LAST}."): v.clone()
            for key, v in found.items()
            if key.startswith(start)
        }
    return found
