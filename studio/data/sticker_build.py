"""Builds `assets/stickers` from openly licensed emoji packages: `python -m studio.data.sticker_build CACHE OUT`.

The packages are fetched by name with `npm pack`, rendered, cropped to what is visible, padded to a square and
resized with premultiplied alpha. The same packages give the same bytes: the list is sorted, nothing holds a date.
"""

import argparse
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image
from skimage import data as textures

from studio.data.sticker_concepts import HELD_OUT_LABELS, concepts

SIZE = 64
"""Side of a stored sprite in pixels: scenes are 64 pixels wide and a sprite never fills more than that."""
COLUMNS = 20
"""Sprites a row in a sheet."""
TILE = 192
"""Side of a stored texture tile in pixels."""
PACKAGES = {
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "flat": "@lobehub/fluent-emoji-flat@1.1.0",
    "cartoon": "@twemoji/svg@15.0.0",
    "glossy": "emoji-datasource-google@16.0.0",
    "names": "emojibase-data@17.0.0",
}
_FOLDERS = {"3d": "assets", "flat": "assets", "cartoon": "", "glossy": "img/google/64", "names": "en"}


def fetch(package: str, cache: Path) -> Path:
    """The unpacked folder of an npm package, downloaded on first use."""
    name, _, version = package.rpartition("@")
    folder = cache / f"{name.strip('@').replace('/', '-')}-{version}"
    if not (folder / "package").exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", package, "--silent"], cwd=cache, check=True)
        with tarfile.open(f"{folder}.tgz") as archive:
            archive.extractall(folder, filter="data")
    return folder / "package"


def hexcodes(package: Path) -> dict[str, str]:
    """Emoji label to its code points, as emojibase writes them (`1F98A`, `2764-FE0F`)."""
    rows = json.loads((package / "en" / "data.json").read_text("utf-8"))
    return {row["label"]: row["hexcode"] for row in rows}


def find_graphic(folder: Path, hexcode: str) -> Path:
    """The vendor's file for an emoji; vendors disagree on whether the variation selector is written.

    Raises:
        FileNotFoundError: If this vendor does not draw it: a concept is kept only if all four styles do.
    """
    code = hexcode.lower()
    for stem in (code, code.removesuffix("-fe0f"), f"{code}-fe0f"):
        for suffix in ("webp", "svg", "png"):
            if (path := folder / f"{stem}.{suffix}").exists():
                return path
    raise FileNotFoundError(f"no graphic for {hexcode} in {folder}")


def render(path: Path) -> Image.Image:
    """An emoji graphic as RGBA, at least 64 pixels wide."""
    if path.suffix == ".svg":
        png = resvg_py.svg_to_bytes(svg_path=str(path), width=256, height=256)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return Image.open(path).convert("RGBA")


def to_sprite(image: Image.Image) -> np.ndarray:
    """Crops to the visible box, pads to a square and resizes to `SIZE` without dark fringes (uint8 RGBA)."""
    box = image.getchannel("A").point([0] * 9 + [255] * 247).getbbox()
    image = image.crop(box)
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = square.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(small.convert("RGBA"))


def write_sheet(sprites: list[np.ndarray], path: Path) -> None:
    """Writes sprites row by row into one lossless WebP."""
    num_rows = -(-len(sprites) // COLUMNS)
    sheet = np.zeros((num_rows * SIZE, COLUMNS * SIZE, 4), np.uint8)
    for place, sprite in enumerate(sprites):
        top, left = place // COLUMNS * SIZE, place % COLUMNS * SIZE
        sheet[top : top + SIZE, left : left + SIZE] = sprite
    Image.fromarray(sheet).save(path, lossless=True, quality=100, method=6, exact=True)


def write_textures(path: Path) -> None:
    """Writes the three CC0 photo textures side by side as one gray PNG."""
    tiles = [
        Image.fromarray(photo()[:384, :384]) for photo in (textures.brick, textures.grass, textures.gravel)
    ]
    small = [np.asarray(tile.resize((TILE, TILE), Image.Resampling.LANCZOS)) for tile in tiles]
    Image.fromarray(np.concatenate(small, 1)).save(path, optimize=True)


def build(cache: Path, out: Path) -> list[dict[str, object]]:
    """Renders every concept in every style into `out` and returns the index that is written beside the sheets."""
    packages = {style: fetch(package, cache) / _FOLDERS[style] for style, package in PACKAGES.items()}
    codes = hexcodes(packages.pop("names").parent)
    table = concepts()
    if held_out := HELD_OUT_LABELS & {label for label, _, _ in table}:
        raise ValueError(f"these concepts are held out: {sorted(held_out)}")
    out.mkdir(parents=True, exist_ok=True)
    for style, folder in packages.items():
        graphics = [find_graphic(folder, codes[label]) for label, _, _ in table]
        write_sheet([to_sprite(render(graphic)) for graphic in graphics], out / f"{style}.webp")
    index = [
        {"name": name, "group": group, "label": label, "hexcode": codes[label], "styles": list(packages)}
        for label, name, group in table
    ]
    write_textures(out / "textures.png")
    text = ",\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in index)
    (out / "index.json").write_text(f"[\n{text}\n]\n", "utf-8")
    return index


def main() -> None:
    """Builds the stickers from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="Folder for the downloaded packages.")
    parser.add_argument("out", type=Path, help="Folder to write, normally assets/stickers.")
    flags = parser.parse_args()
    build(flags.cache, flags.out)


if __name__ == "__main__":
    main()
