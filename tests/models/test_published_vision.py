"""Facts of the published CLIPs and classifiers that break trainers: activations, sizes, heads, layers that adapters sit on."""

import open_clip
import pytest
import timm
import torch
from timm.data import resolve_model_data_config

from studio.adapters.build import attach
from studio.adapters.config import Lora
from studio.data.config import Labelled
from studio.data.labelled import Canvas
from studio.errors import StudioError
from studio.models.clip_open import load_open_clip, quick_gelu
from studio.models.vit import load_classifier


@pytest.mark.parametrize(
    ("name", "tag", "quick"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B-16-SigLIP", "webli", False),
        ("ViT-B-32", "a/file.pt", False),
    ],
)
def test_openai_s_weights_get_the_activation_they_were_trained_with(name, tag, quick, monkeypatch):
    """Fact 29: the name of the model alone says gelu, and open_clip only warns."""
    asked = {}

    def create(source, **how):
        asked.update(how)
        raise RuntimeError("no weights here")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(StudioError, match="weights"):
        load_open_clip(name, None, tag)
    assert quick_gelu(name, tag) is asked["force_quick_gelu"] is quick


def test_an_exported_model_keeps_quick_gelu(tmp_path):
    small = {
        "embed_dim": 16, "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }  # fmt: skip
    network = open_clip.CLIP(**small)
    open_clip.set_model_preprocess_cfg(network, {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3})
    from studio.models.clip_open import OpenClip, preprocessing

    described = {"model_cfg": small, "preprocess_cfg": preprocessing(network)}
    OpenClip(network, open_clip.SimpleTokenizer(context_length=8), "x", described).save(network, tmp_path)
    again = load_open_clip("x", tmp_path)
    assert any(type(module).__name__ == "QuickGELU" for module in again.network.modules())


@pytest.mark.parametrize(
    ("name", "side", "mean", "crop"),
    [("vit_small_patch14_dinov2.lvd142m", 518, 0.485, 1.0), ("vit_small_patch16_dinov3.lvd1689m", 256, 0.485, 1.0),
     ("deit3_small_patch16_224.fb_in22k_ft_in1k", 224, 0.485, 1.0), ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224, 0.5, 0.9),
     ("resnet50.a1_in1k", 224, 0.485, 0.95)],
)  # fmt: skip
def test_pictures_are_prepared_in_each_model_s_own_size(name, side, mean, crop):
    """Fact 28."""
    with torch.device("meta"):
        facts = resolve_model_data_config(timm.create_model(name))
    canvas = Canvas(Labelled(train="x"), facts)
    assert canvas.side == side
    assert facts["mean"][0] == mean
    assert facts["crop_pct"] == crop


def test_a_model_without_classes_gets_a_head():
    """Fact 28: DINOv3 is timm's class Eva and has no classes."""
    model = load_classifier("new:vit_small_patch16_dinov3.lvd1689m", ("a", "b", "c"))
    assert model(torch.rand(1, 3, 256, 256)).shape == (1, 3)
    assert model.head_parameters() == {"network.head.weight", "network.head.bias"}


@pytest.mark.parametrize(
    ("name", "ends"),
    [("vit_small_patch16_dinov3", {"qkv", "proj", "fc1", "fc2"}), ("eva02_base_patch14_448", {"q_proj", "k_proj", "v_proj", "proj", "fc1_g", "fc1_x", "fc2"}),
     ("swin_tiny_patch4_window7_224", {"qkv", "proj", "fc1", "fc2"}), ("convnext_tiny", {"fc1", "fc2"})],
)  # fmt: skip
def test_an_adapter_reaches_the_blocks_of_timm_s_models(name, ends):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=2)
        found = attach(Lora(rank=2), {"m": model})["m"]
    assert {place.split(".lora_")[0].rsplit(".", 1)[-1] for place in found} == ends
