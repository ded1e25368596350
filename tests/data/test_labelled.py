"""Labelled pictures come from any common form, in [0, 1], the same at any world size."""

import gzip
import io
import json
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from PIL import Image
from pyarrow import parquet

from studio.backend.shard import Shard
from studio.data.config import Labelled
from studio.data.labelled import LabelledPhotos
from studio.data.order import spread
from studio.data.pools import split
from studio.errors import StudioError
from tests.data.conftest import draw

DATA_CONFIG = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "crop_pct": 0.875,
    "crop_mode": "center",
}
FASHION = Path("/usr/share/datasets/fashion-mnist")


def folders(root: Path, *, count: int = 5, size: tuple[int, int] = (32, 32)) -> Path:
    for label, name in enumerate(("cat", "dog", "emu")):
        for index in range(count):
            draw(root / name / f"{index}.png", size, seed=100 * label + index)
    return root


def photos(settings: Labelled, *, trains: bool = True) -> LabelledPhotos:
    parts = split(settings)
    return LabelledPhotos(settings, parts.train if trains else parts.test, DATA_CONFIG, trains=trains)


def batches(source: LabelledPhotos, first: int, count: int, shard: Shard) -> list[dict]:
    stream = source.stream(3, first, shard)
    taken = list(islice(stream, count))
    stream.close()
    return taken


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_idx(path: Path, content: np.ndarray) -> None:
    head = bytes([0, 0, 8, content.ndim]) + b"".join(size.to_bytes(4, "big") for size in content.shape)
    path.write_bytes(gzip.compress(head + content.tobytes(), 1))


def test_class_folders_give_sorted_classes_and_hold_some_pictures_out(tmp_path: Path):
    parts = split(Labelled(train=str(folders(tmp_path))))
    assert parts.classes == ("cat", "dog", "emu")
    assert np.bincount(parts.train.labels).tolist() == [4, 4, 4]
    assert np.bincount(parts.test.labels).tolist() == [1, 1, 1]
    assert not {parts.train.where(i) for i in range(12)} & {parts.test.where(i) for i in range(3)}


def test_a_test_folder_beside_the_training_folder_is_found(tmp_path: Path):
    folders(tmp_path / "train")
    folders(tmp_path / "val", count=2)
    for given in (tmp_path, tmp_path / "train"):
        parts = split(Labelled(train=str(given)))
        assert (len(parts.train), len(parts.test)) == (15, 6)


def test_images_are_in_0_to_1_and_labels_belong_to_them(tmp_path: Path):
    folders(tmp_path / "train")
    folders(tmp_path / "test")
    source = photos(Labelled(train=str(tmp_path), augment="none"))
    batch = batches(source, 0, 1, Shard(15, 0, 15))[0]
    assert batch["images"].shape == (15, 3, 32, 32)
    assert 0 <= batch["images"].min() < 0.01
    assert 0.99 < batch["images"].max() <= 1
    assert sorted(batch["labels"].tolist()) == [0] * 5 + [1] * 5 + [2] * 5
    dog = (
        torch.from_numpy(np.asarray(Image.open(tmp_path / "train" / "dog" / "0.png")).copy()).movedim(-1, 0)
        / 255
    )
    row = [index for index in range(15) if torch.equal(batch["images"][index], dog)]
    assert batch["labels"][row].tolist() == [1]


@pytest.mark.parametrize(
    "options",
    [
        {"augment": "crop-flip"},
        {"augment": "timm", "randaugment": "rand-m9-mstd0.5-inc1"},
        {"mixup": 0.8, "cutmix": 1.0},
    ],
    ids="-".join,
)
def test_processes_together_see_the_global_batch_from_any_step(tmp_path: Path, options: dict):
    source = photos(Labelled(train=str(folders(tmp_path)), **options))
    whole = batches(source, 0, 5, Shard(8, 0, 8))
    halves = [batches(source, 3, 2, Shard(8, start, start + 4)) for start in (0, 4)]
    for step in (0, 1):
        for key in {"images", "labels", "rows", "targets"} & set(whole[0]):
            joined = torch.cat([half[step][key] for half in halves])
            assert torch.equal(joined, whole[3 + step][key])


