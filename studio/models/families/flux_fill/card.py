"""FLUX.1 Fill: FLUX.1 dev that paints the masked part of a picture. Without one, all is masked."""

from dataclasses import replace

from studio.catalog.family import Part, Recognize
from studio.models.families.flux.card import DEV, KEYS, LORA, NAMES, PARTS, TRANSFORMER
from studio.models.families.flux.card import FAMILY as FLUX

_CHANNELS = {"in_channels": 384, "out_channels": 64}
"""Of a token: 64 of the noisy latent, 64 of the masked picture's, 256 of the mask."""

FAMILY = replace(
    FLUX,
    name="flux-fill",
    title="FLUX.1 Fill",
    model="studio.models.families.flux_fill.model:FluxFill",
    tiny="studio.models.families.flux_fill.tiny:build",
    variants=(
        replace(
            DEV,
            name="flux-fill-dev",
            hub="black-forest-labs/FLUX.1-Fill-dev",
            also=("flux-fill", "flux1-fill-dev"),
            title="FLUX.1 Fill dev",
            steps=50,
            guidance=30.0,
            weights=11_902_391_360,
            architecture=PARTS | {"transformer": Part("FluxTransformer2DModel", TRANSFORMER | _CHANNELS)},
            tells={},
        ),
    ),
    recognize=Recognize(
        pipelines=("FluxFillPipeline",),
        keys=KEYS,
        inputs={"img_in.weight": 384, "x_embedder.weight": 384},
        lora=LORA,
        kin=("flux",),
    ),
    names=replace(NAMES, modelspec="flux-1-fill-dev"),
    references=2,
)
