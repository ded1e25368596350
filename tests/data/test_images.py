"""Any common file becomes upright RGB; anything else one sentence that names it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.data import images
from studio.data.images import BadImageError, read, read_mask
from tests.data.conftest import draw, truncate


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int):
    upright = Image.new("RGB", (32, 16), "red")
    upright.paste("blue", (0, 0, 16, 16))
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undone[orientation]))
    exif = Image.Exif()
    exif[0x112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    picture = read(tmp_path / "a.png")
    assert picture.size == (32, 16) == images.size(tmp_path / "a.png")
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(upright))


def test_transparency_is_laid_over_white_and_kept_as_mask(tmp_path: Path):
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    image.save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    assert picture.rgb.getpixel((2, 2)) == (255, 255, 255)
    assert picture.rgb.getpixel((15, 2)) == (255, 0, 0)
    assert picture.mask is not None
    assert (picture.mask.getpixel((2, 2)), picture.mask.getpixel((15, 2))) == (0, 255)


def test_an_opaque_alpha_channel_is_no_mask(tmp_path: Path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 255)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").mask is None


def test_a_palette_with_transparency_is_laid_over_white(tmp_path: Path):
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 10, 20))
    image.save(tmp_path / "a.png", transparency=0)
    assert read(tmp_path / "a.png").rgb.getpixel((15, 2)) == (255, 255, 255)
    assert read(tmp_path / "a.png").rgb.getpixel((2, 2)) == (255, 0, 0)


def test_cmyk_becomes_rgb(tmp_path: Path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read(tmp_path / "a.jpg").rgb.getpixel((5, 5))
    assert red > 240
    assert max(green, blue) < 15


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path):
    Image.fromarray(np.full((20, 20), 32768, np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").rgb.getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_gray_and_palette_modes_become_rgb(tmp_path: Path, mode: str):
    Image.new("RGB", (20, 20), "white").convert(mode).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").rgb.getpixel((5, 5)) == (255, 255, 255)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif").rgb.getpixel((5, 5)) == (255, 0, 0)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path: Path):
    draw(tmp_path / "a.jpg", (800, 600))
    picture = read(tmp_path / "a.jpg", needed=64)
    assert picture.size == (800, 600)
    assert 128 <= min(picture.rgb.size) < 300


def test_a_mask_file_counts_where_it_is_white(tmp_path: Path):
    Image.new("L", (8, 8), 255).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").getextrema() == (255, 255)


def test_a_text_file_named_jpg_is_no_picture(tmp_path: Path):
    (tmp_path / "notes.jpg").write_text("hello")
    with pytest.raises(
        BadImageError, match=r"notes\.jpg': it is not a picture, whatever its name says; .*on_bad"
    ):
        read(tmp_path / "notes.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif"])
def test_a_file_cut_in_half_is_damaged(tmp_path: Path, name: str):
    truncate(draw(tmp_path / name))
    with pytest.raises(BadImageError, match=r"a\.\w+': it is (damaged|not a picture)"):
        read(tmp_path / name)


def test_an_empty_file_says_so(tmp_path: Path):
    (tmp_path / "a.png").touch()
    with pytest.raises(BadImageError, match=r"a\.png': it is empty"):
        read(tmp_path / "a.png")


def test_heic_asks_to_be_converted(tmp_path: Path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(BadImageError, match="HEIC format; convert it to JPEG or PNG"):
        read(tmp_path / "IMG_1.HEIC")


def test_a_picture_of_30000_pixels_a_side_is_refused_without_decoding(scan: Path):
    assert scan.stat().st_size < 1_000_000
    with pytest.raises(
        BadImageError, match=r"scan\.png': it has more than 178 million pixels; scale it down"
    ):
        read(scan)
