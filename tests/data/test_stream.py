"""The stream is a function of (seed, step): it starts anywhere, and the number of processes does not matter."""

import shutil
import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.backend.shard import Shard
from studio.contracts.batch import Source
from studio.data.buckets import shapes
from studio.data.build import images
from studio.data.captions import Words
from studio.data.config import Captions, Images
from studio.data.order import Order
from studio.errors import StudioError
from tests.data.conftest import draw, truncate

VARIED = Images(resolution=32, crop="random", flip=0.5, buckets=True, captions=Captions(dropout=0.3))
WORDS = Words("a {token} {class}, {red|green}, small", "sks", "dog")


def batches(source: Source, first: int, count: int, shard: Shard, seed: int = 7) -> list[dict]:
    stream = source.stream(seed, first, shard)
    taken = list(islice(stream, count))
    stream.close()
    return taken


def same(one: dict, two: dict) -> bool:
    equal = torch.equal(one["images"], two["images"]) and torch.equal(one["rows"], two["rows"])
    return equal and one["captions"] == two["captions"]


def test_images_are_in_their_range_and_rows_are_global(photos: Path):
    batch = batches(images(Images(resolution=32), photos), 3, 1, Shard(4, 0, 4))[0]
    assert batch["images"].shape == (4, 3, 32, 32)
    assert -1 <= batch["images"].min() < -0.9 < 0.9 < batch["images"].max() <= 1
    assert batch["rows"].tolist() == [12, 13, 14, 15]


