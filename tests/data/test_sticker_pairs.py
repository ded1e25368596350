"""Twins of scenes: what is swapped, what is kept out, what repeats."""

import json

import pytest
import torch
from PIL import Image

from studio.backend.shard import Shard
from studio.data.sticker_config import StickerPairs
from studio.data.sticker_pairs import draw_twins, is_held_out
from studio.data.twins import FileTwins, StickerTwins
from studio.errors import StudioError

SETTINGS = StickerPairs(num_concepts=12)


def drawn(**how):
    return draw_twins(SETTINGS, 20, torch.Generator().manual_seed(3), **how)


def pairs(twins, row):
    return set(zip(twins.concepts[row].tolist(), twins.attributes[row].tolist(), strict=True))


def test_a_twin_shows_the_same_objects_with_the_attributes_swapped():
    twins = drawn()
    for row in range(0, 40, 2):
        (a, x), (b, y) = pairs(twins, row)
        assert pairs(twins, row + 1) == {(a, y), (b, x)}


def test_twins_use_the_same_words():
    twins = drawn()
    words = [sorted(text.split()) for text in twins.captions]
    assert all(a == b for a, b in zip(words[::2], words[1::2], strict=True))
    assert all(a != b for a, b in zip(twins.captions[::2], twins.captions[1::2], strict=True))


def test_training_never_shows_the_pairs_kept_for_the_exam():
    train, exam = drawn(), drawn(held_out=True, hard=False)
    assert not is_held_out(train.concepts, train.attributes).any()
    assert is_held_out(exam.concepts, exam.attributes).any(1).all()


def test_a_hard_batch_has_objects_from_a_pool_of_a_few():
    assert len(drawn().concepts.unique()) <= SETTINGS.pool


def test_styles_can_be_the_attribute():
    twins = draw_twins(StickerPairs(attribute="style"), 2, torch.Generator().manual_seed(0))
    assert any(style in twins.captions[0] for style in ("3d", "flat", "cartoon", "glossy"))
    assert twins.images.min() >= -1
    assert twins.images.max() <= 1


def test_a_shard_is_its_rows_of_the_whole_batch():
    whole = next(StickerTwins(SETTINGS).stream(0, 4, Shard(4, 0, 4)))
    half = next(StickerTwins(SETTINGS).stream(0, 4, Shard(4, 2, 4)))
    assert torch.equal(whole["images"][2:], half["images"])
    assert whole["captions"][2:] == half["captions"]


def test_an_odd_batch_is_refused():
    with pytest.raises(StudioError, match=r"loop.batch_size 3 is odd.*choose 4"):
        next(StickerTwins(SETTINGS).stream(0, 0, Shard(3, 0, 3)))


def item(folder, **changed):
    Image.new("RGB", (40, 40), "red").save(folder / "a.png")
    Image.new("RGB", (40, 40), "blue").save(folder / "b.png")
    values = {"image1": "a.png", "caption1": "red", "image2": "b.png", "caption2": "blue", **changed}
    file = folder / "twins.json"
    file.write_text(json.dumps([{k: v for k, v in values.items() if v}]))
    return str(file)


def test_a_file_of_twins_gives_its_pictures_and_captions(tmp_path):
    batch = next(FileTwins(item(tmp_path), 32).stream(0, 0, Shard(2, 0, 2)))
    assert batch["images"].shape == (2, 3, 32, 32)
    assert batch["captions"] == ["red", "blue"]
    assert batch["images"][0].mean() != batch["images"][1].mean() or batch["images"][0, 0].mean() == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image2": "c.png"}, "Item 0 names the picture .*c.png, which does not exist"),
        ({"caption1": ""}, "lacks caption1"),
    ],
)
def test_a_file_that_lacks_something_is_refused(tmp_path, changed, said):
    with pytest.raises(StudioError, match=said):
        FileTwins(item(tmp_path, **changed), 32)
