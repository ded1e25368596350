"""Which rewards there are. No torch."""

from dataclasses import field
from typing import Annotated

from pydantic import Field

from studio.config import config
from studio.metrics.config import OpenClip


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
class User:
    """A function of your own: (images (b 3 H W) in [-1, 1], prompts) -> scores (b), higher is better."""

    function: str
    """`module:function`, importable from where the command is started."""
    seconds: Annotated[float, Field(gt=0)] = 600.0
    """A call that takes longer fails the run."""


@config
class Mix:
    """A weighted sum of rewards, each standardized by its running mean and spread."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weight by reward: compressible, redness, clip-alignment ... as they are by default, or `module:function`."""


Reward = ClipAlignment | Compressible | Incompressible | Redness | Brightness | Aesthetic | User | Mix


@config
class NoReward:
    """No held-out reward."""


HeldOut = ClipAlignment | Compressible | Incompressible | Redness | Brightness | Aesthetic | User | NoReward
"""A reward that is watched, and not optimized."""