def test_a_stream_started_in_the_middle_goes_on_as_the_whole_one(photos: Path):
    whole = batches(images(VARIED, photos, words=WORDS), 0, 8, Shard(4, 0, 4))
    later = batches(images(VARIED, photos, words=WORDS), 5, 3, Shard(4, 0, 4))
    assert all(same(one, two) for one, two in zip(whole[5:], later, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_see_the_global_batch(photos: Path, world: int):
    source = images(VARIED, photos, words=WORDS)
    whole = batches(source, 2, 6, Shard(4, 0, 4))
    size = 4 // world
    parts = [batches(source, 2, 6, Shard(4, rank * size, (rank + 1) * size)) for rank in range(world)]
    for step, batch in enumerate(whole):
        joined = torch.cat([part[step]["images"] for part in parts])
        assert torch.equal(joined, batch["images"])
        assert [text for part in parts for text in part[step]["captions"]] == batch["captions"]


def test_another_seed_gives_another_order(photos: Path):
    source = images(VARIED, photos)
    assert not same(
        batches(source, 0, 1, Shard(8, 0, 8), seed=1)[0], batches(source, 0, 1, Shard(8, 0, 8), seed=2)[0]
    )


def test_every_picture_is_seen_once_an_epoch():
    order = Order(0, 2, (tuple(range(6)),))
    seen = [index for step in range(3) for index in order.rows(step, 0, 2)]
    assert sorted(seen) == list(range(6))


def test_epochs_are_shuffled_anew():
    order = Order(0, 8, (tuple(range(8)),))
    assert order.rows(0, 0, 8) != order.rows(1, 0, 8)


def test_with_buckets_every_picture_is_seen_equally_often_and_a_batch_holds_one_bucket():
    buckets = ((0, 1, 2), (3,), (4, 5))
    order = Order(3, 4, buckets)
    steps = [order.rows(step, 0, 4) for step in range(6)]
    assert all(any(set(rows) <= set(bucket) for bucket in buckets) for rows in steps)
    assert Counter(index for rows in steps for index in rows) == dict.fromkeys(range(6), 4)


def test_buckets_keep_the_area_and_the_step():
    for shape in shapes(512, 64):
        assert shape.width % 64 == shape.height % 64 == 0
        assert 0.7 * 512**2 < shape.width * shape.height <= 512**2
    assert len(shapes(512, 64)) == len(set(shapes(512, 64))) > 4


def test_a_wide_picture_is_trained_wide(tmp_path: Path):
    draw(tmp_path / "a.png", (128, 64))
    batch = batches(images(Images(resolution=64, buckets=True), tmp_path), 0, 1, Shard(1, 0, 1))[0]
    height, width = batch["images"].shape[2:]
    assert width > 1.5 * height


def test_repeats_weigh_a_picture(tmp_path: Path):
    draw(tmp_path / "3_sks dog" / "a.png", seed=1)
    draw(tmp_path / "1_dog" / "b.png", seed=2)
    source = images(Images(resolution=32), tmp_path, words=Words("a {token} {class}"))
    captions = batches(source, 0, 1, Shard(8, 0, 8))[0]["captions"]
    assert Counter(captions) == {"a sks dog": 6, "a dog": 2}


def test_center_crop_takes_the_middle(tmp_path: Path):
    image = Image.new("RGB", (96, 32), "white")
    image.paste("black", (32, 0, 64, 32))
    image.save(tmp_path / "a.png")
    batch = batches(images(Images(resolution=32), tmp_path), 0, 1, Shard(1, 0, 1))[0]
    assert batch["images"].max() == -1


def test_flip_1_mirrors(tmp_path: Path):
    path = draw(tmp_path / "a.png", (32, 32))
    batch = batches(images(Images(resolution=32, flip=1.0), tmp_path), 0, 1, Shard(1, 0, 1))[0]
    mirrored = np.asarray(Image.open(path))[:, ::-1].transpose(2, 0, 1)
    assert np.allclose((batch["images"][0].numpy() + 1) * 127.5, mirrored, atol=1e-3)


def test_masks_are_cropped_with_their_pictures(tmp_path: Path):
    draw(tmp_path / "a.png", (32, 32))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "a-masklabel.png")
    batch = batches(images(Images(resolution=32, masks=True), tmp_path), 0, 1, Shard(1, 0, 1))[0]
    assert batch["loss_mask"].shape == (1, 1, 32, 32)
    assert batch["loss_mask"][0, 0, :, :12].min() == 1
    assert batch["loss_mask"][0, 0, :, 20:].max() == 0


def test_masks_that_are_not_there_are_missed(photos: Path):
    with pytest.raises(StudioError, match="masks is on, but no picture has a mask"):
        images(Images(resolution=32, masks=True), photos)


def test_a_closed_stream_leaves_no_threads(photos: Path):
    before = threading.active_count()
    batches(images(VARIED, photos), 0, 3, Shard(4, 0, 4))
    assert threading.active_count() == before


def test_a_bad_picture_among_good_ones_stops_before_training(photos: Path):
    truncate(draw(photos / "cut.jpg"))
    with pytest.raises(
        StudioError, match=r"cut\.jpg': it is damaged .*; replace or remove it, or set on_bad to 'skip'"
    ):
        images(Images(resolution=32), photos)


def test_a_bad_picture_is_skipped_by_choice_and_said(photos: Path):
    truncate(draw(photos / "cut.jpg"))
    (photos / "notes.jpg").write_text("no picture")
    source = images(Images(resolution=32, on_bad="skip"), photos)
    assert len(source) == 5
    assert [fact for fact in source.facts if "cut.jpg" in fact and fact.startswith("skipped")]


def test_several_bad_pictures_lead_to_the_check(photos: Path):
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_text("no picture")
    with pytest.raises(StudioError, match=r"1 more: run `studio data check"):
        images(Images(resolution=32), photos)


def test_a_picture_of_one_pixel_is_refused(photos: Path):
    draw(photos / "dot.png", (1, 1))
    with pytest.raises(StudioError, match=r"dot\.png': it has 1 x 1 pixels and would be enlarged 32 times"):
        images(Images(resolution=32), photos)


def test_a_picture_of_30000_pixels_a_side_is_skipped_by_choice(photos: Path, scan: Path):
    shutil.copy(scan, photos)
    assert len(images(Images(resolution=32, on_bad="skip"), photos)) == 5


def test_a_folder_of_only_bad_pictures_is_refused_even_with_skip(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(StudioError, match=r"None of the 1 pictures .* can be used; the first: .*a\.jpg"):
        images(Images(resolution=32, on_bad="skip"), tmp_path)


def test_a_resolution_that_does_not_divide_names_the_next_ones(photos: Path):
    with pytest.raises(StudioError, match=r"resolution 33 does not divide by 8, .* use 32 or 40") as caught:
        images(Images(resolution=33), photos)
    assert caught.value.field == "resolution"


def test_a_picture_named_but_not_there_is_said(tmp_path: Path):
    draw(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,one\ngone.png,two\n")
    with pytest.raises(StudioError, match=r"gone\.png': it does not exist"):
        images(Images(resolution=32), tmp_path)
