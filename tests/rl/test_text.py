"""Captions as a policy: sums by hand, baselines, and a bandit that learns to be found."""

import math

import pytest
import torch

from studio.rl.advantages import over_rollout
from studio.rl.text import RunningMean, caption_logp, distinct, divergence, entropy, found


def test_log_probability_is_the_sum_over_tokens_up_to_the_end():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    tokens, mask = (
        torch.tensor([[1, 2, 4], [3, 4, 4]]),
        torch.tensor([[True, True, True], [True, True, False]]),
    )
    by_hand = [
        sum(math.log(float(logits[b, j, tokens[b, j]].exp() / logits[b, j].exp().sum())) for j in range(n))
        for b, n in ((0, 3), (1, 2))
    ]
    assert caption_logp(logits, tokens, mask).tolist() == pytest.approx(by_hand, abs=1e-5)


def test_the_divergence_from_itself_is_zero_and_from_another_positive():
    logits, other = torch.randn(2, 2, 3, 7, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert divergence(logits, logits, mask).abs().max() < 1e-6
    assert (divergence(logits, other, mask) > 0).all()


def test_entropy_of_even_words_is_the_logarithm_of_their_number():
    mask = torch.tensor([[True, True, False]])
    assert float(entropy(torch.zeros(1, 3, 8), mask)) == pytest.approx(2 * math.log(8), rel=1e-5)


def test_the_reward_is_largest_where_the_caption_is_the_picture():
    images = torch.eye(4)
    target = torch.tensor([2])
    rewards = [float(found(text[None], images, target, 10.0)) for text in images]
    assert max(rewards) == rewards[2]
    assert rewards[2] > -1e-3


def test_the_reward_gives_the_pictures_no_gradient_where_it_is_frozen():
    weight = torch.eye(3).requires_grad_()
    with torch.no_grad():
        rewards = found(torch.eye(3), weight, torch.arange(3), 1.0)
    logits = torch.zeros(3, 2, requires_grad=True)
    (-rewards * logits.log_softmax(-1)[:, 0]).mean().backward()
    assert weight.grad is None
    assert logits.grad is not None


def test_equal_rewards_teach_nothing():
    rewards = torch.full((4,), -1.5)
    mean = RunningMean()
    first = mean(rewards)
    mean.seen(rewards)
    assert first.abs().max() == 0
    assert mean(rewards).abs().max() < 1e-6
    assert over_rollout(rewards).abs().max() == 0


def test_the_running_mean_is_over_what_was_seen_and_survives():
    mean = RunningMean()
    mean.seen(torch.tensor([1.0, 3.0]))
    mean.seen(torch.tensor([8.0]))
    again = RunningMean()
    again.load_state(mean.state())
    assert again(torch.tensor([5.0])).tolist() == [1.0]


def test_a_bandit_of_two_captions_learns_the_one_that_is_found():
    images, captions = torch.eye(2), torch.eye(2)
    policy = torch.zeros(2, 2, requires_grad=True)  # picture to caption
    generator, mean = torch.Generator().manual_seed(0), RunningMean()
    optimizer = torch.optim.SGD([policy], lr=0.5)
    for _ in range(100):
        chosen = torch.multinomial(policy.detach().softmax(-1), 1, generator=generator)
        rewards = found(captions[chosen[:, 0]], images, torch.arange(2), 5.0)
        logp = caption_logp(policy[:, None], chosen, torch.ones(2, 1, dtype=torch.bool))
        advantages = mean(rewards)
        mean.seen(rewards)
        optimizer.zero_grad()
        (-advantages * logp).mean().backward()
        optimizer.step()
    assert policy.softmax(-1).diagonal().min() > 0.9


def test_distinct_words_and_pairs_are_shares():
    assert distinct(["a fox", "a fox"], 1) == 0.5
    assert distinct(["a fox on red"], 2) == 1
    assert distinct(["fox"], 2) == 0
