"""Image encoders: one contract for three libraries, squares instead of crops, any picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from studio.backend.core import Backend
from studio.errors import StudioError
from studio.models.vision_tower import load_tower, square, squares
from studio.settings.run import Hardware

TOWERS = {
    "tiny:clip": (17, 32, 24),
    "studio-tiny-clip": (65, 128, 192),
    "efficientnet-lite0": (17, 1280, 1280),
}


@pytest.fixture(scope="module")
def backend():
    return Backend(Hardware(device="cpu", precision="fp32"))


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_gives_a_token_for_the_whole_and_each_patch(name, backend):
    tower = load_tower(name, backend)
    seen = tower(torch.zeros(2, 3, 40, 40))
    assert (tower.num_tokens, tower.width, tower.pooled_width) == TOWERS[name]
    assert seen.tokens.shape == (2, tower.num_tokens, tower.width)
    assert seen.pooled.shape == (2, tower.pooled_width)
    assert not any(p.requires_grad for p in tower.parameters())


def test_a_folder_of_transformers_is_read_with_its_own_number_of_tokens(backend, tmp_path):
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7,
        projection_dim=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    assert load_tower(str(tmp_path), backend).num_tokens == (28 // 7) ** 2 + 1


def test_224_px_with_14_px_patches_are_257_tokens(backend, tmp_path):
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14,
        projection_dim=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    assert load_tower(str(tmp_path), backend).num_tokens == 257


def test_layers_are_counted_from_the_end(backend):
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    found = [load_tower("studio-tiny-clip", backend, layer=layer)(picture) for layer in (-1, -2, -6)]
    assert not torch.allclose(found[0].tokens, found[1].tokens)
    assert not torch.allclose(found[1].tokens, found[2].tokens)
    assert torch.allclose(found[0].pooled, found[2].pooled)


@pytest.mark.parametrize("name", ["tiny:clip", "studio-tiny-clip"])
def test_a_layer_that_is_not_there_is_one_sentence(name, backend):
    with pytest.raises(StudioError, match=f"'{name}' has no layer -9") as refused:
        load_tower(name, backend, layer=-9)
    assert refused.value.field == "layer"


def test_an_unknown_name_is_one_sentence(backend):
    with pytest.raises(StudioError, match="Unknown image encoder 'studio-clip'"):
        load_tower("studio-clip", backend)


def test_an_edge_that_a_center_crop_would_lose_is_seen():
    picture = Image.new("RGB", (90, 30), "black")
    picture.paste("red", (80, 0, 90, 30))
    assert square(picture, 30)[0].max() > 0.9


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_pictures_of_any_kind_and_size_become_squares(mode):
    found = square(Image.new("RGB", (301, 17), "white").convert(mode), 16)
    assert found.shape == (3, 16, 16)
    assert float(found.abs().max()) <= 1
    assert float(found[:, 0].abs().max()) == 0  # above and below the picture is nothing
    assert torch.allclose(found[:, 7], torch.ones(()), atol=0.01)


def test_what_is_cut_out_of_its_background_is_nothing():
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[2:6, 2:6] = (255, 0, 0, 255)
    found = square(Image.fromarray(pixels), 8)
    assert float(found[:, 0, 0].abs().max()) == 0
    assert found[:, 4, 4].tolist() == [1, -1, -1]


def test_no_reference_is_a_clear_error(backend):
    with pytest.raises(StudioError, match="no reference picture"):
        squares([], load_tower("tiny:clip", backend))
