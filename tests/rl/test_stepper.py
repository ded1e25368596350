"""Sampler steps as a policy: against torch.distributions, diffusers' sampler, and an exact marginal."""

import re

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Normal

from studio.backend.core import Backend
from studio.diffusion.sampling import log_probability
from studio.errors import StudioError
from studio.models.build import load
from studio.rl.config import Sampler
from studio.rl.stepper import Ddim, FlowSde, learnable, stepper
from studio.settings.run import Hardware

KINDS = {"eps": "epsilon", "v": "v_prediction"}


def sampler(kind: str, *, alpha_to_one: bool = False, steps: int = 8) -> tuple[DDIMScheduler, Ddim]:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        set_alpha_to_one=alpha_to_one, prediction_type=KINDS[kind],
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.long()
    levels = torch.cat([scheduler.alphas_cumprod[times], scheduler.final_alpha_cumprod.reshape(1)])
    return scheduler, Ddim(times / 1000, levels.float(), kind, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_the_step_of_diffusers_without_its_noise(kind: str):
    scheduler, ours = sampler(kind)
    x, prediction = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for k, timestep in enumerate(scheduler.timesteps):
        theirs = scheduler.step(
            prediction, timestep, x, eta=1.0, variance_noise=torch.zeros_like(x)
        ).prev_sample
        mean, std = ours.gaussian(prediction, x, torch.tensor([k]))
        before = int(timestep) - 1000 // len(scheduler.timesteps)
        torch.testing.assert_close(mean, theirs, rtol=1e-4, atol=1e-5)
        assert float(std) == pytest.approx(
            float(scheduler._get_variance(int(timestep), before)) ** 0.5, rel=1e-3
        )


def test_log_probability_is_the_mean_of_the_normal_density():
    mean, x = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    std = torch.tensor([0.02, 0.5, 1.0])
    expected = Normal(mean, std[:, None, None, None]).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(log_probability(x, mean, std), expected)


@pytest.mark.parametrize("noise", [1e-6, 0.7])
def test_the_flow_sampler_keeps_the_marginal_of_a_gaussian(noise: float):
    mean, spread, steps, count = 1.5, 0.5, 200, 20_000
    levels = torch.linspace(1, 0, steps + 1)
    sde = FlowSde(levels[:-1], levels, noise)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 1, count, generator=generator)
    for k in range(steps):
        t = levels[k]
        variance = (1 - t) ** 2 * spread**2 + t**2
        velocity = -mean + (t - (1 - t) * spread**2) / variance * (x - (1 - t) * mean)
        center, std = sde.gaussian(velocity, x, torch.tensor([k]))
        x = center + std * torch.randn(x.shape, generator=generator)
    assert float(x.std()) == pytest.approx(spread, rel=0.02)
    assert float(x.mean()) == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize(("family", "kind"), [("sd1", Ddim), ("sd2", Ddim), ("sd3", FlowSde)])
def test_every_family_has_its_sampler(family: str, kind: type):
    model = load(f"tiny:{family}", Backend(Hardware(device="cpu")))
    found = stepper(model, 4, noise=0.7)
    assert isinstance(found, kind)
    assert len(found.times) == 4
    assert learnable(model, Sampler(steps=4, noise=0.7), last=True) == [0, 1, 2, 3]
    assert learnable(model, Sampler(steps=4, noise=0.7), last=False) == [0, 1, 2]


REFUSED = {
    "no last noise": (Sampler(steps=4, noise=0.7), True),
    "a single step": (Sampler(steps=1), True),
    "too little noise": (Sampler(steps=4, noise=1e-4), False),
    "too many steps": (Sampler(steps=5000), False),
}


@pytest.mark.parametrize("model", ["studio-tiny-dit"])
@pytest.mark.parametrize("sampler", REFUSED.values(), ids=REFUSED)
def test_steps_without_noise_are_refused_with_a_sampler_that_works(model: str, sampler: tuple[Sampler, bool]):
    family = load(model, Backend(Hardware(device="cpu")))
    with pytest.raises(StudioError, match="too little noise to learn from") as error:
        learnable(family, sampler[0], last=sampler[1])
    told = dict(re.findall(r"--rollouts\.(noise|steps) ([\d.]*\d)", str(error.value)))
    better = Sampler(
        **{"steps": sampler[0].steps, "noise": sampler[0].noise} | {k: float(v) for k, v in told.items()}
    )
    assert "--no-ppo.last-step" in str(error.value)
    assert len(learnable(family, better, last=False)) == better.steps - 1
