"""Stable Diffusion 1.x: a U-Net with cross-attention to one CLIP text encoder."""

from studio.catalog.family import FamilyCard, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

SHAPES = parts.unet_shapes("1", 0, 768)

FAMILY = FamilyCard(
    name="sd1",
    title="Stable Diffusion 1.x",
    model="studio.models.families.sd1.model:StableDiffusion",
    tiny="studio.models.families.sd1.tiny:build",
    denoiser="unet",
    process="discrete",
    variants=(
        Variant(
            name="sd15",
            hub="stable-diffusion-v1-5/stable-diffusion-v1-5",
            also=("sd1", "sd14", "runwayml/stable-diffusion-v1-5", "CompVis/stable-diffusion-v1-4"),
            title="Stable Diffusion 1.5",
            size=512,
            steps=30,  # ours: its page leaves the number to the library, which takes 50
            guidance=7.5,
            weights=859_520_964,
            license="creativeml-openrail-m",
            architecture={
                "unet": Part("UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}),
                "vae": parts.autoencoder(sample_size=512),
                "scheduler": parts.chain("PNDMScheduler", skip_prk_steps=True),
                "text_encoder": parts.CLIP_L_TEXT,
            },
        ),
    ),
    recognize=Recognize(
        pipelines=("StableDiffusionPipeline",),
        tells={"text_encoder.hidden_act": "quick_gelu"},
        keys=tuple(SHAPES),
        shapes=SHAPES,
        inputs=parts.UNET_INPUTS,
        text={"text_encoder": ("cond_stage_model.transformer.",)},
    ),
    words=Words(trains=("text_encoder",), pads={"tokenizer": "<|endoftext|>"}, reads=parts.CLIP_READS),
    layers=parts.UNET_LAYERS,
    schedule=Schedule(sigmas="library"),
    names=Names(
        modelspec="stable-diffusion-v1",
        base_version="sd_v1",
        comfy=False,
        text={"text_encoder": parts.KOHYA_CLIP},
    ),
)
