"""Labelled pictures inside larger files: idx (MNIST), parquet (Hugging Face datasets), tar (webdataset)."""

import gzip
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.data.layouts import EXTENSIONS
from studio.errors import StudioError

FASHION_CLASSES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
"""Names of Fashion-MNIST's labels 0 to 9 (Xiao et al. 2017, arXiv 1708.07747, table 2)."""
IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
_TEST = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Source:
    """The bytes of one picture, read when asked for."""

    name: str
    read: Callable[[], bytes]


def idx_files(root: Path, *, held_out: bool) -> tuple[Path, Path] | None:
    """Picture and label file of a part of an MNIST-like data set, if it is one."""
    part = "t10k" if held_out else "train"
    for ending in (".gz", ""):
        images, labels = (root / f"{part}-{kind}-ubyte{ending}" for kind in ("images-idx3", "labels-idx1"))
        if images.is_file() and labels.is_file():
            return images, labels
    return None


def read_idx(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n h w) and labels (n), both uint8.

    Raises:
        StudioError: If a file is not idx, is cut off, or the two do not belong together.
    """
    pixels, numbers = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(numbers):
        message = (
            f"{images} has {len(pixels)} pictures but {labels} has {len(numbers)} labels; get both again."
        )
        raise StudioError(message, field="train")
    return pixels, numbers


def _read_idx(path: Path, num_axes: int) -> np.ndarray:
    """An idx file: two zeros, type 8, number of axes, their sizes as big-endian integers, then the bytes."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise StudioError(f"{path} cannot be read ({error}); get it again.", field="train") from error
    start = 4 + 4 * num_axes
    sizes = np.frombuffer(content[4:start], ">u4").astype(int).tolist()
    if content[:4] != bytes([0, 0, 8, num_axes]) or len(content) - start != int(np.prod(sizes)):
        raise StudioError(f"{path} is not a whole idx file of {num_axes} axes; get it again.", field="train")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def data_files(root: Path, suffix: str, *, held_out: bool) -> list[Path]:
    """Data files of a part, by how their names begin; all of them where no name says a part. `metadata` is no data."""
    if root.is_file():
        return [root] if root.suffix == suffix else []
    found = [
        path for path in [*root.glob(f"*{suffix}"), *root.glob(f"data/*{suffix}")] if path.stem != "metadata"
    ]
    tests = [path for path in found if path.name.lower().startswith(_TEST)]
    others = [path for path in found if path not in tests]
    return sorted(tests if held_out and tests else others or tests)


def read_parquet(files: Sequence[Path]) -> tuple[list[Source], np.ndarray, tuple[str, ...]]:
    """Pictures, labels and classes of parquet files as Hugging Face's datasets writes them.

    Raises:
        StudioError: If one cannot be read or lacks a picture or label column.
    """
    sources: list[Source] = []
    values: list[Any] = []
    names: tuple[str, ...] = ()
    for file in files:
        table, names = _table(file)
        columns = table.column_names
        image, label = _column(file, columns, IMAGE_COLUMNS), _column(file, columns, LABEL_COLUMNS)
        for number, cell in enumerate(table.column(image).to_pylist()):
            content = cell["bytes"] if isinstance(cell, dict) else cell
            sources.append(Source(f"{file} row {number}", _constant(content)))
        values += table.column(label).to_pylist()
    return sources, *_labels(values, names)


def _table(file: Path) -> tuple[Any, tuple[str, ...]]:
    """A parquet table, and the class names that its Hugging Face metadata gives."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise StudioError(
            f"{file} is not a readable parquet file ({error}); get it again.", field="train"
        ) from error
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    found = next((features[name]["names"] for name in LABEL_COLUMNS if "names" in features.get(name, {})), ())
    return table, tuple(found)


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _column(file: Path, columns: Sequence[str], allowed: Sequence[str]) -> str:
    """The first allowed column that is there."""
    for name in allowed:
        if name in columns:
            return name
    message = f"{file} has no column {' or '.join(allowed)} (columns: {', '.join(columns)}); rename one."
    raise StudioError(message, field="train")


def read_tar(files: Sequence[Path]) -> tuple[list[Source], np.ndarray, tuple[str, ...]]:
    """Pictures, labels and classes of webdataset shards: `KEY.jpg` beside `KEY.cls` or `KEY.json` with a label.

    Raises:
        StudioError: If one cannot be read or a picture has no label.
    """
    sources: list[Source] = []
    values: list[Any] = []
    for file in files:
        pictures, labels = _members(file)
        for key, source in sorted(pictures.items()):
            if key not in labels:
                message = f"{source.name} has no label; webdataset puts {key}.cls or {key}.json beside it."
                raise StudioError(message, field="train")
            sources.append(source)
            values.append(labels[key])
    return sources, *_labels(values, ())


def _members(file: Path) -> tuple[dict[str, Source], dict[str, Any]]:
    """Pictures and labels of one shard, by key."""
    pictures: dict[str, Source] = {}
    labels: dict[str, Any] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if f".{ending.lower()}" in EXTENSIONS:
                    pictures[key] = Source(
                        f"{file}:{member.name}", _slice(file, member.offset_data, member.size)
                    )
                elif ending in {"cls", "json"}:
                    labels[key] = _label(file, member.offset_data, member.size, ending)
    except (tarfile.TarError, ValueError, KeyError) as error:
        raise StudioError(
            f"{file} is not a readable webdataset shard ({error}); get it again.", field="train"
        ) from error
    return pictures, labels


def _slice(file: Path, start: int, length: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with file.open("rb") as opened:
            opened.seek(start)
            return opened.read(length)

    return read


def _label(file: Path, start: int, length: int, ending: str) -> Any:
    text = _slice(file, start, length)().decode()
    if ending == "cls":
        return int(text) if text.strip().isdigit() else text.strip()
    row = json.loads(text)
    return next(row[name] for name in LABEL_COLUMNS if name in row)


def _labels(values: Sequence[Any], names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as integers, and the names of the classes: those given, the texts found, or the numbers themselves."""
    if all(isinstance(value, int) for value in values):
        count = max(values, default=-1) + 1
        return np.array(values, dtype=np.int64), names or tuple(str(label) for label in range(count))
    classes = tuple(sorted({str(value) for value in values}))
    return np.array([classes.index(str(value)) for value in values], dtype=np.int64), classes