def test_augmenting_leaves_the_global_generators_alone(tmp_path: Path):
    source = photos(Labelled(train=str(folders(tmp_path)), augment="timm", mixup=0.5))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the state in question
    batches(source, 0, 2, Shard(4, 0, 4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002 - as above


def test_mixing_gives_soft_targets_that_sum_to_one(tmp_path: Path):
    source = photos(Labelled(train=str(folders(tmp_path)), mixup=0.8))
    targets = batches(source, 0, 1, Shard(8, 0, 8))[0]["targets"]
    assert targets.shape == (8, 3)
    assert torch.allclose(targets.sum(1), torch.ones(8))
    assert ((targets > 0) & (targets < 1)).any()


def test_held_out_pictures_are_not_varied_and_come_in_order(tmp_path: Path):
    folders(tmp_path / "train")
    folders(tmp_path / "test", count=3)
    source = photos(Labelled(train=str(tmp_path), mixup=0.8), trains=False)
    one, two = (list(source.ordered(4)) for _ in range(2))
    assert [len(batch["labels"]) for batch in one] == [4, 4, 1]
    assert torch.cat([batch["labels"] for batch in one]).tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(one, two, strict=True))


def test_a_look_sees_every_class_in_its_proportion_and_the_same_pictures_each_time(tmp_path: Path):
    folders(tmp_path / "train")
    folders(tmp_path / "test", count=8)
    source = photos(Labelled(train=str(tmp_path)), trains=False)
    one, two = source.look(6), source.look(6)
    assert one["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(one["rows"], two["rows"])
    assert len(source.look(1000)["labels"]) == 24


def test_examples_are_spread_over_classes_that_come_in_any_order():
    labels = [0, 1] * 50 + [2] * 100
    chosen = spread(labels, 20)
    assert sorted(np.bincount(np.array(labels)[chosen]).tolist()) == [5, 5, 10]
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_evaluation_is_timm_s_own_transform(tmp_path: Path):
    folders(tmp_path / "train", size=(80, 60))
    folders(tmp_path / "test", size=(80, 60))
    batch = next(photos(Labelled(train=str(tmp_path)), trains=False).ordered(1))
    own = timm.data.create_transform(**{**DATA_CONFIG, "mean": (0.0,) * 3, "std": (1.0,) * 3})
    expected = own(Image.open(tmp_path / "test" / "cat" / "0.png"))
    assert torch.allclose(batch["images"][0], expected)


def test_webdataset_shards_are_read(tmp_path: Path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as tar:
            for index in range(4):
                named = {f"{index}.png": png(index), f"{index}.cls": str(index % 2).encode()}
                if shard:
                    named = {
                        f"{index}.png": png(index),
                        f"{index}.json": json.dumps({"label": index % 2}).encode(),
                    }
                for name, content in named.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    parts = split(Labelled(train=str(tmp_path)))
    assert (len(parts.train), len(parts.test), parts.classes) == (6, 2, ("0", "1"))
    assert parts.train.load(0).size == (32, 32)


def test_hugging_face_parquet_gives_its_class_names(tmp_path: Path):
    rows = [{"image": {"bytes": png(index), "path": None}, "label": index % 2} for index in range(6)]
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    for part in ("train", "test"):
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "data" / f"{part}-00000-of-00001.parquet")
    parts = split(Labelled(train=str(tmp_path)))
    assert (len(parts.train), len(parts.test), parts.classes) == (6, 6, ("cat", "dog"))
    assert parts.test.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_hugging_face_folder_gives_labels_by_its_table(tmp_path: Path):
    rows = [{"file_name": f"{index}.png", "label": "ab"[index % 2]} for index in range(6)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for index in range(6):
        draw(tmp_path / f"{index}.png", seed=index)
    assert split(Labelled(train=str(tmp_path))).classes == ("a", "b")


def test_idx_files_are_read_as_debian_installs_them(tmp_path: Path):
    root = tmp_path / "fashion-mnist"
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        write_idx(
            root / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    settings = Labelled(train=str(root))
    parts = split(settings)
    assert (len(parts.train), len(parts.test), parts.classes[9]) == (30, 10, "ankle boot")
    batch = batches(photos(settings), 0, 1, Shard(4, 0, 4))[0]
    assert batch["images"].shape == (4, 3, 32, 32)
    assert torch.equal(batch["images"][:, 0], batch["images"][:, 1])


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_has_60000_and_10000_pictures_of_ten_classes():
    parts = split(Labelled(train=str(FASHION)))
    assert np.bincount(parts.train.labels).tolist() == [6000] * 10
    assert np.bincount(parts.test.labels).tolist() == [1000] * 10


def test_stickers_give_classes_and_held_out_scenes():
    settings = Labelled(train="stickers", sticker_classes=5, stickers_per_class=8)
    parts = split(settings)
    assert (len(parts.train), len(parts.test), len(parts.classes)) == (40, 40, 5)
    assert batches(photos(settings), 0, 1, Shard(4, 0, 4))[0]["images"].shape == (4, 3, 32, 32)


def test_shots_take_as_many_of_each_class(tmp_path: Path):
    parts = split(Labelled(train=str(folders(tmp_path)), shots=2))
    assert np.bincount(parts.train.labels).tolist() == [2, 2, 2]


def test_more_shots_than_pictures_are_refused(tmp_path: Path):
    with pytest.raises(StudioError, match="shots 9 is more than the 4 pictures of class 'cat'"):
        split(Labelled(train=str(folders(tmp_path)), shots=9))


def test_a_class_of_one_picture_is_named(tmp_path: Path):
    draw(folders(tmp_path) / "fox" / "only.png")
    with pytest.raises(StudioError, match=r"Class 'fox' in .* has 1 picture, and none is left to hold out"):
        split(Labelled(train=str(tmp_path)))


def test_a_single_class_is_refused(tmp_path: Path):
    draw(tmp_path / "cat" / "a.png")
    with pytest.raises(StudioError, match="has 1 class; a classifier needs at least 2"):
        split(Labelled(train=str(tmp_path)))


def test_a_picture_outside_the_class_folders_is_named(tmp_path: Path):
    draw(folders(tmp_path) / "stray.png")
    with pytest.raises(StudioError, match=r"stray\.png' has no class"):
        split(Labelled(train=str(tmp_path)))


def test_test_data_with_another_class_is_refused(tmp_path: Path):
    folders(tmp_path / "train")
    draw(folders(tmp_path / "test") / "fox" / "a.png")
    with pytest.raises(StudioError, match=r"1 classes that .* lacks \('fox'\)"):
        split(Labelled(train=str(tmp_path)))


def test_a_cut_off_idx_file_is_named(tmp_path: Path):
    for kind, shape in (("images-idx3", (4, 28, 28)), ("labels-idx1", (4,))):
        write_idx(tmp_path / f"train-{kind}-ubyte.gz", np.zeros(shape, np.uint8))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudioError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        split(Labelled(train=str(tmp_path)))


def test_a_bad_labelled_picture_is_named_or_skipped(tmp_path: Path):
    (folders(tmp_path) / "cat" / "bad.png").write_text("no picture")
    (tmp_path / "cat" / "worse.png").write_text("no picture")
    (tmp_path / "dog" / "worst.png").write_text("no picture")
    with pytest.raises(StudioError, match=r"\.png': it is not a picture"):
        photos(Labelled(train=str(tmp_path)))
    settings = Labelled(train=str(tmp_path), on_bad="skip")
    assert len(photos(settings)) + len(photos(settings, trains=False)) == 15


def test_randaugment_without_timm_is_refused():
    with pytest.raises(StudioError, match="randaugment 'rand-m9' has no effect with augment 'crop-flip'"):
        Labelled(train="x", randaugment="rand-m9")
