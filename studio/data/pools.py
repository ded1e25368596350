"""Labelled pictures, wherever they are: class folders, Hugging Face folders and parquet, tar files, idx, stickers."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from studio.backend.rng import mix
from studio.data import archives, layouts
from studio.data.archives import Source
from studio.data.config import Labelled
from studio.data.images import read
from studio.data.order import permutation
from studio.errors import StudioError

logger = logging.getLogger(__name__)

STICKERS = "stickers"
TEST_NAMES = ("test", "val", "valid", "validation", "t10k")
"""How the held-out part of a data set is named; the first that is there is taken."""
TRAIN_NAMES = ("train", "training")
HELD_OUT_SHARE = 0.1
"""Share of each class that is held out where no test data is given or found."""
_SHOTS, _HOLD_OUT, _SCENES = 11, 12, 13


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pictures with labels, read when asked for. `pixels` (n h w or n h w 3, uint8) holds them where they are small."""

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    load: Callable[[int], Image.Image]
    where: Callable[[int], str]
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: Sequence[int] | np.ndarray) -> "Pool":
        """Some of the pictures, in the order given."""
        index = np.asarray(chosen, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[index],
            load=lambda place: self.load(int(index[place])),
            where=lambda place: self.where(int(index[place])),
            pixels=None if self.pixels is None else self.pixels[index],
        )

    def fact(self) -> str:
        """The size of the pool in words."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return f"{self.name}: {len(self)} pictures, {len(self.classes)} classes of {counts.min()} to {counts.max()}"


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out."""

    train: Pool
    test: Pool

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.train.classes


def split(settings: Labelled) -> Split:
    """The training and the held-out pictures that the settings name.

    Raises:
        StudioError: If the data cannot be read, has one class only, or too few pictures of a class.
    """
    train = open_pool(settings.train, settings, held_out=False)
    if settings.test or has_test(settings.train):
        test = same_classes(open_pool(settings.test or settings.train, settings, held_out=True), train)
    else:
        train, test = _hold_out(train)
    if settings.shots:
        train = _few(train, settings.shots, settings.shots_seed)
    for pool in (train, test):
        logger.info(pool.fact())
    return Split(train, test)


def open_pool(where: str, settings: Labelled, *, held_out: bool) -> Pool:
    """One pool of pictures. With `held_out` the test part of a data set that has parts, else its training part.

    Raises:
        StudioError: If there is nothing that can be read, or only one class.
    """
    if where == STICKERS:
        return _stickers(settings, held_out=held_out)
    root = _part(Path(where).expanduser(), held_out=held_out)
    if files := archives.idx_files(root, held_out=held_out):
        pixels, labels = archives.read_idx(*files)
        return _from_pixels(str(root), _idx_classes(root, labels), labels, pixels)
    if tables := archives.data_files(root, ".parquet", held_out=held_out):
        return _from_sources(str(root), *archives.read_parquet(tables))
    if tars := archives.data_files(root, ".tar", held_out=held_out):
        return _from_sources(str(root), *archives.read_tar(tars))
    return _from_folders(root)


def has_test(where: str) -> bool:
    """Whether a data set has a test part of its own."""
    root = Path(where).expanduser()
    if where == STICKERS or archives.idx_files(root, held_out=True):
        return True
    if any(_matching(archives.data_files(root, suffix, held_out=True)) for suffix in (".parquet", ".tar")):
        return True
    return _part(root, held_out=True) != _part(root, held_out=False)


def same_classes(pool: Pool, other: Pool) -> Pool:
    """A pool with its labels in the order of another one's classes.

    Raises:
        StudioError: If it has a class that the other one lacks.
    """
    strange = sorted(set(pool.classes) - set(other.classes))
    if strange:
        shown = ", ".join(repr(name) for name in strange[:3])
        message = (
            f"{pool.name} has {len(strange)} classes that {other.name} lacks ({shown}); give both the same classes, "
            "by the same names."
        )
        raise StudioError(message, field="test")
    order = np.array([other.classes.index(name) for name in pool.classes])
    return replace(pool, classes=other.classes, labels=order[pool.labels])


def _matching(files: Sequence[Path]) -> bool:
    return any(path.name.lower().startswith(TEST_NAMES) for path in files)


def _part(root: Path, *, held_out: bool) -> Path:
    """The folder of a part of a data set: itself, or its `train` or `test` folder."""
    names = TEST_NAMES if held_out else TRAIN_NAMES
    base = root.parent if root.name.lower() in TRAIN_NAMES and held_out else root
    return next((base / name for name in names if (base / name).is_dir()), root)


def _checked(pool: Pool) -> Pool:
    """A pool that can be learned from.

    Raises:
        StudioError: If it has no pictures or only one class.
    """
    if len(pool.classes) < 2:
        message = (
            f"{pool.name} has {len(pool.classes)} class; a classifier needs at least 2: one folder for each."
        )
        raise StudioError(message, field="train")
    return pool


