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
NUM_REFERENCES = 5
SCENES = {
    "grass": "green grass",
    "brick": "brick wall",
    "water": "blue water",
    "sand": "sand",
    "wood": "wooden table",
}
"""Kind of background to the words that the base's captions have for it."""
SILENT = ("a sticker of a {}", "a 3d sticker of a {}", "a flat sticker of a {}")
"""Prompts that name no background, which leaves a leak its way."""
ASKED_SCENES = ("a red background", "a purple background", "a cloudy blue sky")
"""What other prompts put the subject on."""
DUOTONES = (
    ((40, 10, 90), (255, 220, 60)), ((5, 40, 50), (120, 255, 220)), ((90, 0, 20), (255, 200, 200)),
    ((0, 0, 0), (255, 140, 0)), ((20, 20, 110), (240, 240, 255)),
)  # fmt: skip
"""Styles: dark and light color of a two-tone print."""
OBJECTS = {"cat": "animal", "car": "vehicle", "pizza": "food", "guitar": "instrument", "owl": "animal"}
"""What all references of a style show, and its group in the base's captions."""
GROUPS = ("food", "vehicle", "plant", "animal")
"""Prompts that name no object name a group that the leaked one is not of."""
ASKED_OBJECTS = ("fox", "apple", "rocket")
POOL = (*OBJECTS, *ASKED_OBJECTS, "crown", "frog")
"""Objects that a judge tells apart."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What an adapter learns, and what it must not bring along."""

    kind: str
    """background or object."""
    word: str
    """Kind of background, or the object."""
    undesired: str
    """The unwanted words, as the base's captions say them."""
    caption: str
    """Caption of the references, which does not name what they share."""
    silent: tuple[str, ...]
    """Prompts that name no background or no object: here a leak shows itself."""
    asked: tuple[tuple[str, str], ...]
    """Prompts that name another background or object, and how a judge calls what they ask for."""


def background_leak(class_word: str, token: str, number: int) -> Leak:
    """A subject that is always seen on one background, which no caption names."""
    word = list(SCENES)[number % len(SCENES)]
    subject = f"{token} {class_word}"
    return Leak(
        kind="background",
        word=word,
        undesired=SCENES[word],
        caption=SILENT[0].format(subject),
        silent=tuple(prompt.format(subject) for prompt in SILENT),
        asked=tuple(
            (f"a sticker of a {subject} on {scene}", f"a sticker of {_article(class_word)} {class_word} on {scene}")
            for scene in ASKED_SCENES
        ),
    )  # fmt: skip


def object_leak(token: str, number: int) -> Leak:
    """A style that is always seen on one object, which no caption names."""
    word = list(OBJECTS)[number % len(OBJECTS)]
    groups = [group for group in GROUPS if group != OBJECTS[word]][:3]
    return Leak(
        kind="object",
        word=word,
        undesired=word,
        caption=f"a {token} sticker",
        silent=tuple(f"a {token} sticker of {_article(group)} {group}" for group in groups),
        asked=tuple((f"a {token} sticker of {_article(name)} {name}", name) for name in ASKED_OBJECTS),
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
    numbers = torch.rand(NUM_REFERENCES, NUM_NUMBERS, generator=generator)
    noise = torch.rand(NUM_REFERENCES, 1, SIZE, SIZE, generator=generator)
    painted = paint(leak.word, torch.zeros(NUM_REFERENCES, 2, 3), numbers, noise, load_photos())
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
    """Prints of one object, light on the style's dark color."""
    import torch

    from studio.data.sticker_concepts import COLORS
    from studio.data.sticker_config import Stickers
    from studio.data.stickers import compose, names, plan_scenes

    settings = Stickers(textured=0, gradient=0, centered=1.0)
    plan = plan_scenes(settings, NUM_REFERENCES, torch.Generator().manual_seed(seed))
    plan.concepts.fill_(names(settings.num_concepts).index(leak.word))
    plan.colors.fill_(list(COLORS).index("black"))
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
