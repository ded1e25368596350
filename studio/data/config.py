"""Settings of the data: pictures with captions (`Images`) and pictures with labels (`Labelled`)."""

from typing import Annotated, Literal

from pydantic import Field

from studio.errors import StudioError
from studio.settings.config import Count, Fraction, Positive, config


@config
class Captions:
    """How the captions found are read and varied."""

    extension: Annotated[str, Field(pattern=r"^(auto|\.?[A-Za-z0-9]+)$")] = "auto"
    """Extension of the caption files beside the pictures; auto takes .txt, then .caption."""
    dropout: Fraction = 0.0
    """Share of captions replaced by the empty one, which guidance needs (0.1: Ho and Salimans 2022, sec. 4)."""
    shuffle: bool = False
    """Shuffle the comma-separated tags of a caption anew each time."""
    keep: Count = 1
    """Tags at the front of a caption that shuffling leaves where they are (1: kohya's advice for a trigger)."""
    wildcards: bool = True
    """Replace each {one|two|three} in a caption by one of its choices."""


@config
class Images:
    """How a folder of pictures becomes training examples."""

    resolution: Annotated[int, Field(ge=0, le=8192)] = 0
    """Side of the square, or of the square as large as every bucket, in pixels; 0 takes the model's own."""
    crop: Literal["center", "random"] = "center"
    """Which part of a picture that does not fit is taken (center keeps the subject whole)."""
    flip: Fraction = 0.0
    """Share of pictures mirrored; leave it at 0 for faces, writing and all that has a left and a right."""
    buckets: bool = False
    """Keep aspect ratios: a batch holds pictures of one shape, with about the same number of pixels."""
    bucket_step: Count = 0
    """Pixels between two bucket sides; 0 takes 64 from 512 pixels on (NovelAI), below it the model's own step."""
    masks: bool = False
    """Count only the masked part in the loss; masks are found in alpha, NAME-masklabel.png or masks/NAME.png."""
    captions: Captions = Captions()
    on_bad: Literal["stop", "skip"] = "stop"
    """What an unusable picture does: stop names it before training starts, skip leaves it out and says so."""
    latents: Literal["sample", "mode"] = "sample"
    """What a step learns from, cached or not: a new sample of the autoencoder's distribution (diffusers' scripts), or its mode."""
    cache: Literal["none", "latents", "latents+text"] = "none"
    """What is computed once and kept on disk, by content: nothing, latents, or text embeddings too."""
    cache_views: Annotated[int, Field(ge=1, le=64)] = 1
    """Crops and flips of each picture that the latent cache holds; random ones need at least 2."""
    cache_folder: str = "~/.cache/finetuning-studio"
    """Folder of the cache; several runs may share it at the same time."""

    def __post_init__(self) -> None:
        """Refuse a cache that would cancel another setting.

        Raises:
            StudioError: If random crops or flips would be frozen to one view.
        """
        varies = [f"crop {self.crop!r}"] * (self.crop == "random") + [f"flip {self.flip}"] * (
            0 < self.flip < 1
        )
        if self.cache != "none" and varies and self.cache_views == 1:
            message = (
                f"cache {self.cache!r} with cache_views 1 would freeze {' and '.join(varies)} to one view of each "
                "picture; set cache_views to 2 or more, or cache to 'none'."
            )
            raise StudioError(message, field="cache_views")


@config
class Labelled:
    """How labelled pictures become training examples of a classifier; images stay in [0, 1]."""

    train: Annotated[str, Field(min_length=1)]
    """Class folders, a Hugging Face folder or parquet, webdataset .tar files, Fashion-MNIST's folder, or 'stickers'."""
    test: str = ""
    """Held-out data in any of those forms; empty takes the test split found beside the training data, if any."""
    resolution: Annotated[int, Field(ge=0, le=8192)] = 0
    """Side of the square in pixels; 0 takes the model's own."""
    augment: Literal["none", "crop-flip", "timm"] = "crop-flip"
    """none; crop-flip shifts by up to an eighth and mirrors (CIFAR practice); timm is its training transform."""
    flip: Fraction = 0.5
    """Share of pictures mirrored by crop-flip and timm (0.5: timm)."""
    randaugment: str = ""
    """timm's policy text for augment timm, such as rand-m9-mstd0.5-inc1; empty applies none."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Smallest and largest share of the picture that augment timm crops (0.08 to 1: Inception, timm)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup's beta distribution; 0 switches it off (0.8: timm's ViT recipe)."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of cutmix's beta distribution; 0 switches it off (1.0: timm's ViT recipe)."""
    shots: Count = 0
    """Examples of each class to train on, chosen by shots_seed; 0 takes all."""
    shots_seed: Count = 0
    """Which examples the shots are."""
    stickers_per_class: Positive = 100
    """Scenes of each class drawn for 'stickers'."""
    sticker_classes: Annotated[int, Field(ge=2, le=351)] = 40
    """Classes of 'stickers'."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What an unusable picture does: stop names it before training starts, skip leaves it out and says so."""

    def __post_init__(self) -> None:
        """Refuse settings that another one would cancel.

        Raises:
            StudioError: If a setting of timm's transform is given without it, or the crop range is empty.
        """
        if self.randaugment and self.augment != "timm":
            message = f"randaugment {self.randaugment!r} has no effect with augment {self.augment!r}; use augment 'timm'."
            raise StudioError(message, field="randaugment")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            message = (
                f"crop_scale {self.crop_scale} is not a range; give two shares with 0 < first <= second."
            )
            raise StudioError(message, field="crop_scale")
