"""The sizes of a batch are what diffusers' train_dreambooth_lora_sdxl.py gives SDXL: written out here as the script has it."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.data.buckets import Shape, View, centered, cover_size, sizes_of
from studio.data.build import images
from studio.data.cache import Encoder
from studio.data.config import Images
from studio.data.folder_sets import FolderSets
from studio.data.set_config import SetFolder
from trainers.diffusion_dpo.pairs import Pairs, find_pairs


def by_the_script(original: tuple[int, int], resolution: int, crop: tuple[int, int] | None) -> list[int]:
    """DreamBoothDataset.__init__ and compute_time_ids; `crop` is what RandomCrop.get_params gave, None a center crop."""
    width, height = original
    original_size = (height, width)
    # train_resize = transforms.Resize(size): the shorter side becomes `size`
    short, long = min(width, height), max(width, height)
    resized = (resolution, int(resolution * long / short))
    width, height = resized if width <= height else resized[::-1]
    if crop is None:
        y1 = max(0, round((height - resolution) / 2.0))
        x1 = max(0, round((width - resolution) / 2.0))
    else:
        y1, x1 = crop
    crop_top_left = (y1, x1)
    target_size = (resolution, resolution)
    return list(original_size + crop_top_left + target_size)


def coordinates(path: Path, width: int, height: int, **options) -> None:
    """A picture whose red is the column and whose green is the row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
    Image.fromarray(np.dstack([columns, rows, np.zeros_like(rows)])).save(path, **options)


def taken(source: Source, count: int, batch: int = 2) -> list[Batch]:
    stream = source.stream(3, 0, Shard(batch, 0, batch))
    found = list(islice(stream, count))
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    return found


def corner(picture: torch.Tensor) -> tuple[int, int, bool]:
    """Column and row of the first pixel, and whether the picture is mirrored."""
    levels = ((picture + 1) / 2 * 255).round().long()
    return int(levels[0, 0, 0]), int(levels[1, 0, 0]), bool(levels[0, 0, 1] < levels[0, 0, 0])


@pytest.mark.parametrize("size", [(128, 96), (96, 128), (64, 64), (640, 400), (400, 640)])
def test_a_center_crop_has_the_script_s_numbers(size: tuple[int, int]) -> None:
    shape = Shape(64, 64)
    covering = cover_size(*size, shape)
    assert list(sizes_of(size, covering, shape, centered(covering, shape))) == by_the_script(size, 64, None)


def test_random_crops_and_flips_are_told_as_the_script_draws_them(tmp_path: Path) -> None:
    """The script mirrors the picture, then crops it: its column is read from the pixels that were cut."""
    coordinates(tmp_path / "a.png", 120, 64)
    source = images(Images(resolution=64, crop="random", flip=0.5), tmp_path)
    seen = set()
    for batch in taken(source, 20):
        for picture, sizes in zip(batch["images"], batch["sizes"].tolist(), strict=True):
            column, row, mirrored = corner(picture)
            x1 = 119 - column if mirrored else column
            assert sizes == by_the_script((120, 64), 64, (row, x1))
            seen.add((x1, mirrored))
    assert len(seen) > 10


def test_buckets_are_told_with_their_own_height_and_width(tmp_path: Path) -> None:
    coordinates(tmp_path / "wide.png", 128, 64)
    source = images(Images(resolution=64, buckets=True, bucket_step=8), tmp_path, multiple=8)
    (batch,) = taken(source, 1)
    height, width = batch["images"].shape[-2:]
    assert width > height
    assert batch["sizes"][0].tolist()[:2] == [64, 128]
    assert batch["sizes"][0].tolist()[4:] == [height, width]


def test_a_turned_file_is_told_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x112] = 6
    coordinates(tmp_path / "a.jpg", 128, 64, exif=turned)
    (batch,) = taken(images(Images(resolution=64), tmp_path), 1)
    assert batch["sizes"][0].tolist() == by_the_script((64, 128), 64, None)


def test_cached_latents_are_told_the_view_that_was_encoded(tmp_path: Path) -> None:
    coordinates(tmp_path / "data" / "a.png", 120, 64)
    settings = Images(
        resolution=64,
        crop="random",
        flip=0.5,
        cache="latents",
        cache_views=6,
        cache_folder=str(tmp_path / "cache"),
    )
    source = images(
        settings, tmp_path / "data", encoder=Encoder(encode=lambda x: {"latents": x}, fingerprint="a")
    )
    seen = set()
    for batch in taken(source, 12):
        for picture, sizes in zip(batch["latents"], batch["sizes"].tolist(), strict=True):
            column, row, mirrored = corner(picture)
            x1 = 119 - column if mirrored else column
            assert sizes == by_the_script((120, 64), 64, (row, x1))
            seen.add((x1, mirrored))
    assert len(seen) > 3


def test_a_mirrored_view_counts_from_its_other_side() -> None:
    shape, covering = Shape(64, 64), (100, 64)
    plain, mirrored = (sizes_of((200, 128), covering, shape, View(10, 0, flip)) for flip in (False, True))
    assert (plain[3], mirrored[3]) == (10, 26)


def test_pairs_and_members_of_sets_each_tell_their_own(tmp_path: Path) -> None:
    for kind, size in (("chosen", (128, 64)), ("rejected", (64, 96))):
        coordinates(tmp_path / "pairs" / kind / "a.png", *size)
        (tmp_path / "pairs" / kind / "a.txt").write_text("a dog")
    (batch,) = taken(Pairs(find_pairs(tmp_path / "pairs"), 32), 1)
    assert batch["chosen_sizes"][0].tolist() == by_the_script((128, 64), 32, None)
    assert batch["rejected_sizes"][0].tolist() == by_the_script((64, 96), 32, None)
    for name, size in (("a", (128, 64)), ("b", (64, 64))):
        coordinates(tmp_path / "sets" / "rex" / f"{name}.png", *size)
    (batch,) = taken(FolderSets(SetFolder(folder=str(tmp_path / "sets")), (3,), side=32), 1, batch=1)
    wanted = [by_the_script(size, 32, None) for size in ((128, 64), (64, 64))]
    assert sorted(batch["sizes"][0, :2].tolist()) == sorted(wanted)
    assert batch["sizes"].shape == (1, 3, 6)
