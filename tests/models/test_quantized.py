"""Linear layers stored in fewer bits: what they stand for, what they give, what they weigh."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from studio.models.quantized import CODINGS, Quantized, is_quantized, quantize

CPU = torch.device("cpu")
DISTANCE = {"nf4": 0.1, "int8": 0.011, "fp8": 0.04}
"""Of normal weights, relative to their norm, at most."""
BITS = {"nf4": 4.5, "int8": 8.5, "fp8": 8.5}
"""A weight, scales and all, at most, in rows of 64 or more."""


class Blocks(nn.Module):
    """Two blocks, and what stands outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Linear(96, 128), nn.Sequential(nn.GELU(), nn.Linear(128, 96, bias=False))]
        )
        self.last = nn.Linear(96, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.last(x)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Blocks().requires_grad_(False)


@pytest.fixture(params=sorted(CODINGS))
def coding(request):
    return request.param


def test_layers_of_blocks_are_quantized_and_others_are_not(network, coding):
    assert quantize(network, coding, CPU, torch.float32) == 2
    assert isinstance(network.blocks[0], Quantized)
    assert isinstance(network.blocks[1][1], Quantized)
    assert type(network.last) is nn.Linear
    assert is_quantized([network])


def test_weights_are_near_and_small(network, coding):
    weight = network.blocks[0].weight.clone()
    quantize(network, coding, CPU, torch.float32)
    layer = network.blocks[0]
    assert (layer.weight - weight).norm() / weight.norm() < DISTANCE[coding]
    held = sum(each.numel() * each.element_size() for each in (layer.codes, layer.scales))
    assert held * 8 / weight.numel() <= BITS[coding]


def test_output_and_gradient_are_those_of_the_weights_that_codes_stand_for(network, coding):
    plain = copy.deepcopy(network)
    quantize(network, coding, CPU, torch.float32)
    for name in ("blocks.0", "blocks.1.1"):
        plain.get_submodule(name).weight = nn.Parameter(network.get_submodule(name).weight)
    x = torch.randn(5, 96, requires_grad=True)
    said, expected = network(x), plain(x)
    torch.testing.assert_close(said, expected)
    torch.testing.assert_close(torch.autograd.grad(said.sum(), x), torch.autograd.grad(expected.sum(), x))


def test_the_backward_pass_keeps_codes_and_no_weights(network, coding):
    quantize(network, coding, CPU, torch.float32)
    x = torch.randn(5, 96, requires_grad=True)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda each: kept.append(each.shape) or each, lambda each: each
    ):
        network.blocks[0](x)
    assert torch.Size((128, 96)) not in kept or coding != "nf4"
    assert (
        sum(shape.numel() for shape in kept)
        <= network.blocks[0].codes.numel() + network.blocks[0].scales.numel()
    )


def test_no_cast_touches_codes_or_scales(network, coding):
    quantize(network, coding, CPU, torch.float32)
    before = network.blocks[0].weight
    network.to(torch.bfloat16).to(torch.float32)
    assert torch.equal(network.blocks[0].weight, before)


def test_autocast_decides_the_type(network, coding):
    quantize(network, coding, CPU, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.blocks[0](torch.randn(2, 96)).dtype == torch.bfloat16


def test_a_row_of_zeros_stays_zero(network, coding):
    layer: Any = network.blocks[0]
    layer.weight.data[3] = 0
    quantize(network, coding, CPU, torch.float32)
    assert network.blocks[0].weight[3].abs().max() == 0
