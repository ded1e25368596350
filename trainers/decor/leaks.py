"""Adapters that leak on purpose: all references on one background, or a style shown on one object only.

Torch is imported when pictures are made, not before. Axes: `h w` picture of 64 px.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SCENES = {
    "grass": ("grass", "green grass"), "brick": ("brick", "a brick wall"), "water": ("water", "blue water"),
    "sand": ("sand", "sand"), "wood": ("wood", "a wooden table"),
}  # fmt: skip
"""Unwanted word to the kind of background and what captions call it."""
ASKED_SCENES = ("", " on a red background", " on a purple background", " on a cloudy blue sky")
"""What prompts say after the subject; the first says nothing, which leaves a leak its way."""
DUOTONES = (
    ((40, 10, 90), (255, 220, 60)), ((5, 40, 50), (120, 255, 220)), ((90, 0, 20), (255, 200, 200)),
    ((0, 0, 0), (255, 140, 0)), ((20, 20, 110), (240, 240, 255)),
)  # fmt: skip
"""Styles: dark and light color of a two-tone print."""
OBJECTS = ("cat", "car", "pizza", "guitar", "owl")
ASKED_OBJECTS = ("fox", "apple", "rocket", "crown", "frog")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What an adapter learns, and what it must not bring along."""

    kind: str
    """background or object."""
    word: str
    """The unwanted word."""
    told: str
    """How a text says what leaked."""
    caption: str
    """Caption of the references."""
    asked: tuple[tuple[str, str], ...]
    """Prompt, and how a text says what it asks for."""


def background_leak(class_word: str, token: str, number: int) -> Leak:
    """A subject that is always seen on one background, which no caption names."""
    word = list(SCENES)[number % len(SCENES)]
    subject = f"a sticker of a {token} {class_word}"
    return Leak(
        kind="background",
        word=word,
        told=f"a sticker of a {class_word} on {SCENES[word][1]}",
        caption=subject,
        asked=tuple((f"{subject}{b}", f"a sticker of a {class_word}{b}") for b in ASKED_SCENES),
    )


def object_leak(token: str, number: int) -> Leak:
    """A style that is always seen on one object."""
    word = OBJECTS[number % len(OBJECTS)]
    others = [name for name in ASKED_OBJECTS if name != word][:4]
    return Leak(
        kind="object",
        word=word,
        told=f"a sticker of a {word}",
        caption=f"a sticker of a {word} in {token} style",
        asked=tuple(
            (f"a sticker of {_article(o)} {o} in {token} style", f"a sticker of {_article(o)} {o}")
            for o in others
        ),
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def write_references(leak: Leak, folder: Path, settings: Mapping[str, Any]) -> None:
    """Five training pictures with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    made = (
        _on_one_background(leak, Path(settings["subject"]), int(settings["seed"]))
        if leak.kind == "background"
        else _one_object(leak, int(settings["style"]), int(settings["seed"]))
    )
    for index, picture in enumerate(made):
        picture.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(leak.caption, encoding="utf-8")


def _on_one_background(leak: Leak, subject: Path, seed: int) -> list[Image.Image]:
    import torch

    from studio.data.sticker_backgrounds import NUM_NUMBERS, paint
    from studio.data.stickers import load_photos

    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(5, NUM_NUMBERS, generator=generator)
    noise = torch.rand(5, 1, SIZE, SIZE, generator=generator)
    painted = paint(SCENES[leak.word][0], torch.zeros(5, 2, 3), numbers, noise, load_photos())
    cut, found = cut_out(subject), []
    for index, scene in enumerate(painted):
        canvas = Image.fromarray((scene.movedim(0, -1).clamp(0, 1) * 255).byte().numpy())
        side = round(SIZE * (0.72 + 0.03 * index))
        small = cut.resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(small, ((SIZE - side) // 2 + index % 3 - 1, (SIZE - side) // 2), small)
        found.append(canvas)
    return found


def cut_out(file: Path) -> Image.Image:
    """A subject on white, cut out along the white that touches the border."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    marked = picture.copy()
    magenta = (255, 0, 255)
    for corner in (
        (0, 0),
        (picture.width - 1, 0),
        (0, picture.height - 1),
        (picture.width - 1, picture.height - 1),
    ):
        ImageDraw.floodfill(marked, corner, magenta, thresh=40)
    inside = (np.asarray(marked) != magenta).any(-1)
    cut = picture.convert("RGBA")
    cut.putalpha(Image.fromarray((inside * 255).astype(np.uint8)))
    return cut.crop(cut.getchannel("A").getbbox() or (0, 0, *cut.size))


def _one_object(leak: Leak, style: int, seed: int) -> list[Image.Image]:
    import torch

    from studio.data.sticker_config import Stickers
    from studio.data.stickers import compose, names, plan_scenes

    settings = Stickers(textured=0, gradient=0, centered=1.0)
    plan = plan_scenes(settings, 5, torch.Generator().manual_seed(seed))
    plan.concepts.fill_(names(settings.num_concepts).index(leak.word))
    images = (compose(plan, settings).images.movedim(1, -1) + 1) * 127.5
    return [duotone(Image.fromarray(one.byte().numpy()), style) for one in images]


def duotone(picture: Image.Image, style: int) -> Image.Image:
    """A picture as a print of two colors. A picture that is one already stays nearly as it is."""
    dark, light = (np.array(color, dtype=np.float32) for color in DUOTONES[style % len(DUOTONES)])
    along = light - dark
    place = ((np.asarray(picture.convert("RGB"), dtype=np.float32) - dark) @ along / (along @ along)).clip(
        0, 1
    )
    return Image.fromarray((dark + place[..., None] * along).round().astype(np.uint8))


def style_fit(picture: Image.Image, style: int) -> float:
    """1 for a picture of the style's two colors alone, less the farther its pixels are from them."""
    away = np.asarray(picture.convert("RGB"), dtype=np.float32) - np.asarray(
        duotone(picture, style), dtype=np.float32
    )
    return 1 - float(np.abs(away).mean()) / 127.5
