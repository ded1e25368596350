"""Transformers under the names of their authors' files, written from the tables of the cards and from what these leave out.

The cards' tables (`Names.blocks`, `Names.top`) name the layers that adapters sit on; norms, modulation and the first and last
layers stand here. Layers that are one in the original are put together, and halves that stand the other way round are swapped.
"""

import re

import torch
from einops import rearrange

FLUX_TOP = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    **{
        f"time_text_embed.{ours}.linear_{number}": f"{theirs}.{side}_layer"
        for ours, theirs in (
            ("timestep_embedder", "time_in"),
            ("text_embedder", "vector_in"),
            ("guidance_embedder", "guidance_in"),
        )
        for number, side in ((1, "in"), (2, "out"))
    },
}
FLUX_NORMS = {
    "transformer_blocks": {
        "img_attn.norm.query_norm": "attn.norm_q",
        "img_attn.norm.key_norm": "attn.norm_k",
        "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k",
        "img_mod.lin": "norm1.linear",
        "txt_mod.lin": "norm1_context.linear",
    },
    "single_transformer_blocks": {
        "norm.query_norm": "attn.norm_q",
        "norm.key_norm": "attn.norm_k",
        "modulation.lin": "norm.linear",
    },
}
SD3_TOP = {
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    **{
        f"time_text_embed.{ours}.linear_{number}": f"{theirs}.mlp.{place}"
        for ours, theirs in (("timestep_embedder", "t_embedder"), ("text_embedder", "y_embedder"))
        for number, place in ((1, 0), (2, 2))
    },
}
SD3_NORMS = {
    "transformer_blocks": {
        "x_block.adaLN_modulation.1": "norm1.linear",
        "context_block.adaLN_modulation.1": "norm1_context.linear",
        "x_block.attn.ln_q": "attn.norm_q",
        "x_block.attn.ln_k": "attn.norm_k",
        "context_block.attn.ln_q": "attn.norm_added_q",
        "context_block.attn.ln_k": "attn.norm_added_k",
        "x_block.attn2.ln_q": "attn2.norm_q",
        "x_block.attn2.ln_k": "attn2.norm_k",
    }
}
CHROMA_GUIDANCE = {".linear_1.": ".in_layer.", ".linear_2.": ".out_layer."}
KREA = {
    r"^img_in\.": "first.",
    r"^time_embed\.linear_1\.": "tmlp.0.",
    r"^time_embed\.linear_2\.": "tmlp.2.",
    r"^time_mod_proj\.": "tproj.1.",
    r"^txt_in\.norm\.weight$": "txtmlp.0.scale",
    r"^txt_in\.linear_1\.": "txtmlp.1.",
    r"^txt_in\.linear_2\.": "txtmlp.3.",
    r"^text_fusion\.": "txtfusion.",
    r"^transformer_blocks\.": "blocks.",
    r"^final_layer\.linear\.": "last.linear.",
    r"^final_layer\.norm\.weight$": "last.norm.scale",
    r"^final_layer\.scale_shift_table$": "last.modulation.lin",
    r"\.attn\.to_([qkv])\.": r".attn.w\1.",
    r"\.attn\.to_out\.0\.": ".attn.wo.",
    r"\.attn\.to_gate\.": ".attn.gate.",
    r"\.attn\.norm_([qk])\.weight$": r".attn.qknorm.\1norm.scale",
    r"\.ff\.": ".mlp.",
    r"\.norm1\.weight$": ".prenorm.scale",
    r"\.norm2\.weight$": ".postnorm.scale",
    r"\.scale_shift_table$": ".mod.lin",
}
Z_IMAGE = {
    r"^all_final_layer\.2-1\.": "final_layer.",
    r"^all_x_embedder\.2-1\.": "x_embedder.",
    r"\.attention\.to_out\.0\.": ".attention.out.",
    r"\.attention\.norm_([qk])\.": r".attention.\1_norm.",
}


def swapped(value):
    """Scale and shift the other way round."""
    return torch.cat(value.chunk(2)[::-1])


