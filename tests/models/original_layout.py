"""SD 1.x, 2.x and XL under the names of single-file checkpoints (as CompVis, Stability and A1111 keep them)."""

import json

import torch
from safetensors.torch import save_file

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
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


OPEN_CLIP = {"encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "fc1": "c_fc",
             "fc2": "c_proj", "self_attn": "attn", "final_layer_norm": "ln_final",
             "embeddings.token_embedding": "token_embedding",
             "embeddings.position_embedding.weight": "positional_embedding"}  # fmt: skip


def open_clip(state):
    """A CLIP text encoder in open_clip's names: query, key and value in one."""
    found = {}
    for key, value in state.items():
        name = key.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP.items():
            name = name.replace(ours, theirs)
        if name == "text_projection.weight":
            found["text_projection"] = value.T
        elif ".q_proj." in name:
            three = [state[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            found[name.replace("q_proj.", "in_proj_")] = torch.cat(three)
        elif "k_proj" not in name and "v_proj" not in name:
            found[name] = value
    return found


def unet(module):
    attends = ["CrossAttn" in kind for kind in module.config.up_block_types]
    layers = module.config.layers_per_block
    return {unet_name(key, layers, attends): value for key, value in module.state_dict().items()}


def autoencoder(module):
    blocks, found = len(module.config.up_block_types), {}
    for key, value in module.state_dict().items():
        name = vae_name(key, blocks)
        in_attention = ".attn_1." in name and ".norm." not in name and value.ndim == 2
        found[name] = value[..., None, None] if in_attention else value
    return found


def clip(module):
    return {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in module.state_dict().items()
    }


TEXT = {
    "sd1": {"text_encoder": ("cond_stage_model.transformer.", clip)},
    "sd2": {"text_encoder": ("cond_stage_model.model.", lambda module: open_clip(module.state_dict()))},
    "sdxl": {
        "text_encoder": ("conditioner.embedders.0.transformer.", clip),
        "text_encoder_2": ("conditioner.embedders.1.model.", lambda module: open_clip(module.state_dict())),
    },
}


def whole(family, modules):
    """All tensors of a model under their original names."""
    parts = {
        "unet": ("model.diffusion_model.", unet),
        "vae": ("first_stage_model.", autoencoder),
        **TEXT[family],
    }
    return {
        start + key: value
        for part, (start, named) in parts.items()
        for key, value in named(modules[part]).items()
    }


def write(pipeline, path, family="sd1"):
    """One file with the weights of a pipeline under their original names."""
    tensors = whole(family, pipeline.components)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)


def sparse(path, shapes, metadata=None, dtype="F16", size=2):
    """A file of tensors of zeros that takes no room on the disk: its header, and a hole of the right length."""
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for key, shape in shapes.items():
        start, end = end, end + torch.Size(shape).numel() * size
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + end)
    return path
