"""The Cayley transform: exact rotations at any size, its gradient, its series."""

import logging

import pytest
import torch
from torch import nn

from studio.adapters.cayley import (
    cayley,
    largest_angle,
    neumann,
    num_entries,
    orthogonality_error,
    polish,
    skew,
    triangle,
)
from studio.adapters.config import Oft
from studio.adapters.orthogonal import project
from tests.adapters.oft.conftest import toy


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 32, 160])
def test_cayley_is_exact_at_any_size_and_threads(size, threads):
    torch.set_num_threads(threads)
    entries = 0.2 * torch.randn(3, num_entries(size), generator=torch.Generator().manual_seed(0))
    q, eye = skew(entries.double(), size), torch.eye(size, dtype=torch.float64)
    exact = torch.stack([torch.linalg.solve(eye - one, eye + one) for one in q])
    assert (cayley(entries, size) - exact).abs().max() < 5e-6


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_cayley_gradient_is_that_of_finite_differences(size):
    entries = torch.randn(
        2, num_entries(size), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert torch.autograd.gradcheck(lambda e: cayley(e, size), entries.requires_grad_())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [4, 32, 160])
def test_rotation_stays_orthogonal_while_it_learns(size, threads):
    torch.set_num_threads(threads)
    steps = 100 if threads == 1 and size < 160 else 5
    module, losses, _ = toy(Oft(block_size=size, only=("layer",)), width=max(size, 32), steps=steps)
    assert orthogonality_error(module["layer"].rotation.rotations()) < 1e-5
    assert min(losses) < losses[0]


@pytest.mark.parametrize("terms", [4, 5, 6])
def test_neumann_series_is_off_by_the_known_factor(terms):
    entries = 0.1 * torch.randn(3, num_entries(8), generator=torch.Generator().manual_seed(0))
    left_out = torch.linalg.matrix_power(skew(entries, 8), terms - 1)
    expected = cayley(entries, 8) @ (torch.eye(8) - left_out)
    assert (neumann(entries, 8, terms) - expected).abs().max() < 1e-6


def test_neumann_guard_warns_and_keeps_the_series_valid(caplog):
    module, _, _ = toy(Oft(block_size=8, only=("layer",), cayley="neumann"), steps=1)
    rotation = module["layer"].rotation
    nn.init.normal_(rotation.weight, std=1.0, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING):
        project({"model": module})
    assert "too large for the Neumann series" in caplog.text
    assert largest_angle(skew(rotation.weight, 8)).max() <= 0.7 * (1 + 1e-5)


def test_polishing_makes_a_neumann_rotation_orthogonal():
    entries = 0.1 * torch.randn(3, num_entries(8), generator=torch.Generator().manual_seed(0))
    rough = neumann(entries, 8, 5)
    assert orthogonality_error(polish(rough)) < 1e-6 < orthogonality_error(rough)


def test_largest_angle_is_the_spectral_norm():
    q = skew(torch.randn(4, num_entries(8), generator=torch.Generator().manual_seed(0)), 8)
    torch.testing.assert_close(largest_angle(q, 50), torch.linalg.matrix_norm(q, 2), rtol=1e-3, atol=0)


def test_triangle_takes_back_what_skew_made():
    entries = torch.randn(2, num_entries(5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(triangle(skew(entries, 5)), entries)
