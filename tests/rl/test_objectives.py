"""Advantages and objectives, against their definitions."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from studio.rl.advantages import PromptStatistics, over_groups, over_rollout
from studio.rl.objectives import gaussian_kl, ppo_clip

REWARDS = torch.tensor([1.0, 2.0, 4.0, 9.0])
PROMPTS = ["a", "a", "b", "b"]


def test_advantages_over_the_rollout_have_mean_0_and_spread_1():
    found = over_rollout(REWARDS)
    assert float(found.mean()) == pytest.approx(0, abs=1e-6)
    assert float(found.std(correction=0)) == pytest.approx(1)


def test_equal_rewards_have_no_advantage():
    equal = torch.full((4,), 3.0)
    for found in (over_rollout(equal), over_groups(equal, PROMPTS), PromptStatistics(8, 2)(equal, PROMPTS)):
        assert torch.equal(found, torch.zeros(4))


def test_groups_by_their_own_spread_do_not_feel_a_constant_of_their_prompt():
    shifted = REWARDS + torch.tensor([5.0, 5.0, -7.0, -7.0])
    torch.testing.assert_close(
        over_groups(REWARDS, PROMPTS, own_std=True), over_groups(shifted, PROMPTS, own_std=True)
    )


def test_groups_by_the_spread_of_the_rollout_are_what_flow_grpos_tracker_gives():
    centered = np.array([-0.5, 0.5, -2.5, 2.5])  # less the mean of the prompt, 1.5 and 6.5
    expected = torch.tensor(centered / np.std(REWARDS.numpy()), dtype=torch.float32)
    torch.testing.assert_close(over_groups(REWARDS, PROMPTS), expected)


def test_the_statistics_of_a_prompt_count_from_min_count_on():
    statistics = PromptStatistics(size=8, min_count=3)
    first = statistics(torch.tensor([1.0, 3.0]), ["a", "a"])
    torch.testing.assert_close(first, over_rollout(torch.tensor([1.0, 3.0])))
    second = statistics(torch.tensor([5.0]), ["a"])
    seen = torch.tensor([1.0, 3.0, 5.0])
    torch.testing.assert_close(second, (5 - seen.mean()).reshape(1) / seen.std(correction=0))


def test_the_statistics_survive_saving():
    one, two = PromptStatistics(2, 1), PromptStatistics(2, 1)
    one(REWARDS, PROMPTS)
    two.load_state(one.state())
    assert torch.equal(one(REWARDS.flip(0), PROMPTS), two(REWARDS.flip(0), PROMPTS))


@pytest.mark.parametrize(("advantage", "moves"), [(1.0, False), (-1.0, True)])
def test_a_ratio_beyond_the_clip_moves_only_against_a_bad_picture(advantage: float, moves: bool):
    logp = torch.tensor([0.01], requires_grad=True)
    ppo_clip(logp, torch.zeros(1), torch.tensor([advantage]), clip=1e-4).sum().backward()
    assert bool(logp.grad.abs().item() > 0) is moves


def test_at_ratio_1_the_gradient_is_minus_the_advantage():
    logp = torch.zeros(3, requires_grad=True)
    advantage = torch.tensor([2.0, -1.0, 0.0])
    ppo_clip(logp, torch.zeros(3), advantage, clip=1e-4).sum().backward()
    torch.testing.assert_close(logp.grad, -advantage)


def test_the_divergence_is_that_of_two_normal_distributions():
    mean, base = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    std = torch.tensor([0.1, 0.5, 1.0])
    wide = std[:, None, None, None].expand_as(mean)
    expected = kl_divergence(Normal(mean, wide), Normal(base, wide)).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_kl(mean, base, std), expected)
    assert torch.equal(gaussian_kl(mean, mean, std), torch.zeros(3))
