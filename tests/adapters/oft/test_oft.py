"""OFT: rotations that start at the base, what they keep, bounds and lengths."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from studio.adapters.build import attach, learning_rates
from studio.adapters.cayley import (
    cayley,
    num_entries,
    orthogonality_error,
)
from studio.adapters.config import Lora, Oft
from studio.adapters.energy import hyperspherical_energy, kept, summary
from studio.adapters.files import read_peft, write_peft
from studio.adapters.merge import bare, merged_copy
from studio.adapters.orthogonal_blocks import turn_blocks, turned_linear
from studio.adapters.orthogonal_files import take_up
from studio.errors import StudioError
from tests.adapters.oft.conftest import CONV, LINEAR, ONLY, shake, toy


@pytest.mark.parametrize(
    "adapter",
    [
        CONV,
        Oft(block_size=0, blocks=2, only=ONLY, conv=True, share=True),
        Oft(block_size=4, only=ONLY, conv=True, lengths="learned", cayley="neumann"),
    ],
    ids=["conv", "shared", "lengths"],
)
def test_adapter_starts_at_the_base_bit_for_bit(net, x, adapter):
    before = net(x)
    attach(adapter, {"net": net})
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("shape", [(5, 32), (2, 5, 32), (2, 3, 5, 32)])
def test_linear_layer_turns_the_last_axis_of_any_input(shape):
    module = nn.ModuleDict({"a": nn.Linear(32, 16)})
    attach(Oft(block_size=8, only=("a",)), {"m": module})
    layer = shake(module)["a"]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rotation = torch.block_diag(*layer.rotation.rotations())
    torch.testing.assert_close(layer(x), layer.base_layer(x @ rotation))


@pytest.mark.parametrize("count", [1, 4])
def test_turning_the_weights_is_turning_the_input(count):
    generator = torch.Generator().manual_seed(0)
    kinds = {"generator": generator, "dtype": torch.float64}
    entries = torch.randn(count, num_entries(8), **kinds).requires_grad_()
    x = torch.randn(3, 20, 32, **kinds).requires_grad_()
    weight, bias, above = torch.randn(5, 32, **kinds), torch.randn(5, **kinds), torch.randn(3, 20, 5, **kinds)
    found = [turned_linear(x, cayley(entries, 8), weight, bias)]
    found.append(nn.functional.linear(turn_blocks(x, cayley(entries, 8)), weight, bias))
    torch.testing.assert_close(*found)
    for one, other in zip(*(torch.autograd.grad(y, (x, entries), above) for y in found), strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_of_turning_is_that_of_finite_differences():
    kinds = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    x, blocks = torch.randn(3, 8, **kinds).requires_grad_(), torch.randn(2, 4, 4, **kinds).requires_grad_()
    assert torch.autograd.gradcheck(turn_blocks, (x, blocks))


def test_filters_keep_their_lengths_and_angles(net):
    attach(CONV, {"net": net})
    shake(net)
    for layer in (net.b, net.c, net.d):
        before, after = layer.base_layer.weight.flatten(1), layer.effective().flatten(1)
        assert (after - before).abs().max() > 0.01
        torch.testing.assert_close(after @ after.T, before @ before.T)


def test_only_what_attach_names_trains_and_the_base_stays(net, x):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trains = attach(CONV, {"net": net})["net"]
    assert trains == {f"{key}.oft_R.studio.weight" for key in ONLY}
    assert trains == {key for key, value in net.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW([value for value in net.parameters() if value.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    after = {key.replace(".base_layer", ""): value for key, value in net.state_dict().items()}
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(net.get_parameter(key).abs().max() > 0 for key in trains)


def test_number_of_parameters_is_the_formula():
    module = nn.ModuleDict({"a": nn.Linear(64, 8), "b": nn.Conv2d(16, 4, 3)})
    names = attach(Oft(block_size=16, only=("a", "b"), conv=True), {"m": module})["m"]
    counts = {key: module.get_parameter(key).numel() for key in names}
    assert counts == {"a.oft_R.studio.weight": 64 * 15 // 2, "b.oft_R.studio.weight": 144 * 15 // 2}


def test_paper_setting_on_stable_diffusion_has_the_papers_size():
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)  # diffusers' defaults are SD 1.5
        names = attach(Oft(block_size=0, blocks=4), {"unet": unet})["unet"]
    assert sum(unet.get_parameter(key).numel() for key in names) == pytest.approx(11.6e6, rel=0.01)


def test_dropout_changes_training_passes_alone(net, x):
    attach(Oft(block_size=8, only=("a", "e"), dropout=0.5), {"net": net})
    shake(net)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_half_precision_base_is_turned_in_float32(x):
    module = nn.ModuleDict({"a": nn.Linear(32, 16)}).bfloat16()
    attach(Oft(block_size=8, only=("a",)), {"m": module})
    shake(module)
    assert module["a"].rotation.weight.dtype == torch.float32
    assert module["a"](x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert orthogonality_error(module["a"].rotation.rotations()) < 1e-5
        assert module["a"](x).dtype == torch.bfloat16


def test_kept_rotation_follows_the_weights(net, x):
    attach(LINEAR, {"net": net})
    net.eval()
    with torch.no_grad():
        before = net(x)
        shake(net)
        assert not torch.equal(net(x), before)


@pytest.mark.parametrize(("adapter", "part"), [
    (Oft(block_size=7, only=("a",)), "block_size 7 does not divide the input width 32 of layer a; choose a divisor, such as 8"),
    (Oft(block_size=0, blocks=5, only=("a",)), "blocks 5 does not divide"),
])  # fmt: skip
def test_blocks_that_do_not_fit_are_refused(net, adapter, part):
    with pytest.raises(StudioError, match=part):
        attach(adapter, {"net": net})
    assert isinstance(net.a, nn.Linear)


def test_block_size_and_blocks_together_are_refused():
    with pytest.raises(StudioError, match="the same thing twice"):
        Oft(block_size=8, blocks=4)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}])
def test_kept_rotation_follows_every_optimizer(net, x, options):
    attach(LINEAR, {"net": net})
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, **options)
    for _ in range(2):
        net.eval()
        with torch.no_grad():
            before = net(x)
        net.train()
        net(x).square().sum().backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            assert not torch.equal(net(x), before)
            assert torch.equal(net(x), copy.deepcopy(net)(x))


def test_energy_is_kept_by_rotations_and_not_by_lora():
    changes = {}
    for key, adapter in {
        "oft": Oft(block_size=8, only=("layer",)),
        "lora": Lora(rank=2, only=("layer",)),
    }.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module, _, _ = toy(adapter)
        base, tuned = (m["layer"].weight for m in (bare(module), merged_copy(module)))
        energy = hyperspherical_energy(base)
        changes[key] = abs(hyperspherical_energy(tuned) - energy) / energy
    assert changes["oft"] < 1e-6
    assert changes["lora"] > 1e-3


def test_energy_is_the_formula():
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = weight / weight.norm(dim=1, keepdim=True)
    pairs = [1 / (unit[i] - unit[j]).norm() for i in range(6) for j in range(6) if i != j]
    assert hyperspherical_energy(weight) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-4)
    both = torch.cat([weight, -weight])
    assert hyperspherical_energy(weight, half=True) == pytest.approx(hyperspherical_energy(both))


def test_summary_of_what_was_kept(net):
    attach(Oft(block_size=8, only=ONLY, conv=True, lengths="learned"), {"net": net})
    shake(net)
    found = kept({"net": net}, "studio")
    assert set(found) == {f"net.{key}" for key in ONLY}
    assert summary(found)["energy_change_max"] < 1e-4  # lengths do not count
    assert summary(found)["orthogonality_error"] < 1e-5


def test_coft_stays_within_its_radius_and_learns(tmp_path):
    module, losses, norms = toy(Oft(block_size=8, only=("layer",), radius=0.5))
    assert max(norms) <= 0.5 * (1 + 1e-5)
    assert losses[-1] < 0.98 * losses[0]
    write_peft(tmp_path / "coft", module, "studio", "")
    fresh = nn.ModuleDict({"layer": nn.Linear(32, 24)})
    read_peft(tmp_path / "coft", fresh, "studio")
    blocks = fresh["layer"].rotation.rotations().detach()
    assert float((blocks - torch.eye(8)).norm()) <= 0.5 * (1 + 1e-5)


def test_lengths_start_at_one_keep_energy_and_learn_slower(net, x):
    adapter = Oft(block_size=8, only=("a", "e"), lengths="learned")
    names = attach(adapter, {"net": net})["net"]
    assert learning_rates(adapter, names)[0.1] == {"a.oft_s.studio", "e.oft_s.studio"}
    before = net(x)
    nn.init.constant_(net.a.oft_s["studio"], 0.5)
    torch.testing.assert_close(net.a.lengths(), torch.full((16,), 0.5).exp())
    assert not torch.equal(net(x), before)


def test_second_stage_trains_lengths_alone_from_a_saved_rotation(net, x, tmp_path):
    attach(LINEAR, {"net": net})
    trained = shake(net)(x)
    write_peft(tmp_path / "first", net, "studio", "")
    again = bare(net)
    names = attach(Oft(block_size=8, only=("a", "e"), lengths="only"), {"net": again})["net"]
    assert names == {"a.oft_s.studio", "e.oft_s.studio"}
    take_up(tmp_path / "first", again, "studio")
    torch.testing.assert_close(again(x), trained)
