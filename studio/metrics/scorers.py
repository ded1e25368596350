"""One number a picture, higher is better.

Axes: `b` pictures, `r` references, `d` features, `c h w` image.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import kornia
import torch
from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from studio.errors import StudioError
from studio.metrics.features import Judge, TextJudge
from studio.metrics.images import stack, to_tensor

Color = tuple[int, int, int]


@runtime_checkable
class Score(Protocol):
    """What every scorer is."""

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Scores of pictures, each made for its prompt."""
        ...


class LikenessScore:
    """Mean cosine to the references: DINO score and CLIP-I (Ruiz et al. 2022, arXiv 2208.12242, section 4.2)."""

    def __init__(self, judge: Judge, references: Sequence[Image]) -> None:
        if not references:
            raise StudioError(
                "Likeness needs at least one reference picture; give a folder with pictures.", field="data"
            )
        self._judge = judge
        self._references = judge.pictures(references)

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Cosines in [-1, 1], averaged over the references."""
        del prompts
        return (self._judge.pictures(images) @ self._references.T).mean(dim=1)


class TargetScore:
    """Cosine to the true picture of the same prompt."""

    def __init__(self, judge: Judge, targets: Mapping[str, Image]) -> None:
        self._judge, self._targets = judge, targets

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Cosines in [-1, 1]."""
        truth = self._judge.pictures(targets_of(prompts, self._targets))
        return (self._judge.pictures(images) * truth).sum(dim=1)


class PixelScore:
    """Minus the mean absolute difference to the true picture, in 8-bit levels, at the drawn picture's size."""

    def __init__(self, targets: Mapping[str, Image]) -> None:
        self._targets = targets

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """0 for the true picture, at worst -255."""
        truths = targets_of(prompts, self._targets)
        return torch.stack([-self._distance(a, b) for a, b in zip(images, truths, strict=True)])

    @staticmethod
    def _distance(image: Image, truth: Image) -> Tensor:
        size = min(image.size)
        return (stack([image], size) - stack([truth], size)).abs().mean() * 127.5


class PromptScore:
    """Cosine of picture and prompt: CLIP-T (arXiv 2208.12242, section 4.2).

    Words in `silent` (the subject's token) are left out of the text, since a judge cannot know them.
    """

    def __init__(self, judge: TextJudge, silent: Sequence[str] = ()) -> None:
        self._judge, self._silent = judge, [word for word in silent if word]

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Cosines in [-1, 1]."""
        texts = self._judge.texts([without(prompt, self._silent) for prompt in prompts])
        return (self._judge.pictures(images) * texts).sum(dim=1)


class BackgroundScore:
    """Whether the corners have the plain color that the prompt names.

    The median color of the four corner patches is compared with all named colors in CIE Lab, where equal
    distances look equally different.
    """

    def __init__(self, colors: Mapping[str, Color], patch: float = 0.125) -> None:
        self._names, self._patch = list(colors), patch
        self._lab = _lab(torch.tensor(list(colors.values()), dtype=torch.float32).reshape(-1, 3) / 255)

    def asked(self, prompt: str) -> str:
        """The color in "on a red background"; empty if the prompt names no plain color."""
        found = re.search(r"\b(\w+) background\b(?! with)", prompt)
        return found.group(1) if found and found.group(1) in self._names else ""

    def seen(self, image: Image) -> str:
        """The named color nearest to the picture's corners."""
        pixels = (to_tensor(image) + 1) / 2
        side = max(1, round(min(image.size) * self._patch))
        ends = [slice(None, side), slice(-side, None)]
        patches = [rearrange(pixels[:, y, x], "c h w -> (h w) c") for y in ends for x in ends]
        distance = torch.cdist(_lab(torch.cat(patches).median(dim=0).values[None]), self._lab)
        return self._names[int(distance.argmin())]

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """1 for right, 0 for wrong.

        Raises:
            StudioError: A prompt names no plain color.
        """
        for prompt in prompts:
            if not self.asked(prompt):
                raise StudioError(
                    f"The prompt {prompt!r} names no plain background color; the background check needs "
                    f"'on a COLOR background' with one of {', '.join(self._names)}.",
                    field="prompts",
                )
        right = [
            self.seen(image) == self.asked(prompt) for image, prompt in zip(images, prompts, strict=True)
        ]
        return torch.tensor(right, dtype=torch.float32)


def without(prompt: str, silent: Sequence[str]) -> str:
    """A prompt with some words left out."""
    for word in silent:
        prompt = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)\s*", "", prompt)
    return prompt.strip()


def targets_of(prompts: Sequence[str], targets: Mapping[str, Image]) -> list[Image]:
    """The true picture of each prompt."""
    missing = [prompt for prompt in prompts if prompt not in targets]
    if missing:
        raise StudioError(
            f"The prompt {missing[0]!r} has no target picture; give one or leave it out.", field="prompts"
        )
    return [targets[prompt] for prompt in prompts]


def _lab(colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    return rearrange(kornia.color.rgb_to_lab(rearrange(colors, "n c -> n c 1 1")), "n c 1 1 -> n c")
