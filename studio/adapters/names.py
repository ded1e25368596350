"""What other tools call the layers of a model.

diffusers renamed the layers of the original checkpoints and split their fused attention; sd-scripts, A1111, Forge
and ComfyUI keep the original names (for SD 1.x and 2.x, diffusers' names are the common ones). `Place` says where
a layer of ours is in the original.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from studio.errors import StudioError


@dataclass(frozen=True)
class Place:
    """A layer of the original model: its name there, and the layers of ours that it is made of, in order."""

    native: str
    ours: tuple[str, ...]


QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
FLUX_DOUBLE = {
    "img_attn.qkv": QKV,
    "txt_attn.qkv": ADDED_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
FLUX_SINGLE = {"linear1": (*QKV, "proj_mlp"), "linear2": ("proj_out",)}
SD3_JOINT = {
    "x_block.attn.qkv": QKV,
    "context_block.attn.qkv": ADDED_QKV,
    "x_block.attn.proj": ("attn.to_out.0",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
}
BLOCKS: dict[str, dict[str, tuple[str, Mapping[str, tuple[str, ...]]]]] = {
    "flux": {
        "transformer_blocks": ("double_blocks", FLUX_DOUBLE),
        "single_transformer_blocks": ("single_blocks", FLUX_SINGLE),
    },
    "sd3": {"transformer_blocks": ("joint_blocks", SD3_JOINT)},
}
RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"} | {
    "conv_shortcut": "skip_connection"
}
SGM_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
TEXT_KOHYA = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
TEXT_COMFY = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
}


def place(family: str, component: str, layer: str, module: nn.Module) -> Place:
    """Where a layer is in the original model.

    Raises:
        StudioError: The layer has no place there.
    """
    if component.startswith("text_encoder"):
        _refuse_t5(family, component)
        return Place(clip_name(layer), (layer,))
    if family in BLOCKS:
        return _transformer_place(family, layer)
    if family == "sdxl":
        return Place(sgm_name(layer, int(module.config.layers_per_block)), (layer,))
    return Place(layer, (layer,))


def kohya_stem(family: str, component: str, native: str) -> str:
    """Start of the keys of a layer in a file of sd-scripts."""
    if component.startswith("text_encoder"):
        prefix = "lora_te_" if family in ("sd1", "sd2") else TEXT_KOHYA[component]
    else:
        prefix = "lora_unet_"
    return prefix + native.replace(".", "_")


def comfy_stem(family: str, component: str, native: str) -> str:
    """Start of the keys of a layer in ComfyUI's own naming."""
    del family
    return TEXT_COMFY.get(component, "diffusion_model.") + native


def clip_name(layer: str) -> str:
    """Name of a CLIP layer with `text_model.`, which files have and newer transformers left out of CLIPTextModel."""
    return layer if layer.startswith(("text_model.", "text_projection")) else f"text_model.{layer}"


def sgm_name(layer: str, layers_per_block: int) -> str:
    """Name of a diffusers U-Net layer in the original checkpoint (input_blocks, middle_block, output_blocks)."""
    if layer in SGM_TOP:
        return SGM_TOP[layer]
    found = re.fullmatch(r"(down_blocks\.(\d+)|mid_block|up_blocks\.(\d+))\.(\w+)\.(\d+)\.(.+)", layer)
    if found is None:
        raise StudioError(
            f"Layer {layer} has no name in the original checkpoint; export diffusers or peft instead."
        )
    side, down, up, kind, index, rest = found.groups()
    per = layers_per_block + 1
    rest = RESNET.get(rest, rest)
    if side == "mid_block":
        return f"middle_block.{2 * int(index) if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(int(down) + 1) * per}.0.op"
    if kind == "upsamplers":
        return (
            f"output_blocks.{int(up) * per + layers_per_block}.2.conv"  # SDXL: each of them follows attention
        )
    slot = 0 if kind == "resnets" else 1
    if down is not None:
        return f"input_blocks.{1 + int(down) * per + int(index)}.{slot}.{rest}"
    return f"output_blocks.{int(up) * per + int(index)}.{slot}.{rest}"


def _transformer_place(family: str, layer: str) -> Place:
    blocks, _, inside = layer.partition(".")
    index, _, rest = inside.partition(".")
    native, table = BLOCKS[family].get(blocks, ("", {}))
    for theirs, ours in table.items():
        if rest in ours:
            return Place(f"{native}.{index}.{theirs}", tuple(f"{blocks}.{index}.{one}" for one in ours))
    raise StudioError(
        f"Layer {layer} of {family} has no name in kohya or comfy files; export diffusers or peft instead."
    )


def _refuse_t5(family: str, component: str) -> None:
    if component not in TEXT_KOHYA or (family == "flux" and component == "text_encoder_2"):
        raise StudioError(
            f"{component} of {family} is T5, which kohya and comfy files do not hold; export peft instead."
        )
