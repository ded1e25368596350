"""Captions as a policy: log-probabilities of tokens, divergence, entropy, and the reward of being found.

    Dessi et al., 2023, "Cross-Domain Image Captioning with Discriminative Finetuning", arXiv 2304.01662

Axes: `b` captions, `n` candidate pictures, `l` tokens, `v` vocabulary, `d` features.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor


def caption_logp(
    logits: Float[Tensor, "b l v"], tokens: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]
) -> Float[Tensor, " b"]:
    """Log-probability of each caption: the sum over its tokens, its end included."""
    each = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return (each * mask).sum(1)


def divergence(
    logits: Float[Tensor, "b l v"], reference: Float[Tensor, "b l v"], mask: Bool[Tensor, "b l"]
) -> Float[Tensor, " b"]:
    """KL(policy || reference), exact over the vocabulary at each written token, summed over the caption."""
    own = logits.log_softmax(-1)
    return ((own.exp() * (own - reference.log_softmax(-1))).sum(-1) * mask).sum(1)


def entropy(logits: Float[Tensor, "b l v"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Entropy of the policy at each written token, summed over the caption."""
    own = logits.log_softmax(-1)
    return (-(own.exp() * own).sum(-1) * mask).sum(1)


def found(
    texts: Float[Tensor, "b d"], images: Float[Tensor, "n d"], target: Int[Tensor, " b"], scale: float
) -> Float[Tensor, " b"]:
    """Reward of a caption: log softmax over the candidates of scale * cosine, at its own picture (section 3).

    Features are of unit length; scale 1 is the raw cosine of the authors' code; a CLIP has one of its own.
    """
    return (scale * texts @ images.mT).log_softmax(1).gather(1, target[:, None]).squeeze(1)


def distinct(texts: Sequence[str], size: int) -> float:
    """Share of word n-grams that are different: Li et al. 2016, arXiv 1510.03055; 0 where there are none."""
    grams = [
        tuple(words[place : place + size])
        for words in (text.split() for text in texts)
        for place in range(len(words) - size + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


class RunningMean:
    """The mean of all rewards so far, as a baseline; of the first ones it is their own mean."""

    def __init__(self) -> None:
        """Nothing seen."""
        self._sum, self._count = 0.0, 0

    def __call__(self, rewards: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Rewards less the mean of those before."""
        return rewards - (self._sum / self._count if self._count else rewards.mean())

    def seen(self, rewards: Float[Tensor, " b"]) -> None:
        """Count these rewards."""
        self._sum, self._count = self._sum + float(rewards.double().sum()), self._count + len(rewards)

    def state(self) -> dict[str, Any]:
        """Sum and count."""
        return {"sum": self._sum, "count": self._count}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self._sum, self._count = state["sum"], state["count"]
