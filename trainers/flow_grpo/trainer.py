"""Flow-GRPO: Training Flow Matching Models via Online RL.

Liu, Liu, Liang, Li, Liu, Wang, Wan, Zhang, Ouyang, NeurIPS 2025, arXiv 2505.05470.

    x_{t+dt} = x_t + [ v + s_t^2 / (2t) (x_t + (1 - t) v) ] dt + s_t sqrt(dt) z,   s_t = a sqrt(t / (1 - t))    (eq. 9)
    A_i = (r_i - mean of its group) / spread                                                                   (eq. 4)
    L = mean [ max(-A ratio, -A clip(ratio)) + beta KL(p_theta || p_ref) ]                                     (eq. 5)

over the transitions of pictures that were drawn in few steps; the deployed sampler takes more, without noise.

Departures from the official code: the divergence divides by the true variance of a step, s_t^2 |dt|, where the code
leaves |dt| out: its weights of 0.01 to 0.04 are to be multiplied by the mean |dt|, about 1 / steps. Which sampler steps
are not learned from is drawn at random, not always the last. Pictures of groups that all score the same have no
advantage and stay in the mean (`flat_groups` tells their share). The moving average follows every step.
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
