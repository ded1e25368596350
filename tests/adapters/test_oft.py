"""OFT: exact rotations everywhere, what they keep, bounds, strengths, merging, stacking, files."""

import json
import logging

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import PeftModel
from torch import nn

from studio.adapters.build import attach, learning_rates, load_tensors, tensors
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
from studio.adapters.config import Lora, Oft
from studio.adapters.energy import hyperspherical_energy, kept, summary
from studio.adapters.files import read_peft, write, write_peft
from studio.adapters.formats import to_diffusers
from studio.adapters.merge import bare, merge, merged_copy, unmerge
from studio.adapters.orthogonal import RotatedLinear, project, rotated_layers
from studio.adapters.orthogonal_blocks import Factor, turn_blocks, turned_linear
from studio.adapters.orthogonal_files import low_rank, take_up
from studio.adapters.strength import detached, set_strength
from studio.errors import StudioError

ONLY = ("a", "b", "c", "d", "e")
CONV = Oft(block_size=8, only=ONLY, conv=True)
LINEAR = Oft(block_size=8, only=("a", "e"))


class Net(nn.Module):
    """Linear layers on four axes (channels last), a strided, a dilated and a 1x1 convolution, one in groups."""

    def __init__(self):
        super().__init__()
        self.a, self.e = nn.Linear(32, 16), nn.Linear(16, 24, bias=False)
        self.b = nn.Conv2d(24, 16, 3, stride=2, padding=2, dilation=2)
        self.c, self.d = (
            nn.Conv2d(16, 16, 1),
            nn.Conv2d(16, 8, 3, padding=1, groups=2, padding_mode="circular"),
        )

    def forward(self, x):
        return self.d(self.c(self.b(self.e(self.a(x).tanh()).movedim(-1, 1))))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


@pytest.fixture
def x():
    return torch.randn(2, 9, 9, 32, generator=torch.Generator().manual_seed(1))


def shake(module, name="studio", size=0.2):
    """Move a rotation, and the lengths if there are any, as training would."""
    generator = torch.Generator().manual_seed(2)
    for _, layer in rotated_layers(module, name):
        for value in (layer.rotation.weight, *layer.oft_s.values()):
            nn.init.normal_(value, std=size, generator=generator)
    return module


def toy(adapter, width=32, out=24, steps=100, lr=1e-2):
    """A layer fitted to a random target with Adam; projected after each step, whose norms are noted."""
    generator = torch.Generator().manual_seed(3)
    module = nn.ModuleDict({"layer": nn.Linear(width, out)})
    nn.init.normal_(module["layer"].weight, std=0.2, generator=generator)
    nn.init.zeros_(module["layer"].bias)
    attach(adapter, {"model": module})
    x, y = (torch.randn(64, size, generator=generator) for size in (width, out))
    optimizer = torch.optim.Adam([value for value in module.parameters() if value.requires_grad], lr=lr)
    losses, norms = [], []
    for _ in range(steps):
        loss = (module["layer"](x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        project({"model": module})
        losses.append(float(loss.detach()))
        if isinstance(layer := module["layer"], RotatedLinear):
            blocks = layer.rotation.rotations().detach()
            norms.append(float((blocks - torch.eye(blocks.shape[-1])).norm()))
    return module, losses, norms


# ---- the Cayley transform


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


# ---- layers


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


# ---- what is kept, and bounds


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


# ---- strength, merging, stacking


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


# ---- files


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
    low = all_of_it["unet"]["a"]
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
