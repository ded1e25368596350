"""U-Nets of Stable Diffusion as the original checkpoints name them: input_blocks, middle_block, output_blocks."""

import re
from typing import Any

from studio.errors import StudioError

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
SGM_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def sgm_name(layer: str, config: Any) -> str:
    """Name of a diffusers U-Net layer in the original checkpoint (input_blocks, middle_block, output_blocks).

    Args:
        layer: Ours.
        config: Settings of the U-Net.

    Raises:
        StudioError: It has no name there.
    """
    layers_per_block = int(config.layers_per_block)
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
    if kind == "upsamplers":  # behind the attention, where the block has it
        place = 2 if "CrossAttn" in config.up_block_types[int(up)] else 1
        return f"output_blocks.{int(up) * per + layers_per_block}.{place}.conv"
    slot = 0 if kind == "resnets" else 1
    if down is not None:
        return f"input_blocks.{1 + int(down) * per + int(index)}.{slot}.{rest}"
    return f"output_blocks.{int(up) * per + int(index)}.{slot}.{rest}"
