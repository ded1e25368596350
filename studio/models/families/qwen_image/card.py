"""Qwen-Image: a transformer with joint attention over rows of Qwen2.5-VL and, after them, the picture."""

from studio.catalog.family import FamilyCard, Layers, Names, Part, Recognize, Schedule, Variant, Words
from studio.models.families import parts

TRANSFORMER = {
    "num_layers": 60,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 3584,
    "in_channels": 64,
    "out_channels": 16,
}
PARTS = {
    "transformer": Part("QwenImageTransformer2DModel", TRANSFORMER),
    "vae": parts.AUTOENCODER_QWEN,
    "scheduler": parts.flow(
        use_dynamic_shifting=True, max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02
    ),
    "text_encoder": parts.QWEN25_VL_7B,
}
WEIGHTS = 20_430_401_088
_MLPS = ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2")
LAYERS = Layers(
    auto=(*parts.JOINT, *_MLPS),
    more=("img_mod.1", "txt_mod.1"),
    entry="img_in",
    stacks=("transformer_blocks",),
    text="first",
)
"""musubi-tuner trains all linear layers of the blocks but modulation (`networks/lora_qwen_image.py`)."""
SCHEDULE = Schedule(training_shift=2.2)
"""musubi-tuner's `--discrete_flow_shift 2.2` (`docs/qwen_image.md`): about what pictures of 1328 px are drawn with. diffusers'
example trains unshifted, since the scheduler's `shift` does nothing beside its dynamic one."""
NETWORK = "networks.lora_qwen_image"

FAMILY = FamilyCard(
    name="qwen-image",
    title="Qwen-Image",
    model="studio.models.families.qwen_image.model:QwenImage",
    tiny="studio.models.families.qwen_image.tiny:build",
    denoiser="transformer",
    process="flow",
    guidance="norm",
    variants=(
        Variant(
            name="qwen-image",
            hub="Qwen/Qwen-Image",
            title="Qwen-Image",
            size=1328,
            steps=50,
            guidance=4.0,
            weights=WEIGHTS,
            license="apache-2.0",
            architecture=PARTS,
        ),
    ),
    recognize=Recognize(
        pipelines=("QwenImagePipeline",),
        keys=("transformer_blocks.0.img_mlp.net.0.proj.weight",),
        lora=("img_mlp.net", "txt_mlp.net", "img_mlp_net", "txt_mlp_net"),
    ),
    words=Words(length=512, mask=True, weights=False),
    layers=LAYERS,
    schedule=SCHEDULE,
    names=Names(modelspec="Qwen-Image", base_version="qwen_image", network=NETWORK),
)
