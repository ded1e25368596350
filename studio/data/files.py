"""Text files of other people as text: UTF-8 or, where a mark says so, UTF-16; lines end with a line break and nothing else."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.errors import StudioError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Bytes at the beginning that tell an encoding; the longer of two that begin alike first."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        StudioError: It is no text of these encodings, or cannot be read.
    """
    try:
        raw = path.read_bytes()
        encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text (byte {error.start}), perhaps of an older Windows program; save it as UTF-8."
        raise StudioError(message, field="data") from error
    except OSError as error:
        raise StudioError(f"{path} cannot be read ({error.strerror}).", field="data") from error
    if "\0" in text:
        raise StudioError(f"{path} is no text: it holds NUL characters; write it again.", field="data")
    return text


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; a name that no file can have, such as one too long, has none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def lines(text: str) -> list[str]:
    """Lines of a text. What only looks like a line break to some (U+2028, U+0085, form feeds) belongs to the text."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        StudioError: It holds no JSON.
    """
    return _parsed(read_text(path), str(path))


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number of each line that holds something, from 1, and what it holds.

    Raises:
        StudioError: One is no JSON.
    """
    for number, line in enumerate(lines(read_text(path)), start=1):
        if line.strip():
            yield number, _parsed(line, f"{path} line {number}")


def csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file by the names in its first line; line breaks inside quotes stay.

    Raises:
        StudioError: It is none.
    """
    try:
        yield from csv.DictReader(io.StringIO(read_text(path), newline=""))
    except csv.Error as error:
        raise StudioError(f"{path} is not a CSV table ({error}); write it again.", field="data") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:
        reason = str(getattr(error, "msg", error))
    raise StudioError(f"{where} is not JSON ({reason}); repair it.", field="data")
