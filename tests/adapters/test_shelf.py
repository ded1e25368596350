"""Every adapter: identity at start, what trains, strength, saving, merging."""

import dataclasses

import pytest
import torch
from torch import nn

from studio.adapters import config as c
from studio.adapters.build import attach, load_tensors, tensors
from studio.adapters.merge import bare, merge, merged_copy, unmerge
from studio.adapters.strength import detached, set_strength

SHELF = {
    "lora": c.Lora(rank=4),
    "lora with alpha": c.Lora(rank=4, alpha=8),
    "lora kaiming": c.Lora(rank=4, init="kaiming"),
    "lora orthogonal": c.Lora(rank=4, init="orthogonal"),
    "lora conv": c.Lora(rank=4, conv=True),
    "rslora": c.Lora(rank=4, rslora=True),
    "dora": c.Lora(rank=4, dora=True),
    "dora conv": c.Lora(rank=4, dora=True, conv=True),
    "loha": c.Loha(rank=4, conv=True),
    "lokr": c.Lokr(rank=4, conv=True),
    "delora": c.Delora(rank=4),
    "hra": c.Hra(rank=4),
    "shira": c.Shira(rank=4),
    "miss": c.Miss(rank=4),
    "hira": c.Hira(rank=4),
    "waveft": c.Waveft(coefficients=50),
    "c3a": c.C3a(block=16),
    "road": c.Road(group=32),
    "ia3": c.Ia3(),
    "norms": c.Norms(),
}
SHELF = {
    name: adapter if isinstance(adapter, c.Norms) else dataclasses.replace(adapter, layers="linear")
    for name, adapter in SHELF.items()
}
ROUNDING = {"lora orthogonal", "hra"}
"""These start at the base up to rounding, the others bit for bit."""

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")
shelf = pytest.mark.parametrize("adapter", SHELF.values(), ids=SHELF.keys())


@pytest.fixture
def tuned(adapter, net, move):
    """A network with the adapter on it and its weights moved."""
    move(net, attach(adapter, {"net": net})["net"])
    return net


def test_every_member_of_the_union_is_on_the_shelf():
    assert {type(one) for one in SHELF.values()} == set(c.Peft.__args__)


@pytest.mark.parametrize("name", SHELF)
def test_adapter_starts_at_the_base_model(name, net, see):
    before = see(net)
    attach(SHELF[name], {"net": net})
    if name in ROUNDING:
        torch.testing.assert_close(see(net), before, atol=2e-5, rtol=0)
    else:
        assert torch.equal(see(net), before)


@shelf
def test_only_what_attach_names_trains(adapter, net):
    names = attach(adapter, {"net": net})["net"]
    assert names == {name for name, value in net.named_parameters() if value.requires_grad}
    assert all(value.dtype == torch.float32 for name, value in net.named_parameters() if name in names)


@shelf
def test_training_leaves_the_base_bit_identical(adapter, net, another, see):
    names = attach(adapter, {"net": net})["net"]
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimizer = torch.optim.AdamW([v for v in net.parameters() if v.requires_grad], lr=1e-2)
    for _ in range(2):
        loss = net(torch.ones(1, 4, 8, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = dict(net.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before if name not in names)
    assert any(not torch.equal(before[name], after[name]) for name in names)
    assert torch.equal(see(bare(net)), see(another()))


@shelf
def test_strength_zero_is_the_base_and_one_is_as_trained(adapter, tuned, another, see):
    trained, base = see(tuned), see(another())
    assert not torch.allclose(trained, base, atol=1e-4)
    set_strength({"net": tuned}, "studio", 0.0)
    assert torch.equal(see(tuned), base)
    set_strength({"net": tuned}, "studio", 1.0)
    assert torch.equal(see(tuned), trained)


@shelf
def test_detached_is_the_base_and_keeps_training_flags(adapter, tuned, another, see):
    trained = see(tuned)
    flags = [value.requires_grad for value in tuned.parameters()]
    with detached({"net": tuned}):
        assert torch.equal(see(tuned), see(another()))
        assert [value.requires_grad for value in tuned.parameters()] == flags
    assert torch.equal(see(tuned), trained)


@shelf
def test_tensors_written_and_read_give_the_same_model(adapter, tuned, another, see):
    saved = {key: value.clone() for key, value in tensors(tuned).items()}
    fresh = another()
    attach(adapter, {"net": fresh}, name="other")
    load_tensors(fresh, saved, "other")
    assert torch.equal(see(fresh), see(tuned))


@shelf
def test_merged_weights_act_as_the_adapter(adapter, tuned, see):
    set_strength({"net": tuned}, "studio", 0.4)
    wanted, weights = see(tuned), [value.detach().clone() for value in tuned.parameters()]
    torch.testing.assert_close(see(merged_copy(tuned)), wanted, atol=2e-5, rtol=1e-4)
    done = merge({"net": tuned})
    torch.testing.assert_close(see(tuned), wanted, atol=2e-5, rtol=1e-4)
    unmerge(done)
    assert all(torch.equal(a, b) for a, b in zip(weights, tuned.parameters(), strict=True))
    assert torch.equal(see(tuned), wanted)


@pytest.mark.parametrize("name", ["lora", "dora", "loha", "hra"])
def test_a_layer_is_linear_in_the_strength(name, move):
    layer = nn.Sequential(nn.Linear(16, 16))
    adapter = dataclasses.replace(SHELF[name], only=("0",))
    base = layer(torch.ones(1, 16)).detach()
    move(layer, attach(adapter, {"m": layer})["m"], 0.3)
    trained = layer(torch.ones(1, 16)).detach()
    set_strength({"m": layer}, "studio", 0.5)
    torch.testing.assert_close(layer(torch.ones(1, 16)), (base + trained) / 2)
