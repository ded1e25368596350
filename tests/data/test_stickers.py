"""Facts of the sticker scenes."""

import json
import re

import pytest
import torch

from studio.data import sticker_backgrounds as backgrounds
from studio.data.sticker_captions import with_article
from studio.data.sticker_concepts import COLORS, FLAGSHIP, HELD_OUT, HELD_OUT_LABELS, STYLES, concepts
from studio.data.sticker_config import Stickers
from studio.data.stickers import (
    FOLDER,
    draw_scenes,
    held_out_pairs,
    index,
    is_held_out,
    load_sprites,
    names,
    place_objects,
    plan_scenes,
    write_captions,
)

EVERYTHING = Stickers(
    num_concepts=351, styles=STYLES, textured=0.5, gradient=0.2, centered=0.5, rotated=0.5, mirrored=0.5
)


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _captions(settings: Stickers, count: int) -> list[str]:
    plan = plan_scenes(settings, count, _rng(), painted=False)
    return write_captions(plan, settings, place_objects(plan, settings)[1])


def _mentions(text: str) -> list[str]:
    """Held-out names that occur as whole words."""
    return [name for name in HELD_OUT if re.search(rf"\b{re.escape(name)}\b", text.lower())]


def test_no_sprite_name_or_label_is_held_out():
    for row in index():
        assert not _mentions(row["name"])
        assert row["label"] not in HELD_OUT_LABELS


def test_no_caption_names_a_held_out_subject():
    captions = _captions(EVERYTHING, 3000)
    assert not [caption for caption in captions if _mentions(caption)]


def test_no_class_label_is_held_out():
    assert not set(names(351)) & set(HELD_OUT)


def test_the_index_holds_the_curated_concepts_in_order():
    assert [(row["label"], row["name"], row["group"]) for row in index()] == concepts()
    assert tuple(names(len(FLAGSHIP))) == FLAGSHIP


def test_every_concept_is_drawn_in_every_style():
    sprites = load_sprites()
    assert sprites.shape == (len(STYLES), len(index()), 4, 64, 64)
    assert (sprites[:, :, 3].flatten(2).float().mean(-1) > 10).all()


def test_sprites_are_premultiplied():
    sprites = load_sprites().int()
    assert (sprites[:, :, :3] <= sprites[:, :, 3:] + 1).all()


def test_scenes_are_a_function_of_the_generator():
    first, second = (draw_scenes(EVERYTHING, 12, _rng(3)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert first.captions == second.captions


def test_scenes_are_pictures_between_minus_one_and_one():
    images = draw_scenes(EVERYTHING, 128, _rng()).images
    assert images.shape == (128, 3, 64, 64)
    assert images.min() >= -1
    assert images.max() <= 1


@pytest.mark.parametrize("kind", range(len(backgrounds.KINDS)))
def test_every_background_is_painted(kind):
    scenes = draw_scenes(Stickers(textured=0.8, gradient=0.1), 256, _rng())
    images = scenes.images[scenes.kinds == kind]
    assert len(images)
    assert torch.isfinite(images).all()


def test_the_solid_background_has_the_named_color():
    settings = Stickers(textured=0, gradient=0, color_jitter=0)
    scenes = draw_scenes(settings, 32, _rng())
    palette = torch.tensor(list(COLORS.values())) / 127.5 - 1
    corner = scenes.images[:, :, 0, -1]
    assert torch.allclose(corner, palette[scenes.colors[:, 0]], atol=0.02)


def test_training_scenes_never_show_a_held_out_pair():
    plan = plan_scenes(EVERYTHING, 5000, _rng(), painted=False)
    assert not is_held_out(plan.concepts, plan.kinds, plan.colors[:, 0]).any()


def test_held_out_scenes_show_only_held_out_pairs():
    plan = plan_scenes(Stickers(), 500, _rng(), held_out=True)
    assert is_held_out(plan.concepts, plan.kinds, plan.colors[:, 0]).all()


def test_held_out_pairs_are_enough_for_two_hundred_prompts():
    assert len(held_out_pairs(40)) * 4 >= 200


def test_an_object_keeps_its_place_without_variety():
    settings = Stickers(centered=1, scale=(1, 1))
    maps, places = place_objects(plan_scenes(settings, 4, _rng()), settings)
    assert torch.allclose(maps, torch.eye(2, 3).expand(4, 2, 3), atol=1e-6)
    assert places == [""] * 4


def test_about_one_caption_in_seven_says_only_the_group():
    settings = Stickers()
    concepts_ = plan_scenes(settings, 2000, _rng(), painted=False).concepts.tolist()
    named = [
        index()[row]["name"] in text for row, text in zip(concepts_, _captions(settings, 2000), strict=True)
    ]
    assert 0.8 < sum(named) / len(named) < 0.9


@pytest.mark.parametrize(("noun", "said"), [("apple", "an apple"), ("fox", "a fox"), ("grapes", "grapes")])
def test_nouns_get_their_article(noun, said):
    assert with_article(noun) == said


def test_the_license_file_names_every_sheet():
    text = (FOLDER / "LICENSES.md").read_text("utf-8")
    sheets = [*FOLDER.glob("*.webp"), *FOLDER.glob("*.png")]
    assert {path.stem for path in sheets} == {*STYLES, "textures"}
    assert all(f"`{path.name}`" in text for path in sheets)


def test_the_index_is_sorted_json():
    text = (FOLDER / "index.json").read_text("utf-8")
    rows = json.loads(text)
    assert (
        text
        == "[\n" + ",\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows) + "\n]\n"
    )
