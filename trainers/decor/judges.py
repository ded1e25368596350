"""Who sees a leak: what background a picture has, and what object a print shows.

The embedded CLIP cannot tell: of ten objects printed in two tones it names 14 % (chance: 10 %), and it misses the
backgrounds that the model draws without their grain. So a background is judged by its color alone, and objects by a linear
probe on the features that judge likeness, fitted on prints whose object is known.

Axes: `b` pictures, `d` features, `n` objects.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from studio.data.sticker_backgrounds import NUM_NUMBERS, PLAIN_KINDS, paint
from studio.data.sticker_concepts import COLORS
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, load_photos, names, plan_scenes
from studio.metrics.features import Judge
from trainers.decor.leaks import DUOTONES, POOL, SIZE, duotone

BORDER = 8
"""Width in pixels of the frame that shows the background."""
NUM_PRINTS = 400
RIDGE = 0.1
SHARES = (1.0, 1.0, 0.5, 0.0)
"""How much of a print's two tones the probe's pictures have: a weakened adapter draws half of them."""


def border_color(picture: Image.Image) -> np.ndarray:
    """Mean color of a picture's frame, in [0, 1]."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    return pixels[~inner].mean(0)


def other_backgrounds(kind: str) -> np.ndarray:
    """Mean colors of every background that the base's captions name, but for one kind."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(16, NUM_NUMBERS, generator=generator)
    noise = torch.rand(16, 1, SIZE, SIZE, generator=generator)
    textures = [
        paint(other, torch.zeros(16, 2, 3), numbers, noise, load_photos()).mean((0, 2, 3)).numpy()
        for other in PLAIN_KINDS
        if other != kind
    ]
    return np.stack([*(np.array(color) / 255 for color in COLORS.values()), *textures]).astype(np.float32)


def on_background(
    pictures: Sequence[Image.Image], kind: str, references: Sequence[Image.Image]
) -> list[bool]:
    """Whether each picture's frame is closer in color to that of the references than to any other background."""
    wanted = np.mean([border_color(picture) for picture in references], axis=0)
    others = other_backgrounds(kind)
    colors = [border_color(picture) for picture in pictures]
    return [bool(np.linalg.norm(c - wanted) < np.linalg.norm(others - c, axis=1).min()) for c in colors]


class ObjectJudge:
    """Which of ten objects a picture shows, whatever its colors."""

    def __init__(self, judge: Judge, num_prints: int = NUM_PRINTS) -> None:
        """Fit the probe on prints; the last quarter of them says how often it is right (`accuracy`)."""
        self._judge = judge
        pictures, labels = prints(num_prints)
        features, known = self._features(pictures), num_prints * 3 // 4
        seen, wanted = features[:known], F.one_hot(labels[:known], len(POOL)).float()
        penalty = RIDGE * torch.eye(seen.shape[1])
        self._weights = torch.linalg.solve(seen.T @ seen + penalty, seen.T @ wanted)
        right = (features[known:] @ self._weights).argmax(1) == labels[known:]
        self.accuracy = float(right.float().mean())

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        """The name of what each picture shows."""
        return [POOL[i] for i in (self._features(pictures) @ self._weights).argmax(1).tolist()]

    def _features(self, pictures: Sequence[Image.Image]) -> Tensor:
        return F.pad(self._judge.pictures(pictures).float(), (0, 1), value=1.0)


def prints(count: int) -> tuple[list[Image.Image], Tensor]:
    """Pictures of the ten objects in all styles, some half or not at all in two tones or blurred, and what they show."""
    settings = Stickers(textured=0, gradient=0, centered=1.0)
    plan = plan_scenes(settings, count, torch.Generator().manual_seed(0))
    labels = torch.arange(count) % len(POOL)
    known = names(settings.num_concepts)
    plan.concepts.copy_(torch.tensor([known.index(name) for name in POOL])[labels])
    plan.colors[: count // 2] = list(COLORS).index("black")
    scenes = (compose(plan, settings).images.movedim(1, -1) + 1) * 127.5
    found = []
    for index, scene in enumerate(scenes):
        turn = index // len(POOL)
        plain = Image.fromarray(scene.byte().numpy())
        printed = Image.blend(plain, duotone(plain, turn % len(DUOTONES)), SHARES[turn % len(SHARES)])
        found.append(printed.filter(ImageFilter.GaussianBlur(turn % 3)))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    return [found[i] for i in order.tolist()], labels[order]
