"""Times what the embedded model promises: `python -m studio.bench.embedded`.

Scenes composed a second (training must never wait for them), and seconds for a picture of studio-tiny: cold, from
starting the command to the file on disk, and warm, with the model loaded.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from studio.backend.core import Backend
from studio.backend.quiet import quiet
from studio.data.sticker_config import Stickers
from studio.data.stickers import draw_scenes
from studio.models.build import load
from studio.models.draw import draw
from studio.trainer import Request

_PROMPT = "a sticker of a red fox on green grass"
_SCENES = 64
_REPEATS = 5


def _scenes_a_second() -> float:
    scenes, times = Stickers(), []
    for seed in range(_REPEATS + 1):
        start = time.perf_counter()
        draw_scenes(scenes, _SCENES, torch.Generator().manual_seed(seed))
        times.append(time.perf_counter() - start)
    return _SCENES / statistics.median(times[1:])  # the first reads the sprites from disk


def _cold() -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "studio.cli", "sample", "--model", "studio-tiny"]
        subprocess.run([*command, "--prompt", _PROMPT, "--output", folder], check=True, capture_output=True)
        return time.perf_counter() - start


def _warm() -> float:
    family, times = load("studio-tiny", Backend()), []
    for seed in range(_REPEATS + 1):
        start = time.perf_counter()
        draw(family, Request(prompts=[_PROMPT], seed=seed, steps=20))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """One JSON line a fact."""
    quiet()
    facts = {
        "scenes composed": (_scenes_a_second(), "scenes/s"),
        "a picture, cold": (_cold(), "s"),
        "a picture of 20 steps, warm": (_warm(), "s"),
    }
    for name, (value, unit) in facts.items():
        sys.stdout.write(json.dumps({"name": name, "value": round(value, 2), "unit": unit}) + "\n")


if __name__ == "__main__":
    main()
