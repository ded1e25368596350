"""Attaching to real models: presets, names, stacking, full finetuning, refusals."""

import pytest
import timm
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from open_clip.model import CLIP
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from studio.adapters.build import after_step, attach, groups, learning_rates, load_tensors, names, tensors
from studio.adapters.config import Full, Hra, Lokr, Lora
from studio.adapters.merge import bare, merge, unmerge
from studio.adapters.strength import detached, set_strength
from studio.errors import StudioError


def layers(module: nn.Module, adapter) -> set[str]:
    found = attach(adapter, {"m": module})["m"]
    return {name.split(".lora_")[0] for name in found}


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip


def test_unet_preset_is_the_attention(unet):
    found = {name.partition("transformer_blocks.0.")[2] for name in layers(unet, Lora())}
    assert found == {f"attn{i}.{end}" for i in (1, 2) for end in ("to_q", "to_k", "to_v", "to_out.0")}


def test_unet_blocks_add_feed_forward_and_linear_projections_only(unet):
    found = layers(unet, Lora(layers="blocks"))
    assert any(name.endswith("ff.net.0.proj") for name in found)
    assert not any(name.endswith("proj_in") for name in found), "a 1x1 convolution here"


def test_unet_convolutions_come_with_conv(unet):
    found = layers(unet, Lora(layers="blocks", conv=True))
    assert {"conv_in", "conv_out", "mid_block.resnets.0.conv1"} <= found
    assert any(name.endswith("proj_in") for name in found)


def test_flux_preset_has_feed_forward_but_not_the_last_layer():
    flux = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    found = layers(flux, Lora(layers="blocks"))
    assert "transformer_blocks.0.ff_context.net.2" in found
    assert "single_transformer_blocks.0.proj_out" in found
    assert "proj_out" not in found


def test_clip_text_preset_is_the_attention():
    clip = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=50000
        )
    )
    assert {name.rsplit(".", 1)[-1] for name in layers(clip, Lora())} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
    }


def test_timm_vit_preset_is_attention_and_mlp():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2)
    assert layers(vit, Lora()) == {
        f"blocks.0.{end}" for end in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }


def test_open_clip_leaves_out_attention_that_never_calls_its_projection():
    clip = CLIP(
        embed_dim=8, vision_cfg={"layers": 1, "width": 8, "patch_size": 8, "image_size": 16, "head_width": 4},
        text_cfg={"context_length": 8, "vocab_size": 20, "width": 8, "heads": 2, "layers": 1},
    )  # fmt: skip
    found = layers(clip, Lora(layers="linear"))
    assert not any("attn" in name for name in found)
    assert "visual.transformer.resblocks.0.mlp.c_fc" in found


def test_a_layer_name_that_matches_nothing_is_refused(unet):
    with pytest.raises(StudioError, match="Unknown layer 'to_w'; did you mean"):
        attach(Lora(only=("to_q", "to_w")), {"unet": unet})


def test_a_model_without_a_preset_asks_for_names(net):
    with pytest.raises(StudioError, match="Net has no preset of layers"):
        attach(Lora(), {"net": net})


def test_a_name_in_use_is_refused(net):
    attach(Lora(only=("to_q",)), {"net": net})
    with pytest.raises(StudioError, match="already has an adapter named 'studio'"):
        attach(Lora(only=("to_q",)), {"net": net})


def test_sizes_that_do_not_divide_are_the_persons_mistake(net):
    from studio.adapters.config import C3a

    with pytest.raises(StudioError, match="C3A does not fit Net"):
        attach(C3a(block=7, only=("to_q",)), {"net": net})


@pytest.mark.parametrize("second", [Lora(rank=2, layers="linear"), Lokr(rank=2, layers="linear"), Hra(rank=2, layers="linear"),
                                    Lora(rank=2, dora=True, layers="linear")], ids=lambda one: type(one).__name__)  # fmt: skip
@pytest.mark.parametrize("first", [Lora(rank=4, layers="linear"), Lora(rank=4, dora=True, layers="linear")],
                         ids=["lora", "dora"])  # fmt: skip
