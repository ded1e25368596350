"""The exam of the evidence: pictures from fixed seeds, judged by all rewards and by a network that never trained here.

Axes: `b` pictures, `n` objects, `d` features.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.backend.core import Backend
from studio.contracts.sampling import Request
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, names, plan_scenes
from studio.metrics.backbones import load_timm
from studio.metrics.images import to_tensor
from studio.models.build import load
from studio.models.draw import draw
from studio.records import runs
from studio.rewards.build import Terms
from studio.rewards.config import ClipAlignment, Incompressible, Redness
from studio.rl.watch import diversity, thumbnails
from studio.sampling.infer import grid
from studio.settings.run import Hardware
from studio.weights import artifacts

REWARDS = {"redness": Redness(), "CLIP alignment": ClipAlignment(), "JPEG kB": Incompressible()}
SCENES = 12
"""True scenes of each object, whose mean features stand for it."""
SHOWN = 16
FIRST_SEED = 10_000
"""Noise seed of the first picture of a prompt; training draws from others."""


@dataclass(frozen=True)
class Judged:
    """Scores by name, and a sheet of the first pictures."""

    scores: dict[str, float]
    sheet: Path


def base(settings: Mapping[str, Any], folder: Path) -> Judged:
    """The exam of the untouched model; kept for the other cells."""
    wanted = json.dumps([settings["exam"], settings["weights"]], sort_keys=True)
    place = folder / f"base-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    file = place / "scores.json"
    if not file.exists():
        found = judged(settings, [], place)
        runs.write_text(file, json.dumps(found.scores) + "\n")
    return Judged(json.loads(file.read_text(encoding="utf-8")), place / "sheet.png")


@torch.no_grad()
def judged(settings: Mapping[str, Any], trained: Sequence[Path], folder: Path) -> Judged:
    """The exam of the model with trained runs on it."""
    hardware, exam = settings["runs"][0]["hardware"], settings["exam"]
    family = load(settings["runs"][0]["method"]["model"], Backend(Hardware(**hardware)))
    for place in trained:
        artifacts.load(place, family, 1.0)
    request = Request(
        prompts=exam["prompts"], num_images=exam["images"], seed=FIRST_SEED, steps=exam["steps"],
        guidance=exam["guidance"], scheduler="ddim",
    )  # fmt: skip
    pictures = draw(family, request, most=32)
    folder.mkdir(parents=True, exist_ok=True)
    grid(pictures[:: exam["images"]][:SHOWN], columns=4).save(folder / "sheet.png")
    prompts = [prompt for prompt in exam["prompts"] for _ in range(exam["images"])]
    scores = _scores(torch.stack([to_tensor(picture) for picture in pictures]), prompts)
    return Judged(scores, folder / "sheet.png")


def _scores(images: Float[Tensor, "b 3 h w"], prompts: list[str]) -> dict[str, float]:
    found = {name: float(Terms(reward, "cpu")(images, prompts).mean()) for name, reward in REWARDS.items()}
    found["object named"] = float(named(images, prompts).mean())
    found["diversity"] = float(diversity(thumbnails(images), prompts))
    return found


def named(images: Float[Tensor, "b 3 h w"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
    """1 where the independent network finds the object of the prompt the nearest of all the model knows."""
    center, centroids = _objects()
    features = F.normalize(_judge()(images) - center, dim=-1)
    nearest = (features @ centroids.mT).argmax(1)
    known = names(len(centroids))
    wanted = torch.tensor([known.index(prompt.rsplit(" ", 1)[-1]) for prompt in prompts])
    return (nearest == wanted).float()


@cache
def _judge() -> Any:
    return load_timm("efficientnet-lite0", "cpu")


@cache
def _objects() -> tuple[Float[Tensor, " d"], Float[Tensor, "n d"]]:
    """The mean features of each object's true scenes, and their center."""
    scenes = Stickers()
    rows = []
    for concept in range(scenes.num_concepts):
        plan = plan_scenes(scenes, SCENES, torch.Generator().manual_seed(concept))
        plan.concepts.fill_(concept)
        rows.append(_judge()(compose(plan, scenes).images).mean(0))
    found = torch.stack(rows)
    return found.mean(0), F.normalize(found - found.mean(0), dim=-1)
