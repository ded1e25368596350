"""Weights that are stepped one by one: the same steps, bf16 that loses nothing on average, exact resuming."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from studio.catalog.checks import check
from studio.errors import RunFailed, StudioError
from studio.records.runs import RunFolder
from studio.settings.run import Hardware, Loop, Optim
from studio.training.one_by_one import OneByOne, rounded
from studio.training.train import run_to_end
from studio.training.verify import verify_resume
from tests.test_loop import make_run, same, weights
from tests.toy.config import Toy

HALF = Hardware(device="cpu", precision="bf16")
FUSED = Loop(steps=12, batch_size=8, log_every=1, checkpoint_every=4, clip_norm=0)


def test_rounding_by_chance_is_right_on_average_and_never_further_than_a_neighbor():
    torch.manual_seed(0)
    values = torch.full((200_000,), 1.0 + 0.3 * 2**-7)
    found = rounded(values)
    assert found.dtype == torch.bfloat16
    assert {*found.float().unique().tolist()} == {1.0, 1.0 + 2**-7}
    assert (found.float().mean() - values[0]).abs() < 1e-4
    assert torch.equal(rounded(torch.tensor([0.0, -2.0, 1.5])), torch.tensor([0.0, -2.0, 1.5]).bfloat16())


def test_changes_below_half_a_unit_add_up_in_bf16():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    steps = OneByOne(torch.optim.SGD([weight], lr=1e-4), in_backward=False)
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        steps.step()
    assert weight.grad is None
    assert weight.detach().float().mean() == pytest.approx(
        1 - 50 * 1e-4, abs=1e-4
    )  # rounded to the nearest it stays 1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


@pytest.mark.parametrize("in_backward", [False, True])
def test_steps_in_float32_are_those_of_the_optimizer(in_backward):
    plain, one = network(), network()
    usual = torch.optim.AdamW(plain.parameters(), lr=0.1)
    steps = OneByOne(torch.optim.AdamW(one.parameters(), lr=0.1), in_backward=in_backward)
    for seed in range(4):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
        plain(x).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), float("inf"))
        usual.step()
        usual.zero_grad()
        one(x).square().mean().backward()
        if in_backward:
            assert all(weight.grad is None for weight in one.parameters())
            torch.testing.assert_close(steps.norm(), norm)
        else:
            steps.step()
    for left, right in zip(plain.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "adamw8bit", "sgd"])
@pytest.mark.parametrize("fused", [False, True])
def test_resuming_is_the_uninterrupted_run(tmp_path, name, fused):
    optim = Optim(lr=0.05, name=name, full_bf16=True, fused_backward=fused, ema=0.9)
    run = make_run(tmp_path, optim=optim, loop=FUSED, method=Toy(dropout=0.5), hardware=HALF)
    assert verify_resume(run, steps=9, at=4) == []


def test_trained_weights_and_their_file_are_bf16_and_moments_are_not(tmp_path):
    folder = run_to_end(make_run(tmp_path, optim=Optim(lr=0.05, full_bf16=True), loop=FUSED, hardware=HALF))
    found = weights(folder)
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    losses = [event["loss"] for event in folder.read_events("step")]
    assert losses[-1] < losses[0]


def test_the_fused_backward_is_the_plain_run(tmp_path):
    plain = run_to_end(make_run(tmp_path / "plain", loop=FUSED))
    fused = run_to_end(make_run(tmp_path / "fused", loop=FUSED, optim=Optim(lr=0.05, fused_backward=True)))
    assert same(weights(plain), weights(fused))
    norms = [[event["grad_norm"] for event in folder.read_events("step")] for folder in (plain, fused)]
    assert norms[0] == pytest.approx(norms[1])


def test_a_loss_that_is_not_finite_moves_nothing(tmp_path):
    run = make_run(tmp_path, loop=FUSED, optim=Optim(lr=0.05, fused_backward=True), method=Toy(fail_at=6))
    with pytest.raises(RunFailed, match="Step 6: loss is not finite; the weights of step 5 are kept"):
        run_to_end(run)
    whole = make_run(tmp_path / "5", loop=dataclasses.replace(FUSED, steps=5), optim=run.optim)
    assert same(weights(RunFolder(tmp_path / "toy")), weights(run_to_end(whole)))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"optim": Optim(name="prodigy", full_bf16=True)}, "optim.name"),
        ({"optim": Optim(full_bf16=True), "hardware": Hardware(precision="fp16")}, "hardware.precision"),
        ({"optim": Optim(fused_backward=True)}, "loop.clip_norm"),
        ({"optim": Optim(fused_backward=True), "loop": dataclasses.replace(FUSED, accumulate=2)}, "loop.accumulate"),
        ({"optim": Optim(fused_backward=True), "loop": FUSED, "hardware": Hardware(num_processes=2)}, "hardware.num_processes"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused(tmp_path, changes, field):
    with pytest.raises(StudioError) as refused:
        check(make_run(tmp_path, **changes))
    assert refused.value.field == field


def test_moments_of_bf16_weights_come_back_in_float32():
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    steps = OneByOne(optimizer := torch.optim.AdamW([weight]), in_backward=False)
    weight.grad = torch.ones_like(weight)
    steps.step()
    state = copy.deepcopy(optimizer.state_dict())
    assert state["state"][0]["exp_avg"].dtype == torch.float32
