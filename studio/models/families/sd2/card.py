"""Stable Diffusion 2.x: as 1.x, with a larger text encoder; the 768-pixel models predict v."""

from studio.catalog.family import FamilyCard, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

SHAPES = parts.unet_shapes("1", 0, 1024)

FAMILY = FamilyCard(
    name="sd2",
    title="Stable Diffusion 2.x",
    model="studio.models.families.sd1.model:StableDiffusion",
    tiny="studio.models.families.sd2.tiny:build",
    denoiser="unet",
    process="discrete",
    variants=(
        Variant(
            name="sd21",
            hub="stabilityai/stable-diffusion-2-1",
            also=("sd2", "stabilityai/stable-diffusion-2"),
            title="Stable Diffusion 2.1 (768 px)",
            size=768,
            steps=30,  # ours: its page leaves the number to the library, which takes 50
            guidance=7.5,
            weights=865_910_724,
            license="openrail++",
            architecture={
                "unet": Part(
                    "UNet2DConditionModel",
                    {
                        "sample_size": 96,
                        "cross_attention_dim": 1024,
                        "attention_head_dim": (5, 10, 20, 20),
                        "use_linear_projection": True,
                        "upcast_attention": True,
                    },
                ),
                "vae": parts.autoencoder(sample_size=768),
                "scheduler": parts.chain(
                    "DDIMScheduler", prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False
                ),
                "text_encoder": parts.CLIP_H_TEXT,
            },
        ),
    ),
    recognize=Recognize(
        pipelines=("StableDiffusionPipeline",),
        tells={"text_encoder.hidden_act": "gelu"},
        keys=tuple(SHAPES),
        shapes=SHAPES,
        inputs=parts.UNET_INPUTS,
        text={"text_encoder": ("cond_stage_model.model.",)},
    ),
    words=Words(trains=("text_encoder",), pads={"tokenizer": "!"}, reads=parts.CLIP_READS),
    layers=parts.UNET_LAYERS,
    schedule=Schedule(sigmas="library"),
    names=Names(
        modelspec="stable-diffusion-v2-768-v",
        base_version="sd_v2_v",
        comfy=False,
        text={"text_encoder": parts.KOHYA_CLIP},
    ),
)
