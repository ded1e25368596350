"""Pairs of pictures for one prompt, the better one and the worse one, as a stream of batches.

Two layouts:

- `chosen/` and `rejected/` hold pictures of the same names; the prompt of a pair is the caption of its chosen one
  (a .txt file beside it, or a metadata table, as for every folder of pictures).
- A table `pairs.jsonl`, `pairs.csv` or `pairs.parquet`, or a parquet of Pick-a-Pic: `prompt` (or `caption`) and `chosen`,
  `rejected` as files beside the table; or `jpg_0`, `jpg_1` as bytes with `label_0`, 1 where the first is better. Ties
  (0.5) are left out.

Axes: `b` pairs of a process, `h w` image.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import Rng, mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import buckets, images, layouts
from studio.data.buckets import Shape
from studio.data.files import csv_rows, json_lines
from studio.data.order import Order
from studio.data.prefetch import prefetch
from studio.errors import StudioError

TABLES = ("pairs.jsonl", "pairs.csv", "pairs.parquet")
PROMPTS = ("prompt", "caption", "text")
_VARIED = 0x9A125
"""Key of the numbers that captions and mirrors are drawn by, apart from those of order and noise."""


@dataclass(frozen=True)
class Picture:
    """A file, or its content where a table holds it."""

    path: Path
    content: bytes | None = None


@dataclass(frozen=True)
class Pair:
    """Two pictures for one prompt."""

    prompt: str
    chosen: Picture
    rejected: Picture


class Pairs:
    """A `Source` of `chosen`, `rejected` (b 3 h w in [-1, 1], center crops), their `..._sizes` (b 6), and `captions`."""

    def __init__(
        self, pairs: list[Pair], size: int, *, caption_dropout: float = 0.0, flip: float = 0.0
    ) -> None:
        """Take the pairs, and how they vary.

        Args:
            pairs: What there is.
            size: Side of the square that pictures are cropped to.
            caption_dropout: Share of captions that are empty instead, in [0, 1].
            flip: Share of pictures that are mirrored, each of a pair by itself, in [0, 1].
        """
        self.pairs, self._shape = pairs, Shape(size, size)
        self._dropout, self._flip = caption_dropout, flip

    def __len__(self) -> int:
        return len(self.pairs)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of steps `first`, `first + 1`, ...: the rows of `shard`, shuffled anew each time around."""
        order = Order(seed, shard.total, (tuple(range(len(self.pairs))),))

        def batch(step: int) -> Batch:
            rng = Rng(mix(seed, _VARIED), step, total=shard.total, start=shard.start, stop=shard.stop)
            return self._batch(order.rows(step, shard.start, shard.stop), rng)

        return prefetch(batch, first)

    def _batch(self, rows: list[int], rng: Rng) -> Batch:
        taken = [self.pairs[row] for row in rows]
        silent = (rng.uniform(len(rows)) < self._dropout).tolist()
        mirrored = (rng.uniform(len(rows), 2) < self._flip).tolist()
        batch: Batch = {
            "captions": ["" if drop else pair.prompt for pair, drop in zip(taken, silent, strict=True)]
        }
        for side, (key, pictures) in enumerate(
            (("chosen", [pair.chosen for pair in taken]), ("rejected", [pair.rejected for pair in taken]))
        ):
            found = [self._view(one, flip=flips[side]) for one, flips in zip(pictures, mirrored, strict=True)]
            batch[key] = torch.stack([pixels for pixels, _ in found])
            batch[f"{key}_sizes"] = torch.tensor([sizes for _, sizes in found])
        return batch

    def _view(self, picture: Picture, *, flip: bool) -> tuple[Float[Tensor, "3 h w"], buckets.Sizes]:
        shape = self._shape
        read = images.read(picture.path, needed=shape.width, content=picture.content)
        size = buckets.cover_size(*read.size, shape)
        view = buckets.centered(size, shape, flipped=flip)
        cut = buckets.cover(read.rgb, size).crop(
            (view.left, view.top, view.left + shape.width, view.top + shape.height)
        )
        pixels = rearrange(torch.from_numpy(np.array(cut)), "h w c -> c h w").float() / 127.5 - 1
        return pixels.flip(-1) if flip else pixels, buckets.sizes_of(read.size, size, shape, view)


def find_pairs(folder: str | Path) -> list[Pair]:
    """The pairs in a folder, in a fixed order.

    Raises:
        StudioError: There are none, a picture is missing or cannot be read, or a pair has no prompt.
    """
    place = Path(folder).expanduser()
    tables = [place / name for name in TABLES if (place / name).is_file()] or sorted(place.glob("*.parquet"))
    found = [pair for table in tables for pair in _of_table(table)] if tables else _of_folders(place)
    if not found:
        raise StudioError(
            f"There are no pairs in {str(folder)!r}; put pictures of equal names into chosen/ and rejected/, or write a "
            f"table {TABLES[0]} with prompt, chosen and rejected.",
            field="data",
        )
    for pair in found:
        for picture in (pair.chosen, pair.rejected):
            if picture.content is None:
                images.size(picture.path)
    return found


def _of_folders(place: Path) -> list[Pair]:
    if not (place / "chosen").is_dir() or not (place / "rejected").is_dir():
        return []
    chosen = {r.path.stem: r for r in layouts.find(place / "chosen").records}
    rejected = {r.path.stem: r for r in layouts.find(place / "rejected").records}
    if odd := sorted(chosen.keys() ^ rejected.keys()):
        raise StudioError(
            f"{len(odd)} pictures in {str(place)!r} have no partner, first {odd[0]!r}; chosen/ and rejected/ need the same "
            "file names.",
            field="data",
        )
    return [
        _pair(one.caption, Picture(one.path), Picture(rejected[name].path), str(one.path))
        for name, one in sorted(chosen.items())
    ]


def _of_table(table: Path) -> Iterator[Pair]:
    for number, row in enumerate(_rows(table), start=1):
        where = f"{table} row {number}"
        prompt = next((str(row[name]) for name in PROMPTS if row.get(name)), "")
        if "label_0" in row:
            if float(row["label_0"]) != 0.5:
                first, second = (Picture(Path(f"{where} {key}"), row[key]) for key in ("jpg_0", "jpg_1"))
                better = float(row["label_0"]) > 0.5
                yield _pair(prompt, *((first, second) if better else (second, first)), where)
            continue
        if missing := [name for name in ("chosen", "rejected") if not row.get(name)]:
            raise StudioError(
                f"{where} has no {missing[0]!r}; a pair needs prompt, chosen and rejected.", field="data"
            )
        chosen, rejected = (Picture(table.parent / str(row[name])) for name in ("chosen", "rejected"))
        yield _pair(prompt, chosen, rejected, where)


def _pair(prompt: str, chosen: Picture, rejected: Picture, where: str) -> Pair:
    if not prompt.strip():
        raise StudioError(
            f"{where} has no prompt; give one in the table, or as a .txt file beside it.", field="data"
        )
    return Pair(" ".join(prompt.split()), chosen, rejected)


def _rows(table: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if table.suffix == ".parquet":
            from pyarrow import parquet

            yield from parquet.read_table(table).to_pylist()
        elif table.suffix == ".csv":
            yield from csv_rows(table)
        else:
            yield from (row for _, row in json_lines(table))
    except (OSError, ValueError) as error:  # pyarrow's errors, JSON's and UTF-8's are ValueErrors
        raise StudioError(
            f"{table} cannot be read ({str(error).splitlines()[0]}); write it again.", field="data"
        ) from error
