"""Encoders that look closer: finer patches in the order of the picture, everything else as it was."""

import pytest
import torch
from einops import rearrange

from studio.backend.core import Backend
from studio.models.tiled_tower import tiled
from studio.models.vision_tower import load_tower
from studio.settings.run import Hardware


@pytest.fixture(scope="module")
def backend():
    return Backend(Hardware(device="cpu", precision="fp32"))


@pytest.mark.parametrize("name", ["tiny:clip", "studio-tiny-clip", "efficientnet-lite0"])
@pytest.mark.parametrize("layer", [-1, -3])
def test_tiles_make_patches_finer_and_leave_the_whole(name, layer, backend):
    plain = load_tower(name, backend, layer=layer)
    fine = tiled(plain, 2)
    assert (fine.size, fine.width, fine.pooled_width) == (2 * plain.size, plain.width, plain.pooled_width)
    assert fine.num_tokens == 4 * (plain.num_tokens - 1) + 1
    picture = torch.rand(2, 3, plain.size, plain.size) - 0.5  # nothing to clamp
    seen = fine(picture)
    small = torch.nn.functional.interpolate(picture, (fine.size, fine.size), mode="bicubic", antialias=True)
    again = torch.nn.functional.interpolate(small, picture.shape[-2:], mode="bicubic", antialias=True)
    assert torch.allclose(seen.pooled, plain(again).pooled, atol=1e-4)
    assert torch.allclose(seen.tokens[:, 0], plain(again).tokens[:, 0], atol=1e-4)


def test_patches_lie_in_the_order_of_the_picture(backend):
    plain = load_tower("tiny:clip", backend)
    fine = tiled(plain, 3)
    picture = torch.rand(1, 3, fine.size, fine.size) * 2 - 1
    side = int((plain.num_tokens - 1) ** 0.5)
    grid = rearrange(fine(picture).tokens[:, 1:], "1 (h w) d -> h w d", h=3 * side)
    tile = picture[..., 2 * plain.size :, plain.size : 2 * plain.size]
    own = rearrange(plain(tile).tokens[:, 1:], "1 (h w) d -> h w d", h=side)
    assert torch.allclose(grid[2 * side :, side : 2 * side], own, atol=1e-5)


def test_one_tile_is_the_encoder_itself(backend):
    plain = load_tower("tiny:clip", backend)
    assert tiled(plain, 1) is plain


@pytest.mark.parametrize("layer", [-1, -2, -6])
def test_tokens_alone_are_the_same_tokens(layer, backend):
    tower = load_tower("studio-tiny-clip", backend, layer=layer)
    pixels = torch.rand(2, 3, 64, 64)
    assert torch.equal(tower.tokens(pixels), tower.look(pixels).tokens)
