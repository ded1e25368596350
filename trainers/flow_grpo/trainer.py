"""Flow-GRPO: Training Flow Matching Models via Online RL.

Liu, Liu, Liang, Li, Liu, Wang, Wan, Zhang, Ouyang, NeurIPS 2025, arXiv 2505.05470.

    x_{t+dt} = x_t + [ v + s_t^2 / (2t) (x_t + (1 - t) v) ] dt + s_t sqrt(dt) z,   s_t = a sqrt(t / (1 - t))    (eq. 9)
    A_i = (r_i - mean of its group) / spread                                                                   (eq. 4)
    L = mean [ max(-A ratio, -A clip(ratio)) + beta KL(p_theta || p_ref) ]                                     (eq. 5)

over the transitions of pictures that were drawn in few steps; the deployed sampler takes more, without noise. As in the
official code, the spread is that of all rewards of the rollout (its `global_std`), and all sampler steps are learned from but
the last, whose noise is the least: of SD3's ten steps it would hold 48 % of the gradient's information.

Departures from the official code: the divergence divides by the true variance of a step, s_t^2 |dt|, where the code
leaves |dt| out: its weights of 0.01 to 0.04 are to be multiplied by the mean |dt|, about 1 / steps. Pictures of groups
that all score the same have no advantage and stay in the mean, where the code takes them out (`flat_groups` tells their
share). Rewards that differ by less than 1e-6 count as equal, where the code adds 1e-4 to the spread. The moving average
follows every step; the code's decay of 0.9 every 8 steps is 0.987 a step. Every prompt is drawn before one is drawn again,
where the code draws them at random. What learns is in the mode and precision of what drew, where the code switches dropout
on and off.
"""

from collections.abc import Mapping

from torch import nn
from typing_extensions import override

from studio.backend.core import Backend
from studio.errors import StudioError
from studio.models.base import Family
from studio.rl.learner import PolicyGradient
from studio.rl.policy import Policy
from studio.rl.trainer import ReinforcedTrainer, part_of
from studio.rl.watch import Drift
from trainers.flow_grpo.config import FlowGrpo


class FlowGrpoTrainer(ReinforcedTrainer[FlowGrpo]):
    """The policy gradient of a flow-matching transformer."""

    @override
    def modules(self, family: Family) -> dict[str, nn.Module]:
        if family.prediction != "flow":
            raise StudioError(
                f"{family.name} predicts {family.prediction}, and Flow-GRPO needs a flow-matching model, such as sd3 or "
                "flux-dev; learn with ddpo.",
                field="model",
            )
        return part_of(family, "denoiser")

    @override
    def learns(self, trained: Mapping[str, nn.Module], backend: Backend) -> PolicyGradient:
        policy = Policy(self.family, trained, self.config.rollouts)
        return PolicyGradient(self.config, policy, backend, self.judges, Drift(self.family, trained, ()))
