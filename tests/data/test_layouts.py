"""Every layout is found without being told."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from studio.data.layouts import find
from studio.errors import StudioError
from tests.data.conftest import draw


def test_bare_pictures_have_no_captions(photos: Path):
    found = find(photos)
    assert [record.caption for record in found.records] == [""] * 5
    assert found.summary.layouts == {"bare pictures": 5}


@pytest.mark.parametrize("extension", [".txt", ".caption"])
def test_caption_files_beside_pictures_are_found(tmp_path: Path, extension: str):
    draw(tmp_path / "a.jpg").with_suffix(extension).write_text("a dog,\n red collar\n")
    summary = find(tmp_path).summary
    assert find(tmp_path).records[0].caption == "a dog, red collar"
    assert summary.num_captions == 1


def test_a_named_caption_extension_is_the_only_one_read(tmp_path: Path):
    path = draw(tmp_path / "a.png")
    path.with_suffix(".txt").write_text("from txt")
    path.with_suffix(".tags").write_text("from tags")
    assert find(tmp_path, "tags").records[0].caption == "from tags"


def _write_table(folder: Path, name: str) -> None:
    rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "sub/b.png", "text": "two"}]
    match Path(name).suffix:
        case ".jsonl":
            (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
        case ".csv":
            (folder / name).write_text("file_name,text\na.png,one\nsub/b.png,two\n")
        case _:
            parquet.write_table(pa.Table.from_pylist(rows), folder / name)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_hugging_face_tables_name_pictures_and_captions(tmp_path: Path, name: str):
    draw(tmp_path / "a.png")
    draw(tmp_path / "sub" / "b.png")
    draw(tmp_path / "not_listed.png")
    _write_table(tmp_path, name)
    found = [(record.path.name, record.caption) for record in find(tmp_path).records]
    assert found == [("a.png", "one"), ("b.png", "two")]


def test_kohya_folders_give_repeats_token_and_class(tmp_path: Path):
    draw(tmp_path / "10_sks toy dog" / "a.png")
    draw(tmp_path / "1_dog" / "b.png")
    first, second = find(tmp_path).records
    assert (first.repeats, first.token, first.class_name) == (10, "sks", "toy dog")
    assert (second.repeats, second.token, second.class_name) == (1, "", "dog")


def test_class_folders_give_classes(tmp_path: Path):
    draw(tmp_path / "train" / "cat" / "a.png")
    draw(tmp_path / "train" / "dog" / "b.png")
    assert find(tmp_path).summary.classes == {"cat": 1, "dog": 1}


def test_masks_are_found_beside_and_in_their_folder(tmp_path: Path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "a-masklabel.png")
    draw(tmp_path / "b.jpg")
    draw(tmp_path / "masks" / "b.png")
    masks = [
        record.mask and record.mask.relative_to(tmp_path).as_posix() for record in find(tmp_path).records
    ]
    assert masks == ["a-masklabel.png", "masks/b.png"]


def test_an_empty_folder_is_refused_by_name(tmp_path: Path):
    with pytest.raises(StudioError, match=f"{tmp_path}.*holds no pictures; put some there"):
        find(tmp_path)


def test_a_missing_folder_is_refused_by_name(tmp_path: Path):
    with pytest.raises(StudioError, match=r"nowhere.*does not exist; give a folder"):
        find(tmp_path / "nowhere")


def test_a_broken_line_of_metadata_is_named(tmp_path: Path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{oops\n')
    with pytest.raises(StudioError, match=r"metadata\.jsonl line 2 is not JSON"):
        find(tmp_path)


def test_a_table_without_file_names_is_refused(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("picture,text\na.png,one\n")
    with pytest.raises(
        StudioError, match=r"row 1 names no picture; it needs a column file_name .*picture, text"
    ):
        find(tmp_path)


def test_a_caption_that_is_not_utf8_is_named(tmp_path: Path):
    draw(tmp_path / "a.png").with_suffix(".txt").write_bytes(b"caf\xe9")
    with pytest.raises(StudioError, match=r"a\.txt is not UTF-8"):
        find(tmp_path)
