"""OFT after training: strengths, merging, stacking, files."""

import json

import pytest
import torch
from peft import PeftModel
from torch import nn

from studio.adapters.build import attach, load_tensors, tensors
from studio.adapters.cayley import (
    cayley,
    num_entries,
)
from studio.adapters.config import Lora, Oft
from studio.adapters.energy import kept, summary
from studio.adapters.files import read_peft, write, write_peft
from studio.adapters.formats import to_diffusers
from studio.adapters.merge import bare, merge, merged_copy, unmerge
from studio.adapters.orthogonal_blocks import Factor, turn_blocks
from studio.adapters.orthogonal_files import low_rank, take_up
from studio.adapters.strength import detached, set_strength
from studio.errors import StudioError
from tests.adapters.oft.conftest import CONV, LINEAR, ONLY, shake


@pytest.mark.parametrize("lengths", ["fixed", "learned"])
def test_strength_goes_from_the_base_through_the_tuned_to_beyond(net, x, lengths):
    before = net(x)
    attach(Oft(block_size=8, only=ONLY, conv=True, lengths=lengths), {"net": net})
    after = shake(net)(x)
    set_strength({"net": net}, "studio", 0.0)
    assert torch.equal(net(x), before)
    set_strength({"net": net}, "studio", 1.0)
    assert torch.equal(net(x), after)
    with detached({"net": net}):
        assert torch.equal(net(x), before)


def test_strength_minus_one_is_the_inverse(net):
    attach(LINEAR, {"net": net})
    rotation = shake(net).a.rotation
    product = rotation.rotations(-1.0) @ rotation.rotations(1.0)
    torch.testing.assert_close(product, torch.eye(8).expand_as(product))


