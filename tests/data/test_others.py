"""Folders and files of other people: nothing means more than it says, and what is left out is told."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from studio.data import conversations, files, images, pools
from studio.data.build import photos
from studio.data.config import Images, Labelled
from studio.data.layouts import find
from studio.errors import RunFailed, StudioError
from studio.models.pictures import as_pictures
from tests.data.conftest import draw


def filled(*names: str, root: Path) -> Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        draw(root / name, (48, 40), seed=seed)
    return root


def left_out(root: Path) -> dict[str, tuple[str, ...]]:
    return find(root).summary.left_out


def test_a_class_may_be_called_mask(tmp_path: Path):
    names = [f"{kind}/{i}.png" for kind in ("mask", "no_mask", "incorrect") for i in range(4)]
    filled(*names, root=tmp_path)
    assert pools.split(Labelled(train=str(tmp_path))).classes == ("incorrect", "mask", "no_mask")


@pytest.mark.parametrize("pictures", ["", "images/"])
def test_masks_beside_pictures_are_no_pictures_and_told(pictures: str, tmp_path: Path):
    filled(f"{pictures}a.png", "masks/a.png", root=tmp_path)
    assert [record.path.relative_to(tmp_path) for record in find(tmp_path).records] == [
        Path(f"{pictures}a.png")
    ]
    assert left_out(tmp_path) == {"folders of masks, which are read with their pictures": ("masks",)}


def test_a_year_is_no_number_of_repeats_and_that_is_told(tmp_path: Path):
    filled("portraits/a.png", "2023_summer/b.png", root=tmp_path)
    assert find(tmp_path).summary.num_repeated == 2
    assert find(tmp_path).summary.classes == {"2023_summer": 1, "portraits": 1}
    assert ("2023_summer",) in left_out(tmp_path).values()


def test_numbers_repeat_where_every_folder_has_one(tmp_path: Path):
    filled("3_sks dog/a.png", "2_dog/b.png", root=tmp_path)
    assert sorted(record.repeats for record in find(tmp_path).records) == [2, 3]
    assert not left_out(tmp_path)


def test_regularization_pictures_are_not_the_subject(tmp_path: Path):
    filled("img/3_sks dog/a.png", "reg/1_dog/b.png", root=tmp_path)
    assert [(record.path.name, record.token) for record in find(tmp_path).records] == [("a.png", "sks")]
    assert list(left_out(tmp_path).values()) == [("reg",)]


def test_what_is_not_read_is_told_by_reason(tmp_path: Path):
    filled("a.png", "@eaDir/a.png", root=tmp_path)
    for name in ("b.psd", "c.MOV", "a.png.txt", "A.TXT", "notes.md", ".hidden.psd"):
        (tmp_path / name).write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = left_out(tmp_path)
    assert {reason.partition(" (")[0]: names for reason, names in found.items()} == {
        "formats that are not read": ("b.psd", "c.MOV"),
        "captions whose names do not fit their picture's": ("A.TXT", "a.png.txt"),
        "folders of the system": ("@eaDir",),
        "links back to where they lie": ("loop",),
    }
    lines = photos(Images(resolution=32), tmp_path).facts
    assert "left out, formats that are not read: b.psd, c.MOV" in lines


def test_a_picture_that_a_table_does_not_name_is_told(tmp_path: Path):
    filled("a.png", "b.png", root=tmp_path)
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"one\ntwo, \u2028three"\n')
    assert [record.caption for record in find(tmp_path).records] == ["one two, three"]
    assert left_out(tmp_path) == {"pictures that metadata.csv does not name": ("b.png",)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_every_encoding_that_says_which_it_is(encoding: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes('{"a": "\u2019\u2028\u0085"}\r\n\r\n[1]'.encode(encoding))
    assert list(files.json_lines(tmp_path / "a.jsonl")) == [(1, {"a": "\u2019\u2028\u0085"}), (3, [1])]


@pytest.mark.parametrize("raw", [b"caf\xe9", b"a\0b", b"\xff\xfea"])
def test_what_is_no_text_is_one_sentence(raw: bytes, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(StudioError, match=r"a\.txt is (not UTF-8 text|no text)"):
        files.read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("image", [7, [{"path": "a.png"}], {"a": 1}, "x" * 5000, [None], "", True, "a\0b"])
def test_a_picture_that_is_no_name_is_one_sentence_with_the_conversation(image: object, tmp_path: Path):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    (tmp_path / "a.json").write_text(json.dumps([{"id": "9", "image": image, "conversations": turns}]))
    with pytest.raises(StudioError, match=r"^Conversation '9' .{10,200}$"):
        conversations.open_conversations(tmp_path / "a.json")


def test_no_picture_may_be_told_by_null(tmp_path: Path):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog."}]
    (tmp_path / "a.json").write_text(json.dumps([{"image": None, "conversations": turns}]))
    assert conversations.open_conversations(tmp_path / "a.json")[0].pictures == ()


def display_p3() -> bytes:
    """sRGB's profile with the colorants of Display P3 (D50), and sRGB's name."""
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    points = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for place in range(struct.unpack(">I", raw[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", raw[132 + 12 * place : 144 + 12 * place])
        if name in points:
            raw[offset + 8 : offset + 20] = struct.pack(">3i", *[round(v * 65536) for v in points[name]])
    return bytes(raw)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_color_profile_is_applied(mode: str, tmp_path: Path):
    profile, color = display_p3(), (230, 30, 20)
    plain = Image.new(mode, (8, 8), (*color, 255)[: len(mode)])
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    ImageCms.profileToProfile(plain, ImageCms.createProfile("sRGB"), own, outputMode=mode).save(
        tmp_path / "a.png", icc_profile=profile
    )
    found = images.read(tmp_path / "a.png").rgb.getpixel((4, 4))
    assert max(abs(a - b) for a, b in zip(found, color, strict=True)) <= 2


def test_a_profile_of_srgb_changes_no_bit_and_a_broken_one_ends_nothing(tmp_path: Path):
    draw(tmp_path / "a.png", (48, 40), seed=1)
    picture = Image.open(tmp_path / "a.png").convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile"):
        picture.save(tmp_path / "b.png", icc_profile=profile)
        assert np.array_equal(np.asarray(images.read(tmp_path / "b.png").rgb), np.asarray(picture))


def test_pictures_that_lose_most_of_their_area_are_named(tmp_path: Path):
    draw(tmp_path / "wide.png", (512, 64), seed=1)
    facts = photos(Images(resolution=32, buckets=True), tmp_path).facts
    assert any("1 lose most of their area to the crop: wide.png (" in fact for fact in facts)


def test_a_picture_that_is_not_finite_is_an_error():
    with pytest.raises(RunFailed, match="a picture that is not finite"):
        as_pictures(torch.full((1, 3, 4, 4), float("nan")))
