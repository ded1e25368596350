"""DDPO: Training Diffusion Models with Reinforcement Learning.

Black, Janner, Du, Kostrikov, Levine, ICLR 2024, arXiv 2305.13301.

    grad J = E[ sum_t p_theta(x_{t-1} | x_t, c) / p_old(x_{t-1} | x_t, c) grad log p_theta(x_{t-1} | x_t, c) r(x_0, c) ]

clipped as PPO (section 4.3, importance sampling), with the denoiser as the policy. `ppo.clip` so large that it never
binds, with one update a rollout, is the paper's score function estimator.

Departures from the official code: rewards that differ by less than 1e-6 count as equal, where it adds that to the spread;
every prompt is drawn before one is drawn again, where it draws them at random, and prompts and seeds are a function of the
seed and the rollout; the last step of a sampler that ends without noise cannot be learned from (`ppo.last_step`), where the
code ends at the first level of the schedule. The divergence is ours (`kl_weight` 0 by default): that of the true spread of a
step (see `gaussian_kl`).
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
from trainers.ddpo.config import Ddpo


class DdpoTrainer(ReinforcedTrainer[Ddpo]):
    """The policy gradient of the denoiser."""

    @override
    def modules(self, family: Family) -> dict[str, nn.Module]:
        return part_of(family, "denoiser")

    @override
    def learns(self, trained: Mapping[str, nn.Module], backend: Backend) -> PolicyGradient:
        policy = Policy(self.family, trained, self.config.rollouts)
        drift = Drift(self.family, trained, self._prompts)
        return PolicyGradient(self.config, policy, backend, self.judges, drift)
