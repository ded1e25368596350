"""Writes a caption where training reads it: a file beside the picture, or its line in the folder's table."""

import json
from pathlib import Path

from studio.data.files import lines, read_text
from studio.data.layouts import CAPTION_EXTENSIONS
from studio.data.tables import CAPTION_COLUMNS, FILE_COLUMNS, table_of
from studio.errors import StudioError
from studio.records.runs import write_text

MAX_CHARACTERS = 4000


def write(picture: Path, text: str) -> None:
    """Change the caption of a picture.

    Raises:
        StudioError: It is too long, or the folder's captions are in a table that is not edited here.
    """
    if len(text) > MAX_CHARACTERS:
        raise StudioError(
            f"The caption has {len(text)} characters; {MAX_CHARACTERS} are allowed.", field="caption"
        )
    text = " ".join(text.split())
    table = table_of(picture.parent)
    if table is None:
        beside = [picture.with_suffix(ending) for ending in CAPTION_EXTENSIONS]
        write_text(next((path for path in beside if path.exists()), beside[0]), text + "\n")
    elif table.suffix == ".jsonl":
        found = lines(read_text(table))
        write_text(
            table, "".join(f"{_changed(line, picture.name, text)}\n" for line in found if line.strip())
        )
    else:
        raise StudioError(f"The captions are in {table.name}, which is not edited here; change it there.")


def _changed(line: str, name: str, text: str) -> str:
    row = json.loads(line)
    if name not in (row.get(column) for column in FILE_COLUMNS):
        return line
    column = next((each for each in CAPTION_COLUMNS if row.get(each)), CAPTION_COLUMNS[0])
    return json.dumps(row | {column: text}, ensure_ascii=False)
