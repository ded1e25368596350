"""Noise processes and conversions between predictions."""

import math

import pytest
import torch

from studio.backend.rng import Rng
from studio.diffusion.config import LogitNormalTimes, ModeTimes, NativeTimes, UniformTimes
from studio.diffusion.prediction import combine, to_eps, to_x0
from studio.diffusion.process import Discrete, Flow

KINDS = ("eps", "v", "flow", "x0")


def linear_chain(*, zero_snr=False):
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
    if zero_snr:
        alphas[-1] = 0
    return Discrete(alphas)


PROCESSES = {"discrete": linear_chain(), "flow": Flow(3.0)}


def example(seed=0, b=3):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(b, 2, 4, 4, generator=noise), torch.randn(b, 2, 4, 4, generator=noise)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_goes_to_x0_and_eps_and_back(name, kind):
    process, t = PROCESSES[name], torch.tensor([0.1, 0.5, 0.8])
    x0, eps = example()
    x_t = process.add_noise(x0, eps, t)
    target = process.target(x0, eps, t, kind)
    torch.testing.assert_close(process.x0(target, x_t, t, kind), x0, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(process.eps(target, x_t, t, kind), eps, atol=2e-4, rtol=1e-4)


def test_conversions_follow_the_formulas_written_out_for_one_number():
    alpha, sigma, x0, eps = 0.8, 0.6, 1.5, -0.7
    x_t = alpha * x0 + sigma * eps
    one = {"alpha": torch.tensor([alpha]), "sigma": torch.tensor([sigma])}
    written = {"eps": eps, "v": alpha * eps - sigma * x0, "flow": eps - x0, "x0": x0}
    for kind, value in written.items():
        prediction, noisy = torch.tensor([[value]]), torch.tensor([[x_t]])
        assert to_x0(prediction, noisy, kind=kind, **one).item() == pytest.approx(x0, abs=1e-5)
        assert to_eps(prediction, noisy, kind=kind, **one).item() == pytest.approx(eps, abs=1e-5)
        made = combine(torch.tensor([[x0]]), torch.tensor([[eps]]), kind=kind, **one)
        assert made.item() == pytest.approx(value, abs=1e-6)


def test_discrete_times_lie_on_the_grid_of_timesteps():
    t = linear_chain().sample_times(Rng.single(0, 0, 200), 200)
    assert torch.equal((t * 1000).round() / 1000, t)
    assert t.min() >= 0
    assert t.max() <= 0.999


def test_discrete_alpha_and_sigma_have_unit_power():
    t = torch.linspace(0, 1, 11)
    process = linear_chain()
    torch.testing.assert_close(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones(11))


def test_flow_alpha_and_sigma_add_up_to_one():
    t = torch.linspace(0, 1, 11)
    torch.testing.assert_close(Flow().alpha(t) + Flow().sigma(t), torch.ones(11))


def test_zero_terminal_snr_leaves_v_well_defined_at_the_end():
    process, t = linear_chain(zero_snr=True), torch.ones(3)
    x0, eps = example()
    assert torch.equal(process.snr(t), torch.zeros(3))
    assert torch.equal(process.target(x0, eps, t, "v"), -x0)
    torch.testing.assert_close(process.x0(-x0, eps, t, "v"), x0)


def test_shift_moves_flow_times_towards_noise_by_the_papers_formula():
    plain = Flow(1.0).sample_times(Rng.single(1, 0, 50), 50, UniformTimes())
    moved = Flow(3.0).sample_times(Rng.single(1, 0, 50), 50, UniformTimes())
    for u, t in zip(plain.tolist(), moved.tolist(), strict=True):
        assert t == pytest.approx(3 * u / (1 + 2 * u), abs=2e-3)


def test_logit_normal_times_are_the_logistic_function_of_normal_numbers():
    times = LogitNormalTimes(mean=0.5, std=0.7)
    t = Flow().sample_times(Rng.single(2, 0, 20), 20, times)
    for z, value in zip(Rng.single(2, 0, 20).normal(20).tolist(), t.tolist(), strict=True):
        assert value == pytest.approx(max(1e-3, 1 / (1 + math.exp(-(0.5 + 0.7 * z)))), abs=1e-5)


def test_mode_times_at_scale_zero_are_uniform_reversed():
    t = Flow().sample_times(Rng.single(3, 0, 20), 20, ModeTimes(scale=0))
    torch.testing.assert_close(t, (1 - Rng.single(3, 0, 20).uniform(20)).clamp_min(1e-3))


def test_mode_times_prefer_the_middle():
    t = Flow().sample_times(Rng.single(3, 0, 4000), 4000, ModeTimes(scale=1.29))
    assert ((t > 0.25) & (t < 0.75)).float().mean() > 0.55


@pytest.mark.parametrize("name", PROCESSES)
def test_times_of_a_shard_are_rows_of_the_whole_batchs_times(name):
    whole = PROCESSES[name].sample_times(Rng.single(7, 3, 8), 8, NativeTimes())
    half = PROCESSES[name].sample_times(Rng(7, 3, total=8, start=4, stop=8), 4, NativeTimes())
    assert torch.equal(whole[4:], half)