@pytest.mark.parametrize("lengths", ["fixed", "learned"])
def test_merged_gives_the_same_and_unmerged_the_same_bits(net, x, lengths):
    attach(Oft(block_size=8, only=ONLY, conv=True, lengths=lengths), {"net": net})
    shake(net)
    base = {key: value.clone() for key, value in net.state_dict().items()}
    after = net(x)
    done = merge({"net": net})
    torch.testing.assert_close(net(x), after, rtol=1e-5, atol=1e-5)
    unmerge(done)
    assert all(torch.equal(value, base[key]) for key, value in net.state_dict().items())
    torch.testing.assert_close(merged_copy(net)(x), after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", ["lora", "oft"])
def test_rotations_and_lora_stack_in_any_order(net, x, first):
    kinds = {"lora": Lora(rank=2, only=("a", "c", "e"), conv=True), "oft": CONV}
    for name in sorted(kinds, reverse=first == "oft"):
        attach(kinds[name], {"net": net}, name)
    attach(Oft(block_size=4, only=("a", "b"), conv=True), {"net": net}, "two")
    generator = torch.Generator().manual_seed(5)
    for key, value in sorted(net.named_parameters()):
        if "lora_B" in key or "oft_R" in key:
            nn.init.normal_(value, std=0.1, generator=generator)
    after = net(x)
    done = merge({"net": net})
    torch.testing.assert_close(net(x), after, rtol=1e-5, atol=1e-5)
    unmerge(done)
    assert set(tensors(net, "two")) == {"a.oft_R.weight", "b.oft_R.weight"}
    for name in ("two", "lora", "oft"):
        set_strength({"net": net}, name, 0.0)
    torch.testing.assert_close(net(x), bare(net)(x))


def test_name_in_use_is_refused(net):
    attach(LINEAR, {"net": net})
    with pytest.raises(StudioError, match="already has an adapter named 'studio'"):
        attach(LINEAR, {"net": net})


@pytest.mark.parametrize("cayley_kind", ["exact", "neumann"])
@pytest.mark.parametrize("share", [False, True])
def test_peft_reads_our_folder_and_computes_the_same(net, tmp_path, cayley_kind, share):
    attach(Oft(block_size=8, only=("a", "e"), cayley=cayley_kind, share=share), {"net": net})
    shake(net, size=0.05)
    write_peft(tmp_path / "oft", net, "studio", "")
    x = torch.randn(
        2, 3, 32, generator=torch.Generator().manual_seed(0)
    )  # PEFT takes four axes for a picture
    theirs = PeftModel.from_pretrained(bare(net), str(tmp_path / "oft")).base_model.model
    torch.testing.assert_close(theirs.e(theirs.a(x)), net.e(net.a(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adapter", [LINEAR, CONV, Oft(block_size=8, only=("a",), lengths="learned")])
def test_folder_gives_the_same_bits_back(net, x, tmp_path, adapter):
    attach(adapter, {"net": net})
    after = shake(net)(x)
    write_peft(tmp_path / "oft", net, "studio", "")
    again = bare(net)
    read_peft(tmp_path / "oft", again, "other")
    assert torch.equal(again(x), after)


def test_folder_that_peft_would_misread_names_no_peft_method(net, tmp_path):
    attach(CONV, {"net": net})
    write_peft(tmp_path / "oft", net, "studio", "")
    said = json.loads((tmp_path / "oft" / "adapter_config.json").read_text())
    assert said["peft_type"] == "STUDIO"
    with pytest.raises(KeyError):
        PeftModel.from_pretrained(bare(net), str(tmp_path / "oft"))


def test_other_cayley_mode_is_refused_when_training_goes_on(net, tmp_path):
    attach(LINEAR, {"net": net})
    write_peft(tmp_path / "oft", net, "studio", "")
    again = bare(net)
    attach(Oft(block_size=8, only=("a", "e"), cayley="neumann"), {"net": again})
    with pytest.raises(StudioError, match="the inverse rotation under neumann; set adapter"):
        take_up(tmp_path / "oft", again, "studio")


def test_tensors_of_another_size_are_refused(net):
    attach(LINEAR, {"net": net})
    values = {key: value[:1] for key, value in tensors(net).items()}
    with pytest.raises(StudioError, match="of another shape"):
        load_tensors(net, values)


def test_lora_approximation_says_what_it_keeps(net, tmp_path):
    attach(LINEAR, {"net": net})
    shake(net)
    all_of_it, shares = low_rank({"unet": net}, "studio", 64)
    low = all_of_it["unet"]["a"].additive
    change = net.a.turned(net.a.weight) - net.a.weight
    torch.testing.assert_close(low.up @ low.down, change.detach(), rtol=1e-4, atol=1e-5)
    assert all(share == pytest.approx(1.0) for share in shares.values())
    parts, shares = low_rank({"unet": net}, "studio", 2)
    assert all(0.05 < share < 0.9 for share in shares.values())
    write(tmp_path / "lora.safetensors", to_diffusers(parts), {})


def test_convolution_has_no_lora_approximation(net):
    attach(CONV, {"net": net})
    with pytest.raises(StudioError, match="is a convolution"):
        low_rank({"unet": net}, "studio", 2)


def test_factor_turned_back_is_the_inverse():
    factor = Factor(cayley(torch.ones(2, num_entries(4)), 4))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turn_blocks(turn_blocks(x, factor.blocks), factor.transposed().blocks), x)


class Quantized(nn.Linear):
    """A layer that keeps rounded weights, as quantized bases do: a black box to the adapter."""

    def __init__(self, base):
        super().__init__(base.in_features, base.out_features)
        self.scale = base.weight.detach().abs().max() / 127
        self.weight = nn.Parameter(
            (base.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False
        )

    def forward(self, x):
        return nn.functional.linear(x, self.weight.float() * self.scale, self.bias)


def test_quantized_base_is_turned_at_its_input(x):
    module = nn.ModuleDict({"a": Quantized(nn.Linear(32, 16))})
    before = module["a"](x)
    names = attach(Oft(block_size=8, only=("a",), lengths="learned"), {"m": module})["m"]
    assert torch.equal(module["a"](x), before)
    shake(module)
    module["a"](x).square().mean().backward()
    assert all(module.get_parameter(name).grad.abs().max() > 0 for name in names)
    assert summary(kept({"m": module}, "studio")) == {}
    with pytest.raises(StudioError, match="cannot be merged into quantized weights"):
        merge({"m": module})
