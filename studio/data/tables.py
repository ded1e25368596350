"""Metadata tables of Hugging Face's imagefolder layout: `metadata.jsonl`, `.csv` or `.parquet`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.data.files import csv_rows, json_lines
from studio.errors import StudioError

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE_COLUMNS = ("file_name", "image_file_name", "image")
CAPTION_COLUMNS = ("text", "caption", "prompt", "description")
CLASS_COLUMNS = ("label", "class", "class_name")
MASK_COLUMNS = ("mask_file_name", "mask")


@dataclass(frozen=True)
class Row:
    """One line of a table; what it does not have is empty."""

    file_name: str
    caption: str
    class_name: str
    mask: str


def table_of(folder: Path) -> Path | None:
    """The metadata table in a folder, if any."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def rows(table: Path) -> Iterator[Row]:
    """The rows of a table, in its order.

    Raises:
        StudioError: If it cannot be read or names no files.
    """
    for number, row in enumerate(_raw(table), start=1):
        file_name = _first(row, FILE_COLUMNS)
        if not file_name:
            columns = ", ".join(sorted(str(name) for name in row)) or "none"
            message = (
                f"{table} row {number} names no picture; it needs a column file_name (columns: {columns})."
            )
            raise StudioError(message, field="data")
        caption = " ".join(_first(row, CAPTION_COLUMNS).split())
        yield Row(file_name, caption, _first(row, CLASS_COLUMNS), _first(row, MASK_COLUMNS))


def _first(row: dict[str, Any], columns: tuple[str, ...]) -> str:
    """The first of some columns that is there and not empty, as text."""
    return next((str(row[name]) for name in columns if row.get(name) not in (None, "", [], {})), "")


def _raw(table: Path) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries."""
    match table.suffix:
        case ".jsonl":
            yield from _json_lines(table)
        case ".csv":
            yield from csv_rows(table)
        case _:
            yield from _parquet(table)


def _json_lines(table: Path) -> Iterator[dict[str, Any]]:
    for number, row in json_lines(table):
        if not isinstance(row, dict):
            raise StudioError(
                f"{table} line {number} is not a JSON object; write one per picture.", field="data"
            )
        yield row


def _parquet(table: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        yield from parquet.read_table(table).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise StudioError(
            f"{table} is not a readable parquet file ({error}); write it again.", field="data"
        ) from error
