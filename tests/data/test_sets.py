"""Same-subject sets: functions of (seed, step), one size a step, one subject a set."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from studio.backend.shard import Shard
from studio.data.folder_sets import FolderSets
from studio.data.set_config import SetFolder, StickerSets, check_sets
from studio.data.sticker_config import Stickers
from studio.data.sticker_sets import StickerSetSource
from studio.data.sticker_views import concepts
from studio.errors import StudioError

PLAIN = StickerSets(scenes=Stickers(num_concepts=351), hue=0.0, mirror=0.0, stretch=0.0, turn=0.0)


def first(source, count=4, seed=0, step=0):
    return next(source.stream(seed, step, Shard(count, 0, count)))


def test_a_stream_of_stickers_starts_anywhere_and_gives_each_process_its_rows():
    source = StickerSetSource(StickerSets(), (2, 3))
    whole = list(itertools.islice(source.stream(1, 0, Shard(4, 0, 4)), 4))
    late = next(source.stream(1, 3, Shard(4, 2, 4)))
    assert torch.equal(late["images"], whole[3]["images"][2:])
    assert late["captions"] == whole[3]["captions"][2:]


def test_a_step_has_one_size_and_all_sizes_come():
    source = StickerSetSource(StickerSets(), (2, 4))
    sizes = {b["images"].shape[1] for b in itertools.islice(source.stream(0, 0, Shard(2, 0, 2)), 12)}
    assert sizes == {2, 4}
    batch = first(source)
    assert all(len(captions) == batch["images"].shape[1] for captions in batch["captions"])


def test_members_show_one_sticker_on_different_backgrounds():
    scenes = Stickers(num_concepts=351, scale=(0.8, 0.8), centered=1.0, textured=0.0, gradient=0.0)
    source = StickerSetSource(StickerSets(scenes=scenes, mirror=0, stretch=0, turn=0, other_style=0), (2,))
    images = first(source, 32)["images"]
    middle, edge = images[..., 26:38, 26:38], images[..., :3, :3]
    within = (middle[:, 0] - middle[:, 1]).abs().mean()
    between = (middle[:, 0] - middle[:, 0].roll(1, 0)).abs().mean()
    assert within < between / 2
    assert (edge[:, 0] - edge[:, 1]).abs().mean() > 0.2


def test_held_out_sets_show_other_concepts():
    training, kept = concepts(351, held_out=False), concepts(351, held_out=True)
    assert not set(training.tolist()) & set(kept.tolist())
    a, b = (first(StickerSetSource(PLAIN, (2,), held_out=h))["captions"] for h in (False, True))
    assert a != b


@pytest.fixture
def folder(tmp_path):
    """A set of three, one of two, and a lone picture."""
    draw = np.random.default_rng(0)
    for name, count in (("rex_1", 3), ("mug", 2), ("lone", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = draw.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    (tmp_path / "mug" / "0.txt").write_text("a mug on a table")
    return tmp_path


def test_folders_are_sets_with_captions_and_padding(folder):
    source = FolderSets(SetFolder(folder=str(folder)), (3,), side=32)
    assert len(source) == 2
    assert any("lone" in fact for fact in source.facts)
    batch = first(source, 2)
    assert batch["images"].shape == (2, 3, 3, 32, 32)
    by_size = {
        int(row.sum()): captions for row, captions in zip(batch["present"], batch["captions"], strict=True)
    }
    assert by_size[3] == ["a photo of rex"] * 3
    assert sorted(by_size[2]) == ["", "a mug on a table", "a photo of mug"]


def test_a_stream_of_folders_starts_anywhere(folder):
    source = FolderSets(SetFolder(folder=str(folder), flip=0.5), (2, 3), side=32)
    whole = list(itertools.islice(source.stream(1, 0, Shard(2, 0, 2)), 3))
    late = next(source.stream(1, 2, Shard(2, 1, 2)))
    assert torch.equal(late["images"], whole[2]["images"][1:])


def test_folders_without_sets_are_refused(tmp_path):
    with pytest.raises(StudioError, match="holds no set"):
        FolderSets(SetFolder(folder=str(tmp_path)), (2,), side=32)
    with pytest.raises(StudioError, match="does not exist"):
        check_sets(SetFolder(folder=str(tmp_path / "none")))
