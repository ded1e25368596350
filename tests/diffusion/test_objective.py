"""Errors, weights, guidance and single sampling steps, against slow scalar versions."""

import math

import pytest
import torch

from studio.backend.rng import Rng
from studio.diffusion.config import Huber, Mse, SmoothL1
from studio.diffusion.guidance import classifier_free, rescale
from studio.diffusion.objective import latent_mask, min_snr_weight, offset_noise, per_example
from studio.diffusion.sampling import ddim_step, flow_sde_step, log_probability


def pair(seed=0):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 4, generator=noise), torch.randn(2, 3, 4, 4, generator=noise)


SCALAR = {
    "mse": (Mse(), lambda e: e * e),
    "huber": (Huber(delta=0.5), lambda e: 0.5 * e * e if abs(e) <= 0.5 else 0.5 * (abs(e) - 0.25)),
    "smooth_l1": (SmoothL1(beta=0.5), lambda e: e * e if abs(e) < 0.5 else abs(e) - 0.25),
}


@pytest.mark.parametrize("name", SCALAR)
def test_the_error_is_the_mean_of_the_formula_over_an_examples_elements(name):
    error, formula = SCALAR[name]
    a, b = pair()
    found = per_example(a, b, error=error)
    for row in range(2):
        values = [formula(e) for e in (a[row] - b[row]).flatten().tolist()]
        assert found[row].item() == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_a_masked_error_is_the_mean_over_what_the_mask_keeps():
    a, b = pair()
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1
    torch.testing.assert_close(per_example(a, b, mask=mask), per_example(a[:, :, :2], b[:, :, :2]))


def test_an_empty_mask_gives_no_error():
    a, b = pair()
    assert torch.equal(per_example(a, b, mask=torch.zeros(2, 1, 4, 4)), torch.zeros(2))


def test_a_full_mask_changes_nothing():
    a, b = pair()
    torch.testing.assert_close(per_example(a, b, mask=torch.ones(2, 1, 4, 4)), per_example(a, b))


@pytest.mark.parametrize("snr", [0.01, 1.0, 5.0, 300.0])
def test_min_snr_weights_put_the_same_weight_on_the_x0_error(snr):
    gamma, one = 5.0, torch.tensor([snr])
    wanted = min(snr, gamma)
    per_x0 = {"eps": snr, "v": snr + 1, "flow": (1 + math.sqrt(snr)) ** 2, "x0": 1.0}
    for kind, factor in per_x0.items():
        assert min_snr_weight(one, gamma=gamma, kind=kind).item() * factor == pytest.approx(wanted, rel=1e-5)


def test_the_v_weight_is_the_papers_and_not_the_wrong_one_in_circulation():
    weight = min_snr_weight(torch.tensor([10.0]), gamma=5.0, kind="v").item()
    assert weight == pytest.approx(5 / 11)


def test_min_snr_is_finite_at_zero_snr():
    zero = torch.zeros(1)
    assert min_snr_weight(zero, gamma=5.0, kind="eps").item() == 1
    assert min_snr_weight(zero, gamma=5.0, kind="v").item() == 0


def test_offset_noise_of_strength_zero_draws_nothing():
    eps, _ = pair()
    rng = Rng.single(0, 0, 2)
    assert offset_noise(eps, strength=0.0, rng=rng) is eps
    assert torch.equal(rng.normal(2, 1), Rng.single(0, 0, 2).normal(2, 1))


def test_offset_noise_adds_one_number_a_channel():
    eps, _ = pair()
    added = offset_noise(eps, strength=0.1, rng=Rng.single(0, 0, 2)) - eps
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added))


def test_a_latent_mask_holds_shares_of_pixels():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :4, :] = 1
    assert latent_mask(mask, (2, 2)).flatten().tolist() == [0.5, 0.5, 0.0, 0.0]


def test_guidance_of_scale_one_is_the_conditional_prediction():
    cond, uncond = pair()
    torch.testing.assert_close(classifier_free(cond, uncond, 1.0), cond)
    torch.testing.assert_close(classifier_free(cond, uncond, 0.0), uncond)


def test_full_rescale_gives_the_conditional_spread():
    cond, uncond = pair()
    guided = classifier_free(cond, uncond, 7.5)
    torch.testing.assert_close(rescale(guided, cond, 1.0).std((1, 2, 3)), cond.std((1, 2, 3)))
    assert rescale(guided, cond, 0.0) is guided


def levels(alpha, sigma):
    return torch.tensor([alpha] * 2), torch.tensor([sigma] * 2)


def test_a_deterministic_ddim_step_there_and_back_is_the_identity():
    x0, eps = pair()
    low, high = levels(0.9, math.sqrt(1 - 0.81)), levels(0.6, 0.8)
    noisier, _ = ddim_step(x0, eps, now=low, then=high)
    back, std = ddim_step(x0, eps, now=high, then=low)
    torch.testing.assert_close(noisier, 0.6 * x0 + 0.8 * eps)
    torch.testing.assert_close(back, 0.9 * x0 + math.sqrt(0.19) * eps)
    assert torch.equal(std, torch.zeros(2))


def test_ddim_with_eta_one_has_the_variance_written_in_the_paper():
    x0, eps = pair()
    now, then = levels(0.6, 0.8), levels(0.9, math.sqrt(1 - 0.81))
    mean, std = ddim_step(x0, eps, now=now, then=then, eta=1.0)
    variance = (1 - 0.81) / (1 - 0.36) * (1 - 0.36 / 0.81)
    assert std[0].item() == pytest.approx(math.sqrt(variance), rel=1e-5)
    torch.testing.assert_close(mean, 0.9 * x0 + math.sqrt(1 - 0.81 - variance) * eps)


def test_a_flow_step_without_noise_is_eulers():
    x, v = pair()
    t, s = torch.tensor([0.8, 1.0]), torch.tensor([0.5, 0.7])
    mean, std = flow_sde_step(x, v, t=t, s=s, noise=0.0)
    torch.testing.assert_close(mean, x + v * (s - t)[:, None, None, None])
    assert torch.equal(std, torch.zeros(2))


def test_a_noisy_flow_step_follows_the_formula_written_out():
    t, s, a, x, v = 0.8, 0.6, 0.7, 1.3, -0.4
    mean, std = flow_sde_step(
        torch.tensor([[x]]), torch.tensor([[v]]), t=torch.tensor([t]), s=torch.tensor([s]), noise=a
    )
    spread, dt = a * math.sqrt(t / (1 - t)), s - t
    wanted = x * (1 + spread**2 / (2 * t) * dt) + v * (1 + spread**2 * (1 - t) / (2 * t)) * dt
    assert mean.item() == pytest.approx(wanted, rel=1e-5)
    assert std.item() == pytest.approx(spread * math.sqrt(-dt), rel=1e-5)


def test_log_probability_is_the_mean_of_torchs_normal():
    x, mean = pair()
    std = torch.tensor([0.5, 2.0])
    wanted = torch.distributions.Normal(mean, std[:, None, None, None]).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(log_probability(x, mean, std), wanted)
