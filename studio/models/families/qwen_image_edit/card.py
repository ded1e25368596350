"""Qwen-Image-Edit: Qwen-Image that looks at pictures."""

from dataclasses import replace

from studio.catalog.family import Names, Recognize, Variant
from studio.models.families.qwen_image.card import FAMILY as QWEN_IMAGE
from studio.models.families.qwen_image.card import NETWORK, PARTS, WEIGHTS

FAMILY = replace(
    QWEN_IMAGE,
    name="qwen-image-edit",
    title="Qwen-Image-Edit",
    model="studio.models.families.qwen_image_edit.model:QwenImageEdit",
    tiny="studio.models.families.qwen_image_edit.tiny:build",
    variants=(
        Variant(
            name="qwen-image-edit",
            hub="Qwen/Qwen-Image-Edit-2509",
            also=("qwen-image-edit-2509",),
            title="Qwen-Image-Edit 2509",
            steps=40,
            guidance=4.0,
            weights=WEIGHTS,
            license="apache-2.0",
            architecture=PARTS,
        ),
    ),
    recognize=Recognize(
        pipelines=("QwenImageEditPlusPipeline",), lora=QWEN_IMAGE.recognize.lora, kin=("qwen-image",)
    ),
    names=Names(modelspec="Qwen-Image-Edit-Plus", base_version="qwen_image_edit", network=NETWORK),
    references=3,
)
