"""TexForce: Enhancing Diffusion Models with Text-Encoder Reinforcement Learning.

Chen, Wang, Wu, Hou, Liao, Sun, Yan, Lin, ECCV 2024, arXiv 2311.15657.

    max_phi E_{x_0 ~ p(x_0 | tau_phi(s))} [ R(x_0, s) ]

by the clipped policy gradient of the denoising chain (as DDPO), where only the text encoder tau_phi moves, through
LoRA. The gradient of every step's log-probability runs through the frozen denoiser into the text embedding.

Departures from the official code: gradients are averaged over processes; the ratio's log-probabilities come from
the same weights, precision and mode as the rollout's; the unconditional embedding may be kept (`freeze_uncond`); a
run ends when the embeddings drift too far (`min_similarity`); T5 never trains.
"""

from collections.abc import Iterator, Mapping

from torch import nn
from typing_extensions import override

from studio.adapters.config import Adapter
from studio.backend.core import Backend
from studio.batch import Batch
from studio.errors import StudioError
from studio.models.base import Family
from studio.rl.learner import PolicyGradient
from studio.rl.policy import Policy
from studio.rl.trainer import ReinforcedTrainer
from studio.rl.watch import Similarity
from trainers.texforce.config import TexForce

NUM_WATCHED = 16
"""Prompts whose embeddings are watched."""


class TexForceTrainer(ReinforcedTrainer):
    """The policy gradient of the text encoders."""

    def __init__(self, config: TexForce) -> None:
        """Keep the settings."""
        super().__init__(config)
        self.config = config

    @override
    def modules(self, family: Family) -> dict[str, nn.Module]:
        found = {key: m for key, m in family.text_encoders.items() if "CLIP" in type(m).__name__}
        if not found:
            raise StudioError(f"{family.name} has no CLIP text encoder to train.", field="model")
        return found

    @override
    def adapter(self) -> Adapter:
        return self.config.adapter

    @override
    def learns(self, trained: Mapping[str, nn.Module], backend: Backend) -> PolicyGradient:
        config = self.config
        policy = Policy(self.family, trained, config.rollouts, freeze_uncond=config.freeze_uncond)
        similarity = Similarity(self.family, trained, self._prompts[:NUM_WATCHED])
        return PolicyGradient(config, policy, backend, similarity)

    @override
    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        return self.learner.batches(data, first, min_similarity=self.config.min_similarity)
