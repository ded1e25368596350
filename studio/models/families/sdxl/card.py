"""SDXL: a U-Net with two CLIP text encoders, a pooled vector, and the picture's size and crop as an input."""

from studio.catalog.family import FamilyCard, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

SHAPES = parts.unet_shapes("4", 1, 2048)

FAMILY = FamilyCard(
    name="sdxl",
    title="Stable Diffusion XL",
    model="studio.models.families.sdxl.model:StableDiffusionXL",
    tiny="studio.models.families.sdxl.tiny:build",
    denoiser="unet",
    process="discrete",
    variants=(
        Variant(
            name="sdxl",
            hub="stabilityai/stable-diffusion-xl-base-1.0",
            title="SDXL 1.0",
            steps=30,  # ours: its page leaves the number to the library, which takes 50
            guidance=5.0,
            weights=2_567_463_684,
            license="openrail++",
            architecture={
                "unet": Part(
                    "UNet2DConditionModel",
                    {
                        "sample_size": 128,
                        "block_out_channels": (320, 640, 1280),
                        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                        "transformer_layers_per_block": (1, 2, 10),
                        "attention_head_dim": (5, 10, 20),
                        "cross_attention_dim": 2048,
                        "use_linear_projection": True,
                        "addition_embed_type": "text_time",
                        "addition_time_embed_dim": 256,
                        "projection_class_embeddings_input_dim": 2816,
                        "upcast_attention": None,
                    },
                ),
                "vae": parts.autoencoder(sample_size=1024, scaling_factor=0.13025),
                "scheduler": parts.chain("EulerDiscreteScheduler", timestep_spacing="leading"),
                "text_encoder": parts.CLIP_L_TEXT,
                "text_encoder_2": parts.CLIP_G_PROJECTED,
            },
        ),
    ),
    recognize=Recognize(
        pipelines=("StableDiffusionXLPipeline",),
        keys=tuple(SHAPES),
        shapes=SHAPES,
        inputs=parts.UNET_INPUTS,
        text={
            "text_encoder": ("conditioner.embedders.0.transformer.",),
            "text_encoder_2": ("conditioner.embedders.1.model.",),
        },
        lora=("lora_te2_", "lora_unet_input_blocks"),
    ),
    words=Words(
        trains=("text_encoder", "text_encoder_2"),
        pads={"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
        reads=parts.CLIP_READS,
    ),
    layers=parts.UNET_LAYERS,
    schedule=Schedule(sigmas="library"),
    names=Names(
        modelspec="stable-diffusion-xl-v1-base",
        base_version="sdxl_base_v1-0",
        implementation="https://github.com/Stability-AI/generative-models",
        scheme="sgm",
        comfy=False,
        text={"text_encoder": parts.KOHYA_CLIP_L, "text_encoder_2": parts.KOHYA_CLIP_G},
    ),
    fp32=("vae",),
)
