"""Z-Image and its few-step Turbo: one stream over the picture and, after it, the hidden states of Qwen3."""

from dataclasses import replace

from studio.catalog.family import FamilyCard, Layers, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

_PARTS = {
    "transformer": Part("ZImageTransformer2DModel", {"axes_lens": (1536, 512, 512)}),
    "vae": parts.autoencoder16(0.3611, 0.1159),
    "scheduler": parts.flow(shift=6.0),
    "text_encoder": Part("Qwen3Model", parts.QWEN3_4B, "transformers"),
}
_BASE = Variant(
    name="z-image",
    hub="Tongyi-MAI/Z-Image",
    also=("z-image-base",),
    title="Z-Image",
    steps=50,
    guidance=5.0,  # its card's 4: the pipeline counts from 0, we from 1
    weights=6_154_908_736,
    license="apache-2.0",
    architecture=_PARTS,
    tells={"scheduler.shift": 6.0},
)

FAMILY = FamilyCard(
    name="z-image",
    title="Z-Image",
    model="studio.models.families.z_image.model:ZImage",
    tiny="studio.models.families.z_image.tiny:build",
    denoiser="transformer",
    process="flow",
    variants=(
        _BASE,
        replace(
            _BASE,
            name="z-image-turbo",
            hub="Tongyi-MAI/Z-Image-Turbo",
            also=("zimage-turbo",),
            title="Z-Image-Turbo",
            steps=8,
            guidance=1.0,
            distilled=True,
            instead="z-image",
            assistant="ostris/zimage_turbo_training_adapter",
            architecture=_PARTS | {"scheduler": parts.flow(shift=3.0)},
            tells={"scheduler.shift": 3.0},
        ),
    ),
    recognize=Recognize(
        pipelines=("ZImagePipeline",),
        keys=("layers.0.adaLN_modulation.0.weight",),
        lora=("layers.0.attention.", "layers_0_attention_", "context_refiner", "noise_refiner"),
    ),
    words=Words(length=512, mask=True, weights=False),
    layers=Layers(
        auto=("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
        more=("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        entry="all_x_embedder.2-1",
        entry_multiple=32,
        stacks=("noise_refiner", "context_refiner", "layers"),
        text="last",
        text_only=("context_refiner",),
        image_only=("noise_refiner",),
    ),
    # Logit-normal times moved by 2 (musubi-tuner, docs/zimage.md). diffusers' script draws uniform ones by the scheduler's 6.
    schedule=Schedule(training_shift=2.0),
    # diffusers' names: musubi-tuner trains them (`lora_unet_layers_0_attention_to_q`, which it converts for ComfyUI), and
    # ComfyUI knows them behind `diffusion_model.` (comfy/utils.py, z_image_to_diffusers).
    names=Names(modelspec="Z-Image", base_version="z_image", network="networks.lora_zimage"),
)
"""diffusers' script trains attention; musubi-tuner also the feed-forward layers, and neither in the refiners."""
