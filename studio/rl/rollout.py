"""Pictures drawn by the policy, with everything needed to learn from them.

Axes: `b` pictures, `n` sampler steps, `m` = n + 1 latents of a chain, `c h w` latent, `H W` image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.diffusion.prediction import expand
from studio.diffusion.sampling import log_probability
from studio.models.draw import start_noise
from studio.rl.policy import Policy
from studio.rl.stepper import MIN_STD


@dataclass(frozen=True)
class Rollout:
    """Chains of latents from noise to picture, on the CPU.

    Attributes:
        chain: Latents before the first step, after it, and so on.
        logp: Log-probability of each step under the policy that took it (mean over elements).
        prompts, seeds: Of each picture.
        advantages: Of each picture; zeros until it was scored.
    """

    chain: Float[Tensor, "b m c h w"]
    logp: Float[Tensor, "b n"]
    prompts: list[str]
    seeds: list[int]
    advantages: Float[Tensor, " b"]

    def state(self) -> dict[str, Any]:
        """Everything, for a checkpoint in the middle of a rollout."""
        return dict(vars(self))


@torch.no_grad()
def roll_out(
    policy: Policy, prompts: Sequence[str], seeds: Sequence[int], *, size: int = 0, chunk: int = 8
) -> Iterator[tuple[Rollout, Float[Tensor, "b C H W"]]]:
    """Draw pictures, a part of at most `chunk` at a time: their chains, and the images in [-1, 1].

    A picture is a function of its seed, whatever is drawn beside it.
    """
    for first in range(0, len(prompts), chunk):
        part = slice(first, first + chunk)
        yield _part(policy, list(prompts[part]), list(seeds[part]), size or policy.family.default_size)


@torch.no_grad()
def _part(policy: Policy, prompts: list[str], seeds: list[int], size: int) -> tuple[Rollout, Tensor]:
    family = policy.family
    device = family.backend.device
    noise, generators = start_noise(family, seeds, size, size)
    with family.backend.autocast():
        conditions = policy.conditions(prompts)
    x, chain, logps = noise.to(device), [noise], []
    for index in range(len(policy.stepper.times)):
        k = torch.full((len(prompts),), index, device=device)
        with family.backend.autocast():
            mean, std = policy.gaussian(x, k, conditions)
        z = torch.stack([torch.randn(noise.shape[1:], generator=one) for one in generators]).to(device)
        std = torch.where(std >= MIN_STD, std, torch.zeros_like(std))
        x = mean + expand(std, mean) * z
        chain.append(x.cpu())
        logps.append(log_probability(x, mean, std.clamp_min(MIN_STD)).cpu())
    rollout = Rollout(torch.stack(chain, 1), torch.stack(logps, 1), prompts, seeds, torch.zeros(len(prompts)))
    return rollout, family.decode(x)


def joined(parts: Sequence[Rollout], advantages: Float[Tensor, " b"]) -> Rollout:
    """Parts as one rollout, with the advantage of each picture."""
    return Rollout(
        torch.cat([part.chain for part in parts]),
        torch.cat([part.logp for part in parts]),
        [prompt for part in parts for prompt in part.prompts],
        [seed for part in parts for seed in part.seeds],
        advantages.cpu(),
    )
