"""The Data and Models pages: captions where training reads them, metadata from headers."""

import json
from pathlib import Path

import pytest

from studio.errors import StudioError
from tests.ui.conftest import picture
from ui import captions
from ui.shelf import metadata


def test_a_caption_is_written_beside_its_picture(tmp_path: Path):
    path = picture(tmp_path / "a.png")
    captions.write(path, " a dog ")
    assert (tmp_path / "a.txt").read_text() == "a dog\n"
    with pytest.raises(StudioError, match="4000 are allowed"):
        captions.write(path, "a" * 5000)


def test_a_caption_in_a_table_is_changed_there(tmp_path: Path):
    path, table = picture(tmp_path / "a.png"), tmp_path / "metadata.jsonl"
    table.write_text('{"file_name": "a.png", "text": "old", "x": 1}\n{"file_name": "b.png", "text": "b"}\n')
    captions.write(path, "new\nwords")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert rows == [{"file_name": "a.png", "text": "new words", "x": 1}, {"file_name": "b.png", "text": "b"}]


def test_metadata_is_read_from_the_header_alone(tmp_path: Path):
    header = json.dumps({"__metadata__": {"modelspec.title": "x"}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert metadata(tmp_path / "a.safetensors") == {"modelspec.title": "x"}
    (tmp_path / "b.safetensors").write_bytes((10**12).to_bytes(8, "little") + header)
    assert metadata(tmp_path / "b.safetensors") == {}
