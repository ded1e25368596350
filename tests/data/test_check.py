"""The check finds what is wrong with a folder, and says whether training can go on."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from studio.data.check import check
from studio.data.config import Images
from tests.data.conftest import draw, truncate

SETTINGS = Images(resolution=32)


def kinds(folder: Path, settings: Images = SETTINGS) -> dict[str, str]:
    return {finding.path.name: finding.kind for finding in check(folder, settings).findings}


def shapes_picture(side: int = 128, seed: int = 0) -> Image.Image:
    """Sharp rectangles: structure that a perceptual hash sees."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", (side, side), "white")
    for _ in range(12):
        x, y, w, h = rng.integers(0, side // 2, 4).tolist()
        image.paste(tuple(rng.integers(0, 255, 3).tolist()), (x, y, x + w + 4, y + h + 4))
    return image


def test_good_pictures_pass(photos: Path):
    report = check(photos, SETTINGS)
    assert report.can_train
    assert report.num_usable == 5
    assert report.lines()[-1] == "Training can go on with 5 pictures."


def test_unusable_pictures_are_each_named_and_stop_training(photos: Path, scan: Path):
    truncate(draw(photos / "cut.jpg"))
    (photos / "notes.jpg").write_text("no picture")
    draw(photos / "dot.png", (1, 1))
    shutil.copy(scan, photos)
    report = check(photos, SETTINGS)
    unusable = {finding.path.name for finding in report.findings if finding.kind == "unusable"}
    assert unusable == {"cut.jpg", "notes.jpg", "dot.png", "scan.png"}
    assert not report.can_train
    assert "4 of 9 pictures cannot be used" in report.verdict


def test_a_mask_that_keeps_nothing_is_noted(tmp_path: Path):
    draw(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "masks" / "a.png")
    shapes_picture().convert("RGBA").save(tmp_path / "solid.png")
    report = check(tmp_path, SETTINGS)
    assert [(f.kind, f.path.parent.name) for f in report.findings if "mask" in f.kind] == [
        ("empty mask", "masks")
    ]
    assert report.can_train


def test_a_link_back_to_the_folder_is_not_followed(tmp_path: Path):
    draw(tmp_path / "a.png")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    report = check(tmp_path, SETTINGS)
    assert report.lines()[0].startswith("1 picture in ")
    assert report.verdict == "Training can go on with 1 picture."


def test_skipping_lets_training_go_on(photos: Path):
    truncate(draw(photos / "cut.jpg"))
    report = check(photos, Images(resolution=32, on_bad="skip"))
    assert report.can_train
    assert report.verdict == "Training can go on with 5 pictures, 1 left out."


def test_small_elongated_and_turned_pictures_are_noted(tmp_path: Path):
    exif = Image.Exif()
    exif[0x112] = 6
    draw(tmp_path / "small.png", (16, 16), 1)
    draw(tmp_path / "wide.png", (200, 40), 2)
    draw(tmp_path / "turned.jpg", (64, 64), 3, exif=exif)
    draw(tmp_path / "huge.png", (17_000, 40), 4, compress_level=1)
    found = {(finding.path.name, finding.kind) for finding in check(tmp_path, SETTINGS).findings}
    expected = {
        ("small.png", "small"),
        ("wide.png", "elongated"),
        ("turned.jpg", "rotated"),
        ("huge.png", "huge"),
    }
    assert expected <= found


def test_near_duplicates_are_found_in_other_sizes_and_formats(tmp_path: Path):
    shapes_picture().save(tmp_path / "a.png")
    shapes_picture().resize((90, 90)).save(tmp_path / "b.jpg")
    shapes_picture(seed=5).save(tmp_path / "c.png")
    assert kinds(tmp_path) == {"b.jpg": "duplicate"}


def test_blurry_pictures_are_found(tmp_path: Path):
    shapes_picture().save(tmp_path / "sharp.png")
    shapes_picture(seed=5).filter(ImageFilter.GaussianBlur(8)).save(tmp_path / "soft.png")
    assert kinds(tmp_path, Images(resolution=128)) == {"soft.png": "blurry"}


def test_captions_are_counted(photos: Path):
    (photos / "0.txt").write_text("a dog, red collar")
    (photos / "1.txt").write_text("a dog")
    report = check(photos, SETTINGS)
    assert report.captions == {"min_words": 2.0, "max_words": 4.0, "mean_words": 3.0, "distinct": 2.0}
    assert report.frequent[0] == ("a dog", 2)


def test_the_report_is_json(photos: Path):
    truncate(draw(photos / "cut.jpg"))
    read_back = json.loads(json.dumps(check(photos, SETTINGS).to_dict()))
    assert read_back["can_train"] is False
    assert read_back["findings"][0]["kind"] == "unusable"
