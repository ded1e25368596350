"""Which rewards there are. No torch."""

from dataclasses import field
from typing import Annotated

from pydantic import Field, JsonValue

from studio.metrics.config import OpenClip
from studio.settings.config import config
from studio.settings.custom import Options


@config
class Compressible:
    """Small JPEG files: flat, simple pictures (DDPO, section 5.1; not differentiable)."""


@config
class Incompressible:
    """Large JPEG files: busy pictures (DDPO, section 5.1; not differentiable)."""


@config
class Redness:
    """Red less the mean of green and blue."""


@config
class Brightness:
    """The mean of all channels."""


@config
class ClipAlignment:
    """Cosine of picture and prompt."""

    backbone: OpenClip = OpenClip()
    """Judge."""


@config
class Aesthetic:
    """The LAION aesthetic predictor (about 1 to 10): a small head on the features of CLIP ViT-L/14."""

    weights: str = "sac+logos+ava1-l14-linearMSE.safetensors"
    """File of the head's weights, .safetensors or .pth."""
    backbone: OpenClip = OpenClip(model="ViT-L-14", pretrained="openai")
    """The CLIP that the head was trained on."""


@config
class HpsV2:
    """Human preference (Wu et al. 2023): the cosine of an open_clip ViT-H/14 finetuned on choices (0.2 to 0.3)."""

    weights: str = ""
    """File of the weights, such as HPS_v2.1_compressed.pt; empty takes xswu/HPSv2 from the hub."""
    model: str = "ViT-H-14"
    """The open_clip architecture, by name or as a folder."""


@config
class PickScore:
    """Human preference (Kirstain et al. 2023): the cosine of a CLIP ViT-H finetuned on Pick-a-Pic."""

    model: str = "yuvalkirstain/PickScore_v1"
    """Hub name or folder of a transformers CLIP with its tokenizer."""


@config
class ImageReward:
    """Human preference (Xu et al. 2023): BLIP-L reads prompt and picture together; about N(0, 1)."""

    weights: str = ""
    """File ImageReward.pt; empty takes THUDM/ImageReward from the hub."""
    tokenizer: str = "bert-base-uncased"
    """Hub name or folder of BERT's tokenizer."""


@config
class FaceQuality:
    """Quality of the face in a picture, 0 to 1, 0 where there is none (pyiqa; extra `faces`)."""

    metric: str = "topiq_nr-face"
    """A metric of pyiqa in which more is better and which needs no reference."""


@config
class User:
    """Yours: (images (b 3 H W) in [-1, 1], prompts) -> scores (b), higher is better; a function, or a class called so."""

    function: str
    """`package.module:name`, or `file.py:name` for a file in the folder where the command is started."""
    options: Options = field(default_factory=dict[str, JsonValue])
    """Arguments of it, by name, as JSON or in turn: the class's own, or further ones of the function."""
    seconds: Annotated[float, Field(gt=0)] = 600.0
    """A call that takes longer fails the run."""
    differentiable: bool = False
    """Its scores have a gradient to the pictures, so that draft can use it."""


@config
class Mix:
    """A weighted sum of rewards, each standardized by its running mean and spread."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weight by reward: compressible, redness, clip-alignment ... as they are by default, or a path as in `user`."""


Single = (
    ClipAlignment
    | Compressible
    | Incompressible
    | Redness
    | Brightness
    | Aesthetic
    | HpsV2
    | PickScore
    | ImageReward
    | FaceQuality
    | User
)
Reward = Single | Mix


@config
class NoReward:
    """No held-out reward."""


HeldOut = Single | NoReward
"""A reward that is watched, and not optimized."""

BLACK_BOXES = ("compressible", "incompressible", "face-quality")
"""Rewards without a gradient to the pictures, by name; a function of one's own says itself whether it has one."""
