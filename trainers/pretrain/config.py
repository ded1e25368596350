"""Settings for making the embedded models from scratch."""

from typing import Annotated

from pydantic import Field

from studio.catalog.cards import Card
from studio.data.sticker_config import Stickers
from studio.settings.config import Positive, config

VARIED = Stickers(
    num_concepts=351,
    styles=("3d", "flat", "cartoon", "glossy"),
    textured=0.4,
    gradient=0.15,
    centered=0.8,
    scale=(0.6, 0.92),
    rotated=0.2,
    mirrored=0.2,
)
"""All stickers with all variety: what an autoencoder should be able to draw."""


@config
class Autoencoder:
    """AutoencoderTiny, 8 times smaller, 16 channels; the encoder starts as the patch PCA."""

    scenes: Stickers = VARIED
    """What the pictures show."""
    width: Annotated[int, Field(ge=48)] = 48
    """Channels of every layer (the PCA needs 48)."""
    encoder_blocks: tuple[int, int, int, int] = (0, 0, 2, 0)
    """Residual blocks at 64, 32, 16 and 8 pixels; they start as the identity."""
    decoder_blocks: tuple[int, int, int, int] = (4, 3, 1, 0)
    """Residual blocks at 8, 16, 32 and 64 pixels."""
    latent_noise: Annotated[float, Field(ge=0)] = 0.03
    """Noise on the latents while training, so that the decoder forgives a denoiser's errors."""
    edge_weight: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the difference between neighboring pixels' differences."""
    train_encoder: bool = True
    """Off: only the decoder learns, and the latents stay what they are."""
    start: str = ""
    """Folder of an autoencoder to go on from; empty starts from the PCA."""


@config
class Latents:
    """What text-to-image models over the latents of a finished autoencoder learn from."""

    autoencoder: str = "assets/models/studio-tiny/vae"
    """Folder of the autoencoder, which stays as it is."""
    scenes: Stickers = Stickers()
    """What the pictures show."""
    num_scenes: Positive = 16384
    """How many different scenes are drawn; each is encoded once."""
    cache: str = "runs/cache"
    """Folder that keeps the encoded scenes for the next time."""
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of empty captions, for classifier-free guidance."""
    start: str = ""
    """Folder of a pipeline whose denoiser and text encoders to go on from; empty starts from random weights."""


@config
class TextToImage(Latents):
    """U-Net, text encoder and tokenizer."""

    widths: tuple[int, int] = (96, 160)
    """Channels at 8 and at 4 latents."""


@config
class Dit(Latents):
    """Transformer of Stable Diffusion 3's layout, two text encoders and a tokenizer."""

    scenes: Stickers = Stickers(num_concepts=351)
    """What the pictures show."""
    num_scenes: Positive = 65536
    """How many different scenes are drawn; each is encoded once."""
    width: Positive = 128
    """Channels."""
    depth: Positive = 4
    """Blocks of joint attention."""
    heads: Positive = 4
    """Attention heads."""


@config
class Vit:
    """A timm VisionTransformer that names the object."""

    scenes: Stickers = Stickers(
        styles=("3d", "flat", "cartoon", "glossy"), rotated=0.2, mirrored=0.3, textured=0.5
    )
    """What the pictures show."""
    width: Positive = 128
    """Channels."""
    depth: Positive = 6
    """Blocks."""
    erased: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Share of pictures with a gray patch over a part."""


@config
class Clip:
    """Image and text towers in the open_clip format, trained contrastively on hard negatives."""

    scenes: Stickers = Stickers(
        styles=("3d", "flat", "cartoon", "glossy"), rotated=0.2, mirrored=0.3, textured=0.5
    )
    """What the pictures show."""
    image_tower: str = "assets/models/studio-tiny-vit"
    """Folder of the classifier whose weights start the image tower; empty starts from random weights."""
    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of batches with one background and one picture a concept, which only the object tells apart."""


@config
class Pretrain:
    """Make one of the embedded models from scratch."""

    model: Autoencoder | TextToImage | Dit | Vit | Clip = Autoencoder()
    """Which model."""


METHOD = Card(
    name="pretrain",
    title="Pre-training of the embedded models",
    summary="Trains studio-tiny, studio-tiny-vit and studio-tiny-clip on composed sticker scenes.",
    paper="",
    config=Pretrain,
    trainer="trainers.pretrain.trainer:PretrainTrainer",
    hidden=True,
)
