"""Advantages: how much better a picture did than was to be expected.

Axes: `b` pictures.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from studio.catalog import outside
from studio.errors import RunFailed
from studio.rl.config import Advantage, GroupAdvantage, PromptAdvantage, RolloutAdvantage
from studio.settings.custom import Custom

STD_FLOOR = 1e-6
"""Rewards that differ by less count as equal: all their advantages are 0. The official codes add 1e-8 (rollout), 1e-6 (prompt)
or 1e-4 (group) to the spread in its place."""


def standardize(
    rewards: Float[Tensor, " b"], mean: Float[Tensor, "*a"], std: Float[Tensor, "*a"]
) -> Float[Tensor, " b"]:
    """Rewards in standard deviations from a mean; 0 where there is no spread."""
    return torch.where(
        std > STD_FLOOR, (rewards - mean) / std.clamp_min(STD_FLOOR), torch.zeros_like(rewards)
    )


def over_rollout(rewards: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Rewards standardized over all pictures."""
    return standardize(rewards, rewards.mean(), rewards.std(correction=0))


def over_groups(
    rewards: Float[Tensor, " b"], prompts: Sequence[str], *, own_std: bool = False
) -> Float[Tensor, " b"]:
    """Rewards less their prompt's mean, over the spread of all rewards of the rollout or of the prompt's own (GRPO).

    The first is `global_std` of Flow-GRPO's code, its default: prompts center, and all rewards as they are give the spread.
    The second is eq. 4 of its paper.
    """
    mean, own = torch.empty_like(rewards), torch.empty_like(rewards)
    for prompt in dict.fromkeys(prompts):
        rows = torch.tensor([p == prompt for p in prompts], device=rewards.device)
        mean[rows], own[rows] = rewards[rows].mean(), rewards[rows].std(correction=0)
    std = own if own_std else rewards.std(correction=0).expand_as(rewards)
    return standardize(rewards, mean, std)


def flat_groups(rewards: Float[Tensor, " b"], prompts: Sequence[str]) -> float:
    """Share of prompts whose pictures all score the same, so that nothing is learned from them."""
    groups = [
        rewards[torch.tensor([p == prompt for p in prompts], device=rewards.device)]
        for prompt in dict.fromkeys(prompts)
    ]
    return sum(float(group.std(correction=0)) <= STD_FLOOR for group in groups) / len(groups)


class PromptStatistics:
    """The recent rewards of each prompt (DDPO, section 4.4)."""

    def __init__(self, size: int, min_count: int) -> None:
        """Remember `size` rewards a prompt; use them from `min_count` on."""
        self._size, self._min_count = size, min_count
        self._seen: dict[str, deque[float]] = {}

    def __call__(self, rewards: Float[Tensor, " b"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Remember the rewards, then standardize them."""
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            self._seen.setdefault(prompt, deque(maxlen=self._size)).append(reward)
        advantages = over_rollout(rewards)
        for prompt in dict.fromkeys(prompts):
            if len(self._seen[prompt]) < self._min_count:
                continue
            rows = torch.tensor([p == prompt for p in prompts], device=rewards.device)
            own = rewards.new_tensor(list(self._seen[prompt]))
            advantages[rows] = standardize(rewards[rows], own.mean(), own.std(correction=0))
        return advantages

    def state(self) -> dict[str, Any]:
        """The rewards by prompt."""
        return {prompt: list(rewards) for prompt, rewards in self._seen.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self._seen = {prompt: deque(rewards, maxlen=self._size) for prompt, rewards in state.items()}


def advantages(
    kind: Advantage, rewards: Float[Tensor, " b"], prompts: Sequence[str], memory: PromptStatistics
) -> Float[Tensor, " b"]:
    """The advantage of each picture; only the statistics by prompt use the memory."""
    match kind:
        case RolloutAdvantage():
            return over_rollout(rewards)
        case PromptAdvantage():
            return memory(rewards, prompts)
        case GroupAdvantage(std=std):
            return over_groups(rewards, prompts, own_std=std == "group")
        case Custom():
            return _own(kind, rewards, prompts)
        case _:
            assert_never(kind)


def _own(custom: Custom, rewards: Float[Tensor, " b"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
    """Advantages by the person's own code.

    Raises:
        RunFailed: It gave something else than one finite number a picture.
    """
    found = outside.made(custom, what="Advantage", field="advantage")(rewards.clone(), list(prompts))
    given = torch.as_tensor(found, dtype=rewards.dtype, device=rewards.device)
    if given.shape != rewards.shape or not bool(torch.isfinite(given).all()):
        fault = (
            "numbers that are not finite"
            if given.shape == rewards.shape
            else f"the shape {tuple(given.shape)}"
        )
        raise RunFailed(
            f"Advantage {custom.path!r} gave {fault}; it must give one finite number a picture, ({len(rewards)},)."
        )
    return given
