"""The policy against its definitions: the divergence by drawing, and an exam that repeats to the bit."""

from pathlib import Path

import pytest
import torch

from studio.backend.core import Backend
from studio.backend.shard import Shard
from studio.catalog import methods
from studio.diffusion.sampling import log_probability
from studio.errors import StudioError
from studio.rewards.config import Brightness, Redness
from studio.rl.advantages import flat_groups
from studio.rl.config import Ppo, Rollouts
from studio.rl.objectives import gaussian_kl
from studio.rl.orders import Draws
from studio.rl.rollout import roll_out
from studio.rl.stepper import Ddim, FlowSde
from studio.rl.watch import diversity
from studio.settings import serial
from studio.settings.run import Hardware
from tests.cases import CASES
from trainers.texforce.config import TexForce
from trainers.texforce.trainer import TexForceTrainer

METHOD = TexForce(
    prompts=("a dog", "a cat"), model="tiny:sd1", reward=Redness(), held_out=Brightness(), ppo=Ppo(fraction=1.0),
    rollouts=Rollouts(images=2, steps=3), min_similarity=0.0,
)  # fmt: skip


def ready() -> TexForceTrainer:
    trainer = TexForceTrainer(METHOD)
    trainer.backend = Backend(Hardware(device="cpu"))
    with trainer.backend.seeded(0):
        trainer.groups = trainer.setup(trainer.backend)
    return trainer


def test_the_divergence_is_what_drawing_estimates():
    trainer = ready()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainer.groups[0].parameters().values():
            p.add_(0.5 * torch.randn(p.shape, generator=generator))
    batch = next(trainer.batches(trainer.source().stream(0, 0, Shard(2, 0, 2)), 0))
    policy, prompts = trainer.learner._policy, batch["prompts"]
    with torch.no_grad():
        mean, std = policy.gaussian(batch["x_t"], batch["k"], policy.conditions(prompts))
        base = policy.base_gaussian(batch["x_t"], batch["k"], prompts)
    exact = gaussian_kl(mean, base, std)
    total = torch.zeros(len(std))
    for _ in range(600):
        x = mean + std[:, None, None, None] * torch.randn(mean.shape, generator=generator)
        total += log_probability(x, mean, std) - log_probability(x, base, std)
    assert float(exact.mean()) > 0
    assert abs(float((total / 600).mean() / exact.mean()) - 1) < 0.05


def test_without_training_the_paired_difference_is_0_to_the_bit():
    trainer = ready()
    first, second = (
        next(roll_out(trainer.learner._policy, ["a dog"] * 4, [1, 2, 3, 4]))[1] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_clean_latents_and_noised_ones_go_round():
    levels = torch.tensor([0.1, 0.5, 0.9, 0.99])
    x0, eps = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    k = torch.arange(3)
    ddim = Ddim(torch.tensor([0.9, 0.5, 0.1]), levels, "eps")
    torch.testing.assert_close(ddim.clean(eps, ddim.noised(x0, eps, k), k), x0, rtol=1e-4, atol=1e-5)
    flow = FlowSde(torch.tensor([1.0, 0.6, 0.3]), torch.tensor([1.0, 0.6, 0.3, 0.0]))
    torch.testing.assert_close(flow.clean(eps - x0, flow.noised(x0, eps, k), k), x0, rtol=1e-4, atol=1e-5)


def test_groups_whose_pictures_score_the_same_are_counted():
    assert flat_groups(torch.tensor([1.0, 1.0, 2.0, 3.0]), ["a", "a", "b", "b"]) == 0.5


def test_draws_start_anywhere_and_a_shard_is_its_rows():
    draws = Draws(["a", "b", "c"])
    straight = draws.stream(0, 0, Shard(4, 0, 4))
    next(straight)
    whole, part = next(straight), next(draws.stream(0, 1, Shard(4, 2, 4)))
    assert part == {key: values[2:] for key, values in whole.items()}


def test_equal_pictures_have_no_diversity():
    same = torch.ones(4, 3, 8, 8)
    mixed = torch.cat([same[:2], torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))])
    assert float(diversity(same, ["a"] * 4)) == 0
    assert float(diversity(mixed, ["a", "b", "a", "b"])) > 0


@pytest.mark.parametrize(
    ("method", "setting"),
    [("flow_grpo", "rollouts.size"), ("draft", "sampler.size"), ("diffusion_dpo", "resolution")],
)
def test_a_size_that_cannot_be_drawn_names_the_setting_that_was_given(
    method: str, setting: str, tmp_path: Path
) -> None:
    values = serial.to_dict(CASES[method](tmp_path))
    card, given = methods.card(method), serial.nest({setting: 60})
    settings = serial.from_dict(card.config, serial.merge(values, given))
    trainer = card.load_trainer()(settings)
    trainer.backend = Backend(Hardware(device="cpu"))
    with pytest.raises(StudioError, match=f"{setting} of 60 px is not a positive multiple of") as refused:
        trainer.setup(trainer.backend)
    assert refused.value.field == setting
