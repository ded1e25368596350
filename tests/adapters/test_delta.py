"""DiaBlo and BitFit: identity at start, what trains, strength, merging, files."""

import pytest
import torch
from torch import nn

from studio.adapters.build import attach, tensors
from studio.adapters.config import Bitfit, Diablo
from studio.adapters.files import read_peft, write_peft
from studio.adapters.merge import bare, merge, merged_copy, unmerge
from studio.adapters.strength import detached, set_strength
from studio.errors import StudioError

ADAPTERS = {
    "diablo": Diablo(blocks=4, layers="linear"),
    "odd": Diablo(blocks=5, layers="linear"),
    "bitfit": Bitfit(),
}
every = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())


@pytest.fixture
def tuned(adapter, net, move):
    move(net, attach(adapter, {"net": net})["net"])
    return net


@every
def test_adapter_starts_at_the_base_and_alone_trains(adapter, net, see):
    before = see(net)
    names = attach(adapter, {"net": net})["net"]
    assert torch.equal(see(net), before)
    assert names == {name for name, value in net.named_parameters() if value.requires_grad}


@every
def test_strength_zero_is_the_base_and_one_the_tuned(tuned, another, see):
    after = see(tuned)
    set_strength({"net": tuned}, "studio", 0.0)
    assert torch.equal(see(tuned), see(another()))
    set_strength({"net": tuned}, "studio", 1.0)
    assert torch.equal(see(tuned), after)
    assert not torch.equal(after, see(another()))
    with detached({"net": tuned}):
        assert torch.equal(see(tuned), see(another()))


@every
def test_merged_gives_the_same_and_unmerged_the_same_bits(tuned, see):
    after = see(tuned)
    done = merge({"net": tuned})
    torch.testing.assert_close(see(tuned), after, rtol=1e-5, atol=1e-6)
    unmerge(done)
    assert torch.equal(see(tuned), after)
    torch.testing.assert_close(see(merged_copy(tuned)), after, rtol=1e-5, atol=1e-6)


@every
def test_folder_gives_the_same_bits_back(tuned, see, tmp_path):
    write_peft(tmp_path / "own", tuned, "studio", "")
    again = bare(tuned)
    read_peft(tmp_path / "own", again, "again")
    assert torch.equal(see(again), see(tuned))


@every
def test_it_stacks_on_another(tuned, adapter, see, move):
    move(tuned, attach(adapter, {"net": tuned}, "two")["net"])
    after = see(tuned)
    assert tensors(tuned).keys() == tensors(tuned, "two").keys()
    done = merge({"net": tuned})
    torch.testing.assert_close(see(tuned), after, rtol=1e-5, atol=1e-6)
    unmerge(done)


def test_one_block_is_any_change_of_the_weights():
    module = nn.ModuleDict({"a": nn.Linear(6, 4)})
    attach(Diablo(blocks=1, only=("a",)), {"m": module})
    assert module["a"].diablo_D["studio"].shape == (1, 6, 4)


def test_blocks_are_as_many_parameters_as_the_formula_says():
    module = nn.ModuleDict({"a": nn.Linear(64, 32)})
    [name] = attach(Diablo(blocks=8, only=("a",)), {"m": module})["m"]
    assert module.get_parameter(name).numel() == 64 * 32 // 8


def test_projection_inside_torchs_attention_is_left_alone():
    module = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "b": nn.Linear(8, 8)})
    assert attach(Bitfit(), {"m": module})["m"] == {"b.bias_delta.studio"}


def test_layer_without_a_bias_is_refused(net):
    with pytest.raises(StudioError, match="Unknown layer with a bias 'to_q'"):
        attach(Bitfit(only=("to_q",)), {"net": net})
