"""Condition views: nothing outside the mask, areas, captions, and streams that repeat."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from studio.backend.shard import Shard
from studio.data.masked import MaskedPhotos, Wanted, view_source
from studio.data.sticker_views import StickerViews, concepts, named
from studio.data.view_config import Views
from studio.data.views import NUMBERS, boxes, cut_out, fill, see, turn_hues
from studio.errors import StudioError

WANTED = Wanted(24, 32, 8, placeholder="sks", nouns=("dog", "ice cream"))
STILL = Views(rotation=0.0, scale=(1.0, 1.0), flip=0.0)


def disks(count=2, size=16):
    line = torch.arange(size) - size / 2 + 0.5
    mask = ((line[:, None] ** 2 + line**2) < 16).float().expand(count, 1, -1, -1)
    return torch.rand(count, 3, size, size) * 2 - 1, mask


def photo(folder, name, *, share, caption="a photo of a dog on grass", mask=True):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    if mask:
        pixels[round(32 * share) :, :, 3] = 0
    Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text(caption)


def test_pixels_outside_the_mask_are_exactly_zero():
    images, masks = disks()
    found = cut_out(images, masks)
    assert not found[:, :3][(masks == 0).expand(-1, 3, -1, -1)].any()
    assert torch.equal(
        found[:, :3][(masks == 1).expand(-1, 3, -1, -1)], images[(masks == 1).expand(-1, 3, -1, -1)]
    )


def test_a_view_is_cropped_to_its_object():
    images, masks = disks()
    middle, half = boxes(masks)
    assert torch.allclose(middle, torch.zeros(2, 2))
    assert torch.allclose(half, torch.full((2,), 0.5))
    seen = see(cut_out(images, masks), STILL, torch.zeros(2, NUMBERS), 8)
    assert float(seen[:, 3:].mean()) > 0.7  # the disk fills its square, pi / 4


def test_a_picture_without_an_object_is_seen_whole():
    middle, half = boxes(torch.zeros(1, 1, 8, 8))
    assert middle.tolist() == [[0, 0]]
    assert half.tolist() == [1]


def test_views_turn_and_flip_as_their_numbers_say():
    images, masks = disks()
    cut = cut_out(images, masks)
    plain = see(cut, STILL, torch.zeros(2, NUMBERS), 16)
    flipped = see(cut, dataclasses.replace(STILL, flip=1.0), torch.zeros(2, NUMBERS), 16)
    assert torch.allclose(flipped, plain.flip(3), atol=1e-5)
    turned = see(cut, dataclasses.replace(STILL, rotation=180.0), torch.ones(2, NUMBERS), 16)
    assert torch.allclose(turned, plain.flip(2, 3), atol=1e-4)


def test_a_background_stands_only_where_nothing_is():
    images, masks = disks()
    seen = see(cut_out(images, masks), STILL, torch.zeros(2, NUMBERS), 16)
    filled = fill(
        seen, torch.ones(2, 3, 16, 16), dataclasses.replace(STILL, background=1.0), torch.zeros(2, NUMBERS)
    )
    assert torch.allclose(filled[:, :, 0, 0], torch.ones(2, 3))
    assert torch.equal(fill(seen, torch.ones(2, 3, 16, 16), STILL, torch.zeros(2, NUMBERS)), seen[:, :3])


def test_turned_hues_keep_brightness_and_come_back_after_a_circle():
    sprites = torch.rand(3, 4, 4, 4)
    sprites[:, 3] = 1
    assert torch.allclose(turn_hues(sprites, torch.ones(3)), sprites, atol=1e-5)
    gray = torch.full((1, 4, 2, 2), 0.5)
    assert torch.allclose(turn_hues(gray, torch.tensor([0.3])), gray, atol=1e-6)
    red = torch.tensor([1.0, 0, 0, 1])[None, :, None, None]
    assert torch.allclose(
        turn_hues(red, torch.tensor([1 / 3]))[0, :, 0, 0], torch.tensor([0.0, 1, 0, 1]), atol=1e-5
    )


def test_sticker_scenes_repeat_and_start_anywhere():
    source = StickerViews(Views(), 24, placeholder="sks")
    from_start, from_two = source.stream(3, 0, Shard(4, 0, 4)), source.stream(3, 2, Shard(4, 2, 4))
    third = [next(from_start) for _ in range(3)][2]
    part = next(from_two)
    assert torch.equal(third["views"][2:], part["views"])
    assert third["captions"][2:] == part["captions"]
    assert all("sks " in caption for caption in third["captions"])
    assert third["views"].shape == (4, 1, 3, 24, 24)


def test_a_mirrored_sticker_is_mirrored_in_its_picture_and_its_view():
    def drawn(mirrored):
        scenes = dataclasses.replace(STILL.scenes, mirrored=mirrored, centered=1.0)
        settings = dataclasses.replace(STILL, scenes=scenes, hue=0.0)
        return next(StickerViews(settings, 64).stream(0, 0, Shard(8, 0, 8)))

    plain, other = drawn(0.0), drawn(1.0)
    assert torch.allclose(other["views"], plain["views"].flip(4), atol=0.02)
    assert not torch.allclose(other["views"], plain["views"], atol=0.5)
    moved = (other["images"] - plain["images"]).abs().mean()
    apart = (other["images"] - plain["images"].flip(3)).abs().mean()
    assert moved > 0.01
    assert apart > 0.01  # the sticker is mirrored, not the picture


def test_a_view_has_the_side_of_its_picture():
    """The view of an object alone, laid over its picture, fits better than its mirror image."""
    settings = dataclasses.replace(
        STILL,
        hue=0.0,
        scenes=dataclasses.replace(
            STILL.scenes, textured=0.0, gradient=0.0, centered=1.0, scale=(0.86, 0.86)
        ),
    )
    batch = next(StickerViews(settings, 64).stream(1, 0, Shard(64, 0, 64)))
    small = torch.nn.functional.interpolate(batch["views"][:, 0], (55, 55), mode="bilinear", antialias=True)
    pictures = batch["images"][..., 4:59, 4:59]
    there = small.abs().amax(1, keepdim=True) > 0.05

    def distance(views, mask):
        return (((pictures - views).abs() * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()

    assert distance(small, there) < 0.8 * distance(small.flip(3), there.flip(3))


def test_steps_have_up_to_so_many_views_of_each_object():
    source, one = StickerViews(Views(), 24, num_views=3), StickerViews(Views(), 24)
    stream, plain = source.stream(0, 0, Shard(2, 0, 2)), one.stream(0, 0, Shard(2, 0, 2))
    numbers = set()
    for _ in range(12):
        views, alone = next(stream)["views"], next(plain)["views"]
        assert torch.equal(views[:, :1], alone)
        assert all(not torch.equal(views[:, 0], views[:, i]) for i in range(1, views.shape[1]))
        numbers.add(views.shape[1])
    assert numbers == {1, 2, 3}


def test_pictures_of_a_folder_have_several_views(tmp_path):
    photo(tmp_path, "good", share=0.5)
    wanted = dataclasses.replace(WANTED, num_views=3)
    stream = view_source(str(tmp_path), Views(), wanted).stream(0, 0, Shard(2, 0, 2))
    found = [next(stream)["views"] for _ in range(9)]
    assert {views.shape[1] for views in found} == {1, 2, 3}
    many = next(views for views in found if views.shape[1] == 3)
    assert many.shape == (2, 3, 3, 24, 24)
    assert not torch.equal(many[:, 0], many[:, 1])


def test_validation_shows_concepts_that_training_never_does():
    training, validation = (set(concepts(351, held_out=out).tolist()) for out in (False, True))
    assert validation
    assert not training & validation
    assert training | validation == set(range(351))


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a photo of an ice cream", "a photo of a sks ice cream"),
        ("the dog sleeps", "the sks dog sleeps"),
        ("a small dog, dog food", "a small sks dog, dog food"),
        ("a hotdog", "a hotdog"),
    ],
)
def test_the_placeholder_goes_before_the_noun(caption, wanted):
    assert named(caption, ("ice", "ice cream", "dog"), "sks") == wanted


def test_pictures_that_do_not_fit_are_left_out_with_their_reason(tmp_path):
    photo(tmp_path, "good", share=0.5)
    photo(tmp_path, "large", share=0.9)
    photo(tmp_path, "small", share=0.05)
    photo(tmp_path, "bare", share=1, mask=False)
    photo(tmp_path, "other", share=0.5, caption="a cat")
    source = view_source(str(tmp_path), STILL, WANTED)
    assert isinstance(source, MaskedPhotos)
    assert len(source) == 1
    left_out = " ".join(fact for fact in source.facts if "left out" in fact)
    for reason in ("covers 0.9", "covers 0.06", "it has no mask", "names none of dog"):
        assert reason in left_out
    batch = next(source.stream(0, 0, Shard(2, 0, 2)))
    assert batch["captions"] == ["a photo of a sks dog on grass"] * 2
    assert batch["views"].shape == (2, 1, 3, 24, 24)
    assert "loss_mask" not in batch


def test_pictures_without_masks_must_be_asked_for(tmp_path):
    photo(tmp_path, "bare", share=1, mask=False)
    with pytest.raises(StudioError, match=r"views\.mask none"):
        view_source(str(tmp_path), STILL, WANTED)
    assert len(view_source(str(tmp_path), dataclasses.replace(STILL, mask="none"), WANTED)) == 1


def test_cached_latents_are_refused():
    with pytest.raises(StudioError, match=r"images\.cache"):
        Views(images={"cache": "latents"})
