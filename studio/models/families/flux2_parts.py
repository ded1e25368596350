"""What FLUX.2 dev and klein share on their cards. No torch."""

from collections.abc import Mapping
from typing import Any

from studio.catalog.family import Layers, Names, Part, Schedule
from studio.models.families import parts

VAE = Part(
    "AutoencoderKLFlux2",
    {"sample_size": 1024, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    | {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
)
"""32 channels, which the denoiser sees in patches of 2 x 2, normalized by the statistics of a batch norm."""
SCHEDULER = parts.flow(shift=3.0, use_dynamic_shifting=True)
REFERENCES = 10
"""Pictures that the maker's page names as the most that dev looks at."""
SCHEDULE = Schedule(training_shift=3.158)
"""exp(1.15): musubi-tuner's `flux2_shift` moves logit-normal times by the size, and this is a picture of 1024 pixels.
diffusers' scripts do not move them at all: with a dynamic shift its scheduler's `shift` is inert."""
LAYERS = Layers(
    auto=("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out"),
    more=("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff.linear_in", "ff.linear_out", "ff_context.linear_in",
          "ff_context.linear_out"),
    entry="x_embedder",
    stacks=("transformer_blocks", "single_transformer_blocks"),
    text="first",
)  # fmt: skip
"""diffusers' scripts train the picture's attention in the double blocks and all of the single ones; musubi-tuner both kinds
whole."""
LORA = ("to_qkv_mlp_proj", "ff.linear_in", "ff_linear_in", "double_blocks", "single_blocks")
"""Parts of LoRA keys; in the original names FLUX.1 has the same."""
_DOUBLE = {
    "img_attn.qkv": parts.QKV,
    "txt_attn.qkv": parts.ADDED_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
_SINGLE = {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
_TOP = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}


def transformer(**settings: Any) -> Part:
    """The denoiser; dev's settings are the class's own."""
    return Part("Flux2Transformer2DModel", settings)


def architecture(denoiser: Part, encoder: Part) -> Mapping[str, Part]:
    """The components."""
    return {"transformer": denoiser, "vae": VAE, "scheduler": SCHEDULER, "text_encoder": encoder}


def names(modelspec: str, base_version: str) -> Names:
    """The original names, as in diffusers' converter of LoRAs and in ComfyUI."""
    return Names(
        modelspec=modelspec,
        base_version=base_version,
        network="networks.lora_flux_2",
        scheme="blocks",
        blocks={
            "transformer_blocks": ("double_blocks", _DOUBLE),
            "single_transformer_blocks": ("single_blocks", _SINGLE),
        },
        top=_TOP,
    )


KEYS = ("single_stream_modulation.lin.weight", "single_stream_modulation.linear.weight")
"""Keys of a denoiser in one file: original, and diffusers' names."""