def _from_sources(name: str, sources: Sequence[Source], labels: np.ndarray, classes: tuple[str, ...]) -> Pool:
    def load(index: int) -> Image.Image:
        source = sources[index]
        return read(source.name, content=source.read()).rgb

    return _checked(
        Pool(name=name, classes=classes, labels=labels, load=load, where=lambda index: sources[index].name)
    )


def _from_pixels(name: str, classes: Sequence[str], labels: np.ndarray, pixels: np.ndarray) -> Pool:
    return _checked(
        Pool(
            name=name,
            classes=tuple(classes),
            labels=labels.astype(np.int64),
            load=lambda index: Image.fromarray(pixels[index]).convert("RGB"),
            where=lambda index: f"{name}, picture {index}",
            pixels=pixels,
        )
    )


def _from_folders(root: Path) -> Pool:
    """Class folders, one level below the root, or a metadata table with a label."""
    found = layouts.find(root)
    by_table = any(name.startswith("table") for name in found.summary.layouts)
    names = [
        record.class_name if by_table else _class_of(record.path.relative_to(root))
        for record in found.records
    ]
    if "" in names:
        stray = found.records[names.index("")].path
        message = f"Picture {str(stray)!r} has no class; put each in a folder named as its class, or name it in a table."
        raise StudioError(message, field="train")
    classes = tuple(sorted(set(names)))
    labels = np.array([classes.index(name) for name in names], dtype=np.int64)
    paths = [record.path for record in found.records]
    return _checked(
        Pool(
            name=str(root),
            classes=classes,
            labels=labels,
            load=lambda index: read(paths[index]).rgb,
            where=lambda index: str(paths[index]),
        )
    )


def _class_of(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else ""


def _idx_classes(root: Path, labels: np.ndarray) -> tuple[str, ...]:
    if "fashion" in str(root).lower():
        return archives.FASHION_CLASSES
    return tuple(str(label) for label in range(int(labels.max()) + 1))


def _stickers(settings: Labelled, *, held_out: bool) -> Pool:
    """Sticker scenes; the held-out ones show pairs of object and background that training never sees."""
    from studio.data.stickers import names

    pixels, labels = _scenes(settings.stickers_per_class, settings.sticker_classes, held_out)
    part = "held out" if held_out else "training"
    return _from_pixels(f"stickers ({part})", names(settings.sticker_classes), labels, pixels)


@lru_cache(maxsize=4)
def _scenes(per_class: int, num_classes: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels, drawn once a process: an evaluation after training sees the same ones."""
    import torch

    from studio.data.sticker_config import Stickers
    from studio.data.stickers import draw_scenes

    scenes = Stickers(num_concepts=num_classes, styles=("3d", "flat", "cartoon", "glossy"))
    count = per_class * num_classes
    generator = torch.Generator().manual_seed(mix(_SCENES, held_out))
    pixels, labels = [], []
    for start in range(0, count, 256):
        drawn = draw_scenes(scenes, min(256, count - start), generator, held_out=held_out)
        pixels.append(((drawn.images + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).numpy())
        labels.append(drawn.concepts.numpy())
    pictures, known = np.concatenate(pixels), np.concatenate(labels)
    pictures.flags.writeable = known.flags.writeable = False  # shared by all who ask
    return pictures, known


def _hold_out(pool: Pool) -> tuple[Pool, Pool]:
    """Training and held-out pictures, `HELD_OUT_SHARE` of each class and at least one.

    Raises:
        StudioError: If a class has only one picture.
    """
    counts = Counter(pool.labels.tolist())
    for label, count in sorted(counts.items()):
        if count < 2:
            message = (
                f"Class {pool.classes[label]!r} in {pool.name} has 1 picture, and none is left to hold out; add some, "
                "or give test data."
            )
            raise StudioError(message, field="train")
    kept, held = [], []
    for label in sorted(counts):
        members = _shuffled(pool, label, _HOLD_OUT)
        share = max(round(HELD_OUT_SHARE * len(members)), 1)
        held += members[:share]
        kept += members[share:]
    logger.info("no test data: %d of %d pictures are held out", len(held), len(pool))
    return pool.subset(sorted(kept)), pool.subset(sorted(held))


def _few(pool: Pool, shots: int, seed: int) -> Pool:
    """A number of pictures of each class.

    Raises:
        StudioError: If a class has fewer.
    """
    chosen: list[int] = []
    for label, name in enumerate(pool.classes):
        members = _shuffled(pool, label, _SHOTS, seed)
        if len(members) < shots:
            message = (
                f"shots {shots} is more than the {len(members)} pictures of class {name!r}; ask for fewer."
            )
            raise StudioError(message, field="shots")
        chosen += members[:shots]
    return pool.subset(sorted(chosen))


def _shuffled(pool: Pool, label: int, *keys: int) -> list[int]:
    """The places of a class in a shuffled order."""
    members = np.flatnonzero(pool.labels == label)
    return members[permutation(len(members), *keys, label)].tolist()
