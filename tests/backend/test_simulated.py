"""The simulated device: places, types and memory as on a GPU, and no values."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from studio.backend.simulated import autocast
from studio.backend.simulated.autocast import EXACT, LOWER, NAME, WIDEST
from studio.backend.simulated.meter import BLOCK
from studio.backend.simulated.mode import machine

ABSENT = {
    "_convolution.deprecated": "TorchScript of before 2021 alone calls it",
    **dict.fromkeys(("_cudnn_rnn", "_thnn_fused_gru_cell", "_thnn_fused_lstm_cell", "gru_cell", "lstm_cell",
                     "rnn_relu_cell", "rnn_tanh_cell"), "no model here is recurrent"),
    **dict.fromkeys(("cudnn_convolution", "cudnn_convolution_transpose"), "below `convolution`, which is cast"),
    "_scaled_dot_product_flash_attention": "below `scaled_dot_product_attention`, which is cast",
    "binary_cross_entropy": "CUDA's autocast refuses it",
    "linalg_matrix_sqrth": "newer than the torch that the project needs, and nothing calls it",
}  # fmt: skip
"""Operators that CUDA's autocast has a kernel for and the device has none, and why."""


@pytest.fixture
def here():
    with machine() as found:
        yield found


def bf16():
    return torch.autocast(NAME, torch.bfloat16)


def test_tensors_on_two_devices_are_refused(here):
    there = torch.ones(2, device=here.device)
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(2)
    with pytest.raises(RuntimeError, match="same device"):
        nn.Linear(2, 2).to(here.device)(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="same device"):
        F.scaled_dot_product_attention(
            *(torch.ones(1, 1, 4, 8, device=d) for d in (here.device, "cpu", here.device))
        )


def test_what_is_read_back_is_one_and_is_counted(here):
    value = torch.zeros(2, 3, device=here.device)
    assert value.sum().item() == 1.0
    assert value.tolist() == [[1.0] * 3] * 2
    assert torch.equal(value.cpu(), torch.ones(2, 3))
    assert here.reads == 3


def test_tensors_on_the_cpu_keep_their_values(here):
    assert (torch.arange(3) * 2).tolist() == [0, 2, 4]
    assert here.reads == 0
    assert here.here.total == 0


def test_a_list_is_a_place_in_a_tensor(here):
    value = torch.zeros(4, 3, device=here.device)
    assert value[[0, 2, 2]].shape == (3, 3)
    assert value.new_tensor([1.0, 2.0]).device.type == NAME
    assert here.reads == 0


def test_a_mask_is_read_and_is_true_everywhere(here):
    value, mask = torch.zeros(4, 3, device=here.device), torch.zeros(4, device=here.device, dtype=torch.bool)
    assert value[mask].shape == (4, 3)
    assert value[value > 0].shape == (12,)
    assert value.nonzero().shape == (12, 2)
    assert here.reads == 3


def test_autocast_multiplies_in_bf16_and_normalizes_in_fp32(here):
    x = torch.ones(2, 4, 8, 8, device=here.device, dtype=torch.bfloat16)
    with bf16():
        assert nn.Linear(8, 8).to(here.device)(x.float()).dtype == torch.bfloat16
        assert nn.Conv2d(4, 4, 3).to(here.device)(x.float()).dtype == torch.bfloat16
        assert nn.LayerNorm(8).to(here.device)(x).dtype == torch.float32
        assert x.softmax(-1).dtype == torch.float32
        assert F.rms_norm(x, (8,)).dtype == torch.float32
        assert F.interpolate(x, scale_factor=2).dtype == torch.float32
        assert torch.addcmul(x, x, x.float()).dtype == torch.float32
        assert (x * x).dtype == torch.bfloat16


def test_autocast_has_the_operators_of_cudas():
    theirs = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA")
    theirs = {name.removeprefix("aten::") for name in theirs if name.startswith("aten::")}
    assert set(LOWER) | set(EXACT) | set(WIDEST) == theirs - set(ABSENT)
    assert len(LOWER + EXACT + WIDEST) == len({*LOWER, *EXACT, *WIDEST})


def test_a_trained_weight_is_cast_once_and_has_its_gradient(here):
    """Also where it was cast first without one, as in sampler steps before those that the gradient passes."""
    layer = nn.Linear(64, 64, bias=False).to(here.device)
    x = torch.ones(1, 64, device=here.device, dtype=torch.bfloat16)
    weights, copy = 64 * 64 * 4, 64 * 64 * 2
    with bf16():
        before = here.here.total
        with torch.no_grad():
            layer(x)
        assert here.here.total == before + copy
        out = layer(x)
        assert here.here.total == before + copy + BLOCK  # and the result
        assert out.requires_grad
    out.sum().backward()
    del out
    assert here.here.total == before + weights  # the gradient; the copy is gone
    assert layer.weight.grad.dtype == torch.float32


def test_memory_of_a_linear_layer_is_what_the_arithmetic_says(here):
    rows, wide, narrow = 128, 256, 64
    layer = nn.Linear(wide, narrow, bias=False).to(here.device)
    weights = wide * narrow * 4
    assert here.here.now["weights"] == here.here.total == weights
    x = torch.ones(rows, wide, device=here.device, requires_grad=True)
    out = layer(x)
    held = weights + rows * wide * 4 + rows * narrow * 4
    assert here.here.total == held
    out.backward(torch.ones(rows, narrow, device=here.device))
    assert here.here.total == held + weights + rows * wide * 4  # gradients of both
    assert here.here.highest == held + weights + rows * wide * 4 + rows * narrow * 4  # and the one given


@pytest.mark.parametrize("masked", [False, True])
def test_attentions_memory_is_linear_in_the_length(here, masked):
    def highest(length):
        qkv = [
            torch.ones(1, 2, length, 64, device=here.device, dtype=torch.bfloat16, requires_grad=True)
            for _ in "qkv"
        ]
        mask = torch.ones(1, 1, 1, length, dtype=torch.bool, device=here.device) if masked else None
        here.here.reset()
        F.scaled_dot_product_attention(*qkv, attn_mask=mask).sum().backward()
        return here.here.highest

    one, two, four = (highest(length) for length in (1024, 2048, 4096))
    assert abs((four - two) - 2 * (two - one)) <= 4 * BLOCK


def test_checkpointing_keeps_the_inputs_alone(here):
    block = nn.Sequential(nn.Linear(64, 1024), nn.GELU(), nn.Linear(1024, 64)).to(here.device)
    x = torch.ones(256, 64, device=here.device, requires_grad=True)
    small, before = 256 * 64 * 4, here.here.total
    out = block(x)
    assert here.here.total - before >= 2 * 256 * 1024 * 4
    del out
    out = checkpoint(block, x, use_reentrant=False)
    assert here.here.total - before == small  # the result
    out.sum().backward()
    assert x.grad is not None


def test_parameters_that_modules_share_stay_shared(here):
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    both = nn.ModuleList([first, second]).to(here.device)
    assert both[0].weight is both[1].weight
    assert both[0].weight.device.type == NAME


def test_nothing_of_the_device_is_left_behind():
    with machine() as here, bf16():
        nn.Linear(4, 4).to(here.device)(torch.ones(1, 4, device=here.device))
    assert not autocast._CASTS
    assert torch.ones(2).sum().item() == 2.0
