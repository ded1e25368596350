"""TexForce: Enhancing Diffusion Models with Text-Encoder Reinforcement Learning.

Chen, Wang, Wu, Hou, Liao, Sun, Yan, Lin, ECCV 2024, arXiv 2311.15657.

    max_phi E_{x_0 ~ p(x_0 | tau_phi(s))} [ R(x_0, s) ]

by the clipped policy gradient of the denoising chain (as DDPO), where only the text encoder tau_phi moves, through
LoRA. The gradient of every step's log-probability runs through the frozen denoiser into the text embedding.

As in the published commands, rewards are compared with the recent ones of their prompt (of up to 32, once there are 16;
before, with the rollout's), and half of each picture's sampler steps are learned from.

Departures from the official code: gradients are averaged over processes; the ratio's log-probabilities come from
the same weights, precision and mode as the rollout's; rewards are scored in batches; rewards that differ by less than 1e-6
count as equal, where the code adds that to the spread; every prompt is drawn before one is drawn again, where the code draws
them at random; the unconditional embedding may be kept (`freeze_uncond`); a run ends when the embeddings drift too far
(`min_similarity`); T5 never trains.
"""

from collections.abc import Mapping

from torch import nn
from typing_extensions import override

from studio.backend.core import Backend
from studio.models.base import Family
from studio.rl.learner import PolicyGradient
from studio.rl.policy import Policy
from studio.rl.trainer import ReinforcedTrainer, part_of
from studio.rl.watch import Drift
from trainers.texforce.config import TexForce


class TexForceTrainer(ReinforcedTrainer[TexForce]):
    """The policy gradient of the text encoders."""

    @override
    def modules(self, family: Family) -> dict[str, nn.Module]:
        return part_of(family, "text-encoder")

    @override
    def learns(self, trained: Mapping[str, nn.Module], backend: Backend) -> PolicyGradient:
        config = self.config
        policy = Policy(self.family, trained, config.rollouts, freeze_uncond=config.freeze_uncond)
        drift = Drift(self.family, trained, self._prompts, config.min_similarity)
        return PolicyGradient(config, policy, backend, self.judges, drift)
