"""The rewards of a run: what is optimized, what is only watched, and what a picture scores on both.

Axes: `b` pictures, `H W` image.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from studio.rewards.build import Terms
from studio.rl.config import Rewarded
from studio.rl.watch import diversity, thumbnails


class Judges:
    """The optimized rewards (`terms`) and the held-out one (`held_out`)."""

    def __init__(self, config: Rewarded, device: torch.device) -> None:
        self.terms = Terms(config.reward, device)
        self.held_out = Terms(config.held_out, device)

    def weighted(self, images: Float[Tensor, "b 3 H W"], prompts: list[str]) -> Float[Tensor, " b"]:
        """The weighted sum of the optimized rewards, each as it is, with its gradient to the pictures."""
        raw = self.terms.graded(images, prompts)
        return raw.new_tensor(list(self.terms.weights.values())) @ raw

    def appraise(self, images: Float[Tensor, "b 3 H W"], prompts: list[str]) -> dict[str, float]:
        """Mean of each reward and of the held-out one, diversity, and as quality the weighted sum of the rewards."""
        means = dict(zip(self.terms.weights, self.terms(images, prompts).mean(1).tolist(), strict=True))
        quality = sum(self.terms.weights[name] * mean for name, mean in means.items())
        return {**means, **self.watch(images, prompts), "quality": quality}

    def watch(self, images: Float[Tensor, "b 3 H W"], prompts: list[str]) -> dict[str, float]:
        """What is not optimized: the held-out reward, if there is one, and diversity."""
        watched = self.held_out(images, prompts).mean(1).tolist()
        spread = float(diversity(thumbnails(images), prompts))
        return {**({"held_out": watched[0]} if watched else {}), "diversity": spread}
