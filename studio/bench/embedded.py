"""Times what the embedded models promise: `python -m studio.bench.embedded`.

Scenes composed a second (training must never wait for them), and seconds for a picture of each text-to-image model: cold,
from starting the command to the file on disk, and warm, with the model loaded.
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
from studio.contracts.sampling import Request
from studio.data.sticker_config import Stickers
from studio.data.stickers import draw_scenes
from studio.models.build import EMBEDDED_MODELS, load
from studio.models.draw import draw

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


def _cold(model: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "studio.cli", "sample", "--model", model]
        subprocess.run([*command, "--prompt", _PROMPT, "--output", folder], check=True, capture_output=True)
        return time.perf_counter() - start


def _warm(model: str) -> float:
    family, times = load(model, Backend()), []
    for seed in range(_REPEATS + 1):
        start = time.perf_counter()
        draw(family, Request(prompts=[_PROMPT], seed=seed, steps=20))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """One JSON line a fact."""
    quiet()
    facts = {"scenes composed": (_scenes_a_second(), "scenes/s")}
    for model in EMBEDDED_MODELS:
        facts[f"a picture of {model}, cold"] = (_cold(model), "s")
        facts[f"a picture of {model}, 20 steps, warm"] = (_warm(model), "s")
    for name, (value, unit) in facts.items():
        sys.stdout.write(json.dumps({"name": name, "value": round(value, 2), "unit": unit}) + "\n")


if __name__ == "__main__":
    main()