def by_blocks(card, state, top, more, scale="scale"):
    """Original names by the card's blocks: (their layer, our layers)."""
    layers = {theirs: (ours,) for ours, theirs in top.items()}
    for stack, (blocks, table) in card.names.blocks.items():
        own = dict(table) | {theirs: (ours,) for theirs, ours in more.get(stack, {}).items()}
        for number in {key.split(".")[1] for key in state if key.startswith(f"{stack}.")}:
            for theirs, ours in own.items():
                layers[f"{blocks}.{number}.{theirs}"] = tuple(f"{stack}.{number}.{one}" for one in ours)
    left, found = dict(state), {}
    for theirs, ours in layers.items():
        for kind in ("weight", "bias"):
            if f"{ours[0]}.{kind}" in left:
                value = torch.cat([left.pop(f"{one}.{kind}") for one in ours])
                norm = value.ndim == 1 and kind == "weight"
                found[f"{theirs}.{scale if norm else kind}"] = value
    return found, left


def flux(card, state):
    found, left = by_blocks(card, state, FLUX_TOP, FLUX_NORMS)
    assert not left
    return swapped_ends(found)


def swapped_ends(found):
    return {
        key: swapped(value) if key.startswith("final_layer.adaLN_modulation") else value
        for key, value in found.items()
    }


def chroma(card, state):
    found, left = by_blocks(card, state, FLUX_TOP, FLUX_NORMS)
    assert all(key.startswith("distilled_guidance_layer.") for key in left)
    for key, value in left.items():
        name = re.sub(r"(norms\.\d+)\.weight$", r"\1.scale", key)
        for ours, theirs in CHROMA_GUIDANCE.items():
            name = name.replace(ours, theirs)
        found[name] = value
    return found


def flux2(card, state):
    found, left = by_blocks(card, state, card.names.top, FLUX_NORMS)
    assert not left
    return swapped_ends(found)


def sd3(card, state):
    found, left = by_blocks(card, state, SD3_TOP, SD3_NORMS, scale="weight")
    assert set(left) == {"pos_embed.pos_embed"}
    last = max(int(key.split(".")[1]) for key in state if key.startswith("transformer_blocks."))
    start = f"joint_blocks.{last}.context_block.adaLN_modulation"
    turned = {key: swapped(value) if key.startswith(start) else value for key, value in found.items()}
    return swapped_ends(turned) | {"pos_embed": left["pos_embed.pos_embed"]}


def renamed(state, table):
    """Every key by the patterns that it has."""
    found = {}
    for key, value in state.items():
        name = key
        for ours, theirs in table.items():
            name = re.sub(ours, theirs, name)
        found[name] = value
    assert len(found) == len(state)
    return found


def krea2(card, state):
    """The six vectors of a block's modulation are one."""
    found = renamed(state, KREA)
    flat = {key for key in found if re.match(r"blocks\.\d+\.mod\.lin$", key)}
    assert flat
    return {
        key: rearrange(value, "six d -> (six d)") if key in flat else value for key, value in found.items()
    }


def z_image(card, state):
    """Query, key and value are one."""
    left, found = dict(state), {}
    for key in [key for key in state if key.endswith(".attention.to_q.weight")]:
        three = [left.pop(key.replace("to_q", f"to_{letter}")) for letter in "qkv"]
        found[key.replace("to_q", "qkv")] = torch.cat(three)
    return found | renamed(left, Z_IMAGE)


def qwen_image_21(card, state):
    """ComfyUI's file: gate and what it gates are one, the gate first."""
    left, found = dict(state), {}
    for key in [key for key in state if key.endswith(".img_mlp.gate_layer.weight")]:
        two = [left.pop(key), left.pop(key.replace("gate_layer", "proj"))]
        found[key.replace("gate_layer", "gate_up")] = torch.cat(two)
    assert found
    return found | left


ORIGINAL = {
    "flux": flux, "flux-kontext": flux, "flux-fill": flux, "chroma": chroma, "flux2": flux2, "flux2-klein": flux2,
    "sd3": sd3, "krea2": krea2, "z-image": z_image, "qwen-image-2.1": qwen_image_21,
}  # fmt: skip
"""The families whose authors' names are not diffusers'; those of Qwen-Image are."""
