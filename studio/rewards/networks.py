"""Rewards of networks, differentiable in the images.

Axes: `b` pictures, `d` features, `H W` image.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from studio.errors import StudioError
from studio.metrics.backbones import ClipBackbone, load_clip
from studio.rewards.config import Aesthetic, ClipAlignment

AESTHETIC_WIDTHS = (1024, 128, 64, 16, 1)
"""Layers of the LAION predictor; the dropout between them does nothing when it judges."""


class AlignmentReward:
    """Cosine of picture and prompt."""

    def __init__(self, clip: ClipBackbone) -> None:
        self._clip = clip
        self._texts: dict[str, Tensor] = {}

    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Cosines in [-1, 1]; texts are encoded once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            with torch.no_grad():
                self._texts |= dict(zip(new, self._clip.texts(new), strict=True))
        texts = torch.stack([self._texts[prompt] for prompt in prompts])
        return (self._clip(images.to(texts.device)) * texts).sum(1)


class AestheticReward:
    """The LAION aesthetic predictor (Schuhmann 2022, improved-aesthetic-predictor)."""

    def __init__(self, clip: ClipBackbone, head: nn.Module) -> None:
        self._clip, self._head = clip, head

    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Scores of about 1 to 10."""
        del prompts
        return self._head(self._clip(images.to(self._clip.mean.device)))[:, 0]


def aesthetic_head(width: int) -> nn.Sequential:
    """The predictor's linear layers, numbered as in the published weights (2, 4 and 6 were dropout)."""
    widths = (width, *AESTHETIC_WIDTHS)
    head = nn.Sequential()
    for index, (inner, outer) in zip((0, 2, 4, 6, 7), itertools.pairwise(widths), strict=True):
        head.add_module(str(index), nn.Linear(inner, outer))
    return head


def load_alignment(settings: ClipAlignment, device: torch.device | str) -> AlignmentReward:
    """The reward with its judge."""
    return AlignmentReward(load_clip(settings.backbone.model, settings.backbone.pretrained, device))


def load_aesthetic(settings: Aesthetic, device: torch.device | str) -> AestheticReward:
    """The reward with its judge and its head.

    Raises:
        StudioError: The file is not there, or does not hold such a head.
    """
    path = Path(settings.weights).expanduser()
    if not path.is_file():
        raise StudioError(
            f"There is no file {settings.weights!r}; download sac+logos+ava1-l14-linearMSE.pth of "
            "github.com/christophschuhmann/improved-aesthetic-predictor and name it as the reward's weights.",
            field="weights",
        )
    values = (
        load_file(path)
        if path.suffix == ".safetensors"
        else torch.load(path, map_location="cpu", weights_only=True)
    )
    values = {key.removeprefix("layers."): value for key, value in values.items()}
    head = aesthetic_head(values["0.weight"].shape[1] if "0.weight" in values else 768)
    if head.state_dict().keys() != values.keys():
        raise StudioError(
            f"{settings.weights!r} does not hold an aesthetic head (layers 0, 2, 4, 6 and 7).",
            field="weights",
        )
    head.load_state_dict(values)
    clip = load_clip(settings.backbone.model, settings.backbone.pretrained, device)
    return AestheticReward(clip, head.to(device).float().eval().requires_grad_(False))