def test_stacked_adapters_have_strengths_of_their_own(first, second, net, another, see, move):
    alone = another()
    for model, adapter, name in ((net, first, "one"), (net, second, "two"), (alone, second, "two")):
        move(model, attach(adapter, {"net": model}, name)["net"])
    load_tensors(alone, tensors(net, "two"), "two")
    set_strength({"net": net}, "one", 0.0)
    set_strength({"net": net}, "two", 0.7)
    set_strength({"net": alone}, "two", 0.7)
    torch.testing.assert_close(see(net), see(alone), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("second", [Lora(rank=2, layers="linear"), Hra(rank=2, layers="linear")],
                         ids=lambda one: type(one).__name__)  # fmt: skip
def test_a_merged_stack_acts_as_the_stack(second, net, see, move):
    move(net, attach(Lora(rank=4, dora=True, layers="linear"), {"net": net}, "one")["net"])
    move(net, attach(second, {"net": net}, "two")["net"])
    set_strength({"net": net}, "one", 0.6)
    set_strength({"net": net}, "two", 1.4)
    stacked = see(net)
    done = merge({"net": net})
    torch.testing.assert_close(see(net), stacked, atol=1e-5, rtol=1e-4)
    unmerge(done)
    assert torch.equal(see(net), stacked)


def test_a_second_adapter_leaves_the_firsts_training_flags(net):
    first = attach(Lora(only=("to_q",)), {"net": net}, "one")["net"]
    second = attach(Lora(only=("to_q", "wide")), {"net": net}, "two")["net"]
    assert {name for name, value in net.named_parameters() if value.requires_grad} == first | second
    assert names(net) == ["one", "two"]


def test_merging_twice_is_refused(net):
    attach(Lora(only=("to_q",)), {"net": net})
    merge({"net": net})
    with pytest.raises(StudioError, match="merged into this model already"):
        merge({"net": net})


def test_a_bare_copy_shares_every_weight(net):
    weights = {value.data_ptr() for value in net.parameters()}
    attach(Lora(layers="linear"), {"net": net})
    assert {value.data_ptr() for value in bare(net).parameters()} == weights


def test_strength_of_an_unknown_adapter_names_those_there_are(net):
    attach(Lora(only=("to_q",)), {"net": net}, "mine")
    with pytest.raises(StudioError, match="Unknown adapter 'mien'; did you mean 'mine'"):
        set_strength({"net": net}, "mien", 1.0)


def test_tensors_of_another_rank_are_refused(net, another):
    attach(Lora(rank=4, only=("to_q",)), {"net": net})
    fresh = another()
    attach(Lora(rank=8, only=("to_q",)), {"net": fresh})
    with pytest.raises(StudioError, match="does not fit Net: 2 tensors"):
        load_tensors(fresh, tensors(net))


def test_full_finetuning_swaps_in_the_first_weights_while_detached(net, see, move):
    base = see(net)
    move(net, attach(Full(), {"net": net})["net"])
    trained = see(net)
    with detached({"net": net}):
        assert torch.equal(see(net), base)
    assert torch.equal(see(net), trained)
    assert not torch.equal(trained, base)


def test_full_finetuning_without_a_kept_base_says_so(net):
    attach(Full(keep_base=False), {"net": net})
    with pytest.raises(StudioError, match="base weights were not kept"), detached({"net": net}):
        pass


def test_full_finetuning_can_be_pulled_back_to_the_first_weights(net, move):
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    move(net, attach(Full(only=("to_q",), pull=0.25), {"net": net})["net"])
    moved = {name: value.detach().clone() for name, value in net.named_parameters()}
    after_step({"net": net})
    for name, value in net.named_parameters():
        torch.testing.assert_close(value.detach() - before[name], 0.75 * (moved[name] - before[name]))


def test_a_pull_without_the_first_weights_is_refused():
    with pytest.raises(StudioError, match="needs the first weights"):
        Full(pull=0.1, keep_base=False)


def test_full_finetuning_of_some_parameters_freezes_the_others(net):
    found = attach(Full(only=("norm",)), {"net": net})["net"]
    assert found == {name for name, value in net.named_parameters() if value.requires_grad}
    assert {name.split(".")[1] for name in found} == {"norm", "group_norm"}


def test_lora_plus_gives_up_factors_their_own_rate(net):
    adapter = Lora(only=("to_q",), lr_ratio=16)
    rates = learning_rates(adapter, attach(adapter, {"net": net})["net"])
    assert {rate: {name.split(".")[2] for name in found} for rate, found in rates.items()} == {
        1.0: {"lora_A"}, 16.0: {"lora_B"},
    }  # fmt: skip


def test_groups_keep_the_names_that_checkpoints_know(net):
    adapter = Lora(only=("to_q",), lr_ratio=16)
    attached = attach(adapter, {"net": net})["net"]
    plain = groups(adapter, "net", net, attached, lr=0.5)
    assert [(one.name, one.lr, one.lr_scale) for one in plain] == [("net", 0.5, 1.0), ("net-fast", 0.5, 16.0)]
    assert [one.name for one in groups(adapter, "net", net, attached, numbered=True)] == ["net-0", "net-1"]


def test_odd_rank_with_orthogonal_start_is_refused():
    with pytest.raises(StudioError, match="needs an even rank, such as 4"):
        Lora(rank=3, init="orthogonal")
