"""Small folders of pictures, made anew for each test."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0, **options) -> Path:
    """A picture of noise, which no two seeds share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five bare pictures of several shapes."""
    sizes = [(48, 40), (40, 48), (64, 32), (40, 40), (32, 64)]
    for seed, size in enumerate(sizes):
        draw(tmp_path / "photos" / f"{seed}.png", size, seed)
    return tmp_path / "photos"
