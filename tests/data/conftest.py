"""Small folders of pictures, made anew for each test."""

import struct
import zlib
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


def truncate(path: Path) -> Path:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def large_png(path: Path, side: int) -> Path:
    """A valid black PNG of one bit a pixel, written row by row: small on disk, large in memory."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8 + 1)) for _ in range(side)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 30,000 pixels a side."""
    return large_png(tmp_path_factory.mktemp("scan") / "scan.png", 30_000)
