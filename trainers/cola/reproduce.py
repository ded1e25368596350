"""Does a joint look at both towers' tokens tell whose attribute is whose, where heads on their features cannot?

COLA's adapter against a linear probe and prompt tuning, with the same scenes in the same order. Torch is imported when a
cell runs, not before.
"""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result, new_run
from studio.settings import serial

if TYPE_CHECKING:
    from trainers.cola.exam import Exam

VARIANTS: dict[str, dict[str, Any]] = {
    "adapter": {"head": {"kind": "multimodal", "feed_forward": 512, "grid": 4, "dropout": 0.0}, "lr": 5e-4},
    "linear probe": {"head": {"kind": "linear-probe"}, "lr": 1e-3},
    "prompt tuning": {"head": {"kind": "prompt-tuning"}, "lr": 5e-3},
}
MODEL = "studio-tiny-clip"
SCENES = {"attribute": "color", "num_concepts": 10, "num_colors": 4}
TRAINING = {
    "loop": {"steps": 300, "batch_size": 12, "log_every": 20, "checkpoint_every": 0},
    "optim": {"schedule": "cosine", "warmup": 20, "weight_decay": 0.01},
}
ITEMS = 60
"""Items of two pictures and two captions in each exam."""
EXAMS = {"seen pairs": False, "unseen pairs": True}
"""Whether scenes are of pairs of object and color that training never shows."""


def cells(request: Reproduce) -> Sequence[Cell]:
    """Each head with each seed; seeds outermost, so that a stopped table is a fair one."""
    found: list[Cell] = []
    for seed in range(request.num_seeds):
        for name, variant in VARIANTS.items():
            method = {"kind": "cola", "model": MODEL, "scenes": SCENES, "head": variant["head"]}
            optim = {**TRAINING["optim"], "lr": variant["lr"]}
            run = {**TRAINING, "optim": optim, "method": method, "seed": seed}
            run["hardware"] = serial.to_dict(request.hardware)
            settings = {"run": run, "items": ITEMS, "exams": EXAMS}
            found.append(Cell(variant=name, unit="stickers", seed=seed, settings=settings))
    return found


def run(cell: Cell, folder: Path) -> Result:
    """Train a head, and examine it and the CLIP as it comes."""
    from studio.training.train import run_to_end
    from trainers.cola.trainer import load_head, match

    values = dict(cell.settings["run"])
    started = time.monotonic()
    place = run_to_end(Run.from_dict({**values, "output": str(folder), "name": new_run(folder)}))
    seconds = time.monotonic() - started
    _, head = load_head(place.export)
    measures: dict[str, tuple[float | None, float]] = {}
    for name in cell.settings["exams"]:
        before, exam = _untouched(name), _exam(name)
        after = exam.scores(lambda images, texts: match(head, images, texts))
        measures |= {f"{name}: {key}": (before[key], value) for key, value in after.items()}
    steps = [event for event in place.read_events() if event["event"] == "step"]
    curves = {key: [[event["step"], event[key]] for event in steps] for key in ("loss", "accuracy")}
    return Result(measures=measures, seconds=seconds, facts=_facts(cell, head), curves=curves)


@cache
def _exam(name: str) -> "Exam":
    from studio.data.sticker_config import StickerPairs
    from trainers.cola.exam import Exam

    return Exam.of(serial.from_dict(StickerPairs, SCENES), ITEMS, held_out=EXAMS[name])


@cache
def _untouched(name: str) -> Mapping[str, float]:
    """What the CLIP itself scores: pictures and captions by the cosine of their features."""
    from studio.models.clip import load_clip

    clip = load_clip(MODEL).requires_grad_(False)
    return _exam(name).scores(lambda images, texts: clip.logits(clip.images(images), clip.texts(texts)))


def _facts(cell: Cell, head: Any) -> dict[str, str]:
    loop = cell.settings["run"]["loop"]
    trained = sum(value.numel() for value in head.parameters())
    return {
        "model": f"{MODEL}, frozen; base is its own zero-shot score",
        f"trained numbers, {cell.variant}": f"{trained:,}",
        "training": f"{loop['steps']} steps of {loop['batch_size']} scenes in twins, the same for all",
        "multi-object": "share of items in which each caption picks its own image; a coin gets 0.25",
        "hard average precision": "24 pairs of object and color, among the pictures that share a word with them",
    }


RECIPE = Recipe(
    title="COLA: whose color is whose?",
    question=(
        "Scenes of two objects on plates of different colors, each with a twin in which the colors are swapped: how often "
        "does each caption pick its own image, and how well are single objects of one color found among look-alikes, for "
        "pairs of object and color that training showed and for pairs that it never showed?"
    ),
    cells=cells,
    run=run,
)
