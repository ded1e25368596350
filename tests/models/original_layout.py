"""Writes a tiny SD 1.x in the layout of single-file checkpoints (as CompVis and A1111 keep them)."""

from safetensors.torch import save_file

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def renamed(name, table):
    for ours, theirs in table.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def unet_name(key, layers, attends):
    parts = key.split(".")
    if parts[0] == "mid_block":
        number, rest = int(parts[2]), ".".join(parts[3:])
        return (
            f"middle_block.1.{rest}"
            if parts[1] == "attentions"
            else f"middle_block.{2 * number}.{renamed(rest, RESNET)}"
        )
    if parts[0] not in ("down_blocks", "up_blocks"):
        return renamed(key, ENDS)
    block, part, number, rest = int(parts[1]), parts[2], int(parts[3]), ".".join(parts[4:])
    down = parts[0] == "down_blocks"
    first = block * (layers + 1) + (1 if down else 0)
    side = "input_blocks" if down else "output_blocks"
    if part == "resnets":
        return f"{side}.{first + number}.0.{renamed(rest, RESNET)}"
    if part == "attentions":
        return f"{side}.{first + number}.1.{rest}"
    if part == "downsamplers":
        return f"{side}.{first + layers}.0.{rest.replace('conv', 'op')}"
    return f"{side}.{first + layers}.{2 if attends[block] else 1}.{rest}"


def vae_name(key, blocks):
    name = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    parts = name.split(".")
    if len(parts) > 2 and parts[1] == "mid_block":
        rest = ".".join(parts[4:])
        if parts[2] == "attentions":
            return f"{parts[0]}.mid.attn_1.{renamed(rest, VAE_ATTENTION)}"
        return f"{parts[0]}.mid.block_{int(parts[3]) + 1}.{rest}"
    if len(parts) > 2 and parts[1] in ("down_blocks", "up_blocks"):
        side, number = parts[1].removesuffix("_blocks"), int(parts[2])
        number = number if side == "down" else blocks - 1 - number
        if parts[3] == "resnets":
            return f"{parts[0]}.{side}.{number}.block.{parts[4]}.{'.'.join(parts[5:])}"
        return f"{parts[0]}.{side}.{number}.{side}sample.{'.'.join(parts[5:])}"
    return name


def write(pipeline, path):
    """One file with the weights of a StableDiffusionPipeline under their original names."""
    attends = ["CrossAttn" in kind for kind in pipeline.unet.config.up_block_types]
    layers, blocks = pipeline.unet.config.layers_per_block, len(pipeline.vae.config.up_block_types)
    tensors = {
        f"model.diffusion_model.{unet_name(key, layers, attends)}": value
        for key, value in pipeline.unet.state_dict().items()
    }
    for key, value in pipeline.vae.state_dict().items():
        name = vae_name(key, blocks)
        in_attention = ".attn_1." in name and ".norm." not in name and value.ndim == 2
        tensors[f"first_stage_model.{name}"] = value[..., None, None] if in_attention else value
    for key, value in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key}"] = value
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
