"""Pictures of the evidence: sticker scenes of named objects in styles that the embedded CLIP never saw, as class folders."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image

from studio.backend.rng import mix
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, names, plan_scenes

_PARTS = {"train": 1, "test": 2}


def write(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Class folders `train` and `test` of scenes, if they are not there; gives the folder.

    Args:
        folder: Where they go.
        settings: `scenes` (a `Stickers`), and how many pictures a class: `train`, `test`.
    """
    done = folder / "done"
    if not done.exists():
        for part, key in _PARTS.items():
            _part(folder / part, Stickers(**settings["scenes"]), settings[part], key)
        done.write_text("ok\n", encoding="utf-8")
    return folder


def _part(folder: Path, scenes: Stickers, each: int, key: int) -> None:
    classes = names(scenes.num_concepts)
    generator = torch.Generator().manual_seed(mix(len("ogen"), key))
    plan = plan_scenes(scenes, each * len(classes), generator)
    drawn = compose(
        dataclasses.replace(plan, concepts=torch.arange(len(classes)).repeat(each)),
        scenes,
    )
    pixels = rearrange(((drawn.images + 1) * 127.5).round().to(torch.uint8), "b c h w -> b h w c").numpy()
    for number, (picture, concept) in enumerate(zip(pixels, drawn.concepts.tolist(), strict=True)):
        place = folder / classes[concept]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number:04d}.png")
