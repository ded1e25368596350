"""FLUX.1 dev and schnell: a transformer with joint attention over T5's rows and, after them, the picture."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from studio.catalog.family import Blocks, FamilyCard, Layers, Names, Part, Recognize, Variant, Words
from studio.models.families import parts

TRANSFORMER = {
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
PARTS = {
    "transformer": Part("FluxTransformer2DModel", TRANSFORMER),
    "vae": parts.autoencoder16(0.3611, 0.1159),
    "scheduler": parts.flow(shift=3.0, use_dynamic_shifting=True),
    "text_encoder": parts.CLIP_L_TEXT,
    "text_encoder_2": parts.T5_XXL,
}
DEV = Variant(
    name="flux-dev",
    hub="black-forest-labs/FLUX.1-dev",
    also=("flux", "flux1-dev"),
    title="FLUX.1 dev",
    steps=28,
    guidance=3.5,
    weights=11_901_408_320,
    license="flux-1-dev-non-commercial-license",
    gated=True,
    architecture=PARTS,
    tells={"transformer.guidance_embeds": True},
    keys=("guidance_in.in_layer.weight", "time_text_embed.guidance_embedder.linear_1.weight"),
)
KEYS = ("double_blocks.0.img_mod.lin.weight", "single_transformer_blocks.0.norm.linear.weight")
"""Keys of a denoiser in one file: original, and diffusers' names."""
LAYERS = Layers(
    auto=(*parts.JOINT, *parts.FEED_FORWARD),
    more=("proj_mlp", "proj_out"),
    entry="x_embedder",
    stacks=("transformer_blocks", "single_transformer_blocks"),
    text="first",
)
"""diffusers' script for FLUX trains attention and feed-forward of the double blocks."""
_DOUBLE = {
    "img_attn.qkv": parts.QKV,
    "txt_attn.qkv": parts.ADDED_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE = {"linear1": (*parts.QKV, "proj_mlp"), "linear2": ("proj_out",)}
_Layers = Mapping[str, tuple[str, ...]]


def blocks(double: _Layers = MappingProxyType({}), single: _Layers = MappingProxyType({})) -> Blocks:
    """The blocks in the original names, with the layers that a relative has besides."""
    return {
        "transformer_blocks": ("double_blocks", {**_DOUBLE, **double}),
        "single_transformer_blocks": ("single_blocks", {**_SINGLE, **single}),
    }


NAMES = Names(
    modelspec="flux-1-dev",
    base_version="flux1",
    implementation="https://github.com/black-forest-labs/flux",
    network="networks.lora_flux",
    text={"text_encoder": parts.KOHYA_CLIP_L},
    scheme="blocks",
    blocks=blocks(
        {"img_mod.lin": ("norm1.linear",), "txt_mod.lin": ("norm1_context.linear",)},
        {"modulation.lin": ("norm.linear",)},
    ),
    top={
        "x_embedder": "img_in",
        "context_embedder": "txt_in",
        "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        "proj_out": "final_layer.linear",
    },
)
"""The original names: what sd-scripts trains (blocks by default, the layers outside with `in_dims`) and ComfyUI reads."""
LORA = ("single_transformer_blocks", "double_blocks", "single_blocks")
"""Parts of the keys of LoRA files, which its relatives' have too."""
WORDS = Words(
    trains=("text_encoder",),
    rows="tokenizer_2",
    pads={"tokenizer": "<|endoftext|>"},
    length=512,
    reads=("t5_tokens",),  # of CLIP, the pooled vector alone
)

FAMILY = FamilyCard(
    name="flux",
    title="FLUX.1",
    model="studio.models.families.flux.model:Flux",
    tiny="studio.models.families.flux.tiny:build",
    denoiser="transformer",
    process="flow",
    guidance="input",
    variants=(
        DEV,
        replace(
            DEV,
            name="flux-schnell",
            hub="black-forest-labs/FLUX.1-schnell",
            also=("flux1-schnell",),
            title="FLUX.1 schnell",
            steps=4,
            guidance=1.0,
            distilled=True,
            instead="flux-dev",
            assistant="ostris/FLUX.1-schnell-training-adapter",
            weights=11_891_178_560,
            license="apache-2.0",
            gated=False,
            architecture=PARTS
            | {
                "transformer": Part("FluxTransformer2DModel", TRANSFORMER | {"guidance_embeds": False}),
                "scheduler": parts.flow(),
            },
            modelspec="flux-1-schnell",
            tells={"transformer.guidance_embeds": False},
            keys=(),
        ),
    ),
    recognize=Recognize(
        pipelines=("FluxPipeline",),
        keys=KEYS,
        inputs={"img_in.weight": 64, "x_embedder.weight": 64},
        text={"text_encoder": parts.CLIP_L_IN_FILE, "text_encoder_2": parts.T5_IN_FILE},
        lora=LORA,
    ),
    words=WORDS,
    layers=LAYERS,
    names=NAMES,
)
