"""Does the text encoder learn from rewards, what does it cost, and does it add up with what the denoiser learned?

Every variant is judged on the same noise seeds before and after, drawn by the deployed sampler, without the noise that
training draws with. A combination loads two runs of the same seed into one model, without training.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result
from studio.evidence.subjects import weights_of
from studio.records import runs
from studio.settings import serial
from trainers.texforce import curves

MODEL = "studio-tiny"
NAMES = ("fox", "owl", "frog", "car", "apple", "rocket", "pizza", "guitar")
"""What pictures are to show, in training and in the exam."""
REWARDS: dict[str, dict[str, str]] = {
    "color": {"reward": "redness", "held_out": "clip-alignment"},
    "alignment": {"reward": "clip-alignment", "held_out": "redness"},
}
"""A reward that looks at colors alone, and one of the embedded CLIP; each is watched by the other."""
VARIANTS = {
    "texforce": ("texforce",),
    "ddpo": ("ddpo",),
    "draft": ("draft",),
    "texforce + ddpo": ("texforce", "ddpo"),
    "texforce + draft": ("texforce", "draft"),
}
"""Which trained runs are loaded together, each at strength 1."""
IMAGES, STEPS = 640, 5
"""Pictures that each run may draw, and the sampler steps of each."""
ROLLOUT, GROUP, UPDATES = 32, 4, 4
"""Pictures a rollout, pictures of one prompt in it, and updates that learn from it."""
CLIP = 1e-3
"""The paper's 1e-4 is for latents of 16,384 elements, whose mean the ratio is of; ours have 1,024."""
DRAFT_BATCH = 16
RATES = {"texforce": 3e-3, "ddpo": 3e-3, "draft": 3e-3}
"""Learning rates: that of the presets. Three times as high, both policy gradients lost alignment over 640 pictures."""
EXAM = {"images": 5, "steps": STEPS, "guidance": 1.0}
"""Pictures a prompt, and how they are drawn. Guidance 1, in training too: one pass a step."""


def prompts(names: Sequence[str]) -> list[str]:
    """What to draw."""
    return [f"a sticker of {'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]


def _run_settings(method: str, reward: str, seed: int, request: Reproduce) -> dict[str, Any]:
    """The whole settings of a run, checked, as plain values."""
    own: dict[str, Any] = {"kind": method, "model": MODEL, "prompts": prompts(NAMES), **REWARDS[reward]}
    own["adapter"] = {"rank": 8}
    if method == "draft":
        own["sampler"] = {"steps": STEPS, "guidance": 1.0, "noise": 0.0}
        loop = {"batch_size": DRAFT_BATCH, "steps": IMAGES // DRAFT_BATCH, "log_every": 2}
    else:
        own |= {
            "rollouts": {
                "images": ROLLOUT, "group": GROUP, "chunk": ROLLOUT, "steps": STEPS, "guidance": 1.0, "noise": 1.0,
            },
            "advantage": {"kind": "group-advantage"},
            "ppo": {"fraction": 0.75, "last_step": False, "clip": CLIP},
        }  # fmt: skip
        loop = {
            "batch_size": ROLLOUT // UPDATES,
            "steps": UPDATES * IMAGES // ROLLOUT,
            "log_every": UPDATES,
        }
    values = {
        "method": own,
        "seed": seed,
        "loop": loop | {"checkpoint_every": 20},
        "optim": {"lr": RATES[method], "weight_decay": 1e-4},
        "hardware": serial.to_dict(request.hardware),
    }
    return Run.from_dict(values).to_dict()


def _cells(request: Reproduce) -> Sequence[Cell]:
    """Seeds are the units: the error of a mean counts trainings, not pictures."""
    found: list[Cell] = []
    for seed in range(request.num_seeds):
        for reward in REWARDS:
            for variant, methods in VARIANTS.items():
                settings = {
                    "runs": [_run_settings(method, reward, seed, request) for method in methods],
                    "weights": weights_of(MODEL),
                    "exam": {**EXAM, "prompts": prompts(NAMES)},
                }
                found.append(
                    Cell(
                        variant=f"{reward}: {variant}", unit=f"training {seed}", seed=seed, settings=settings
                    )
                )
    return found


def _run(cell: Cell, folder: Path) -> Result:
    """Train what is not trained yet, load it, and judge it on the seeds that the base was judged on."""
    from trainers.texforce import exam

    trained = [
        _trained(settings, cell.settings["weights"], folder.parent) for settings in cell.settings["runs"]
    ]
    before = exam.base(cell.settings, folder.parent)
    after = exam.judged(cell.settings, [place for place, _ in trained], folder / "pictures")
    done = [next(e for e in reversed(events) if e["event"] == "done") for _, events in trained]
    return Result(
        measures={name: (before.scores[name], value) for name, value in after.scores.items()},
        seconds=sum(event["seconds"] for event in done) if len(done) == 1 else 0.0,
        pictures={"Base": [str(before.sheet)], "trained": [str(after.sheet)]},
        facts=_facts(cell),
        curves=curves.of_run(trained[0][1], *_images_a_step(cell)) if len(trained) == 1 else {},
    )


def _trained(settings: Mapping[str, Any], weights: str, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A finished run and its events; one that was stopped goes on."""
    from studio.training.train import resume, train

    text = json.dumps([dict(settings), weights], sort_keys=True)
    place = folder / f"run-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not (place / "config.json").exists():
        values = serial.merge(dict(settings), {"output": str(folder), "name": place.name})
        for _ in train(Run.from_dict(values)):
            pass
    elif runs.RunFolder(place).status() != "done":
        for _ in resume(place):
            pass
    return place, list(runs.RunFolder(place).read_events())


def _images_a_step(cell: Cell) -> tuple[int, int]:
    """Pictures a rollout, and updates that share it."""
    method = cell.settings["runs"][0]["method"]
    return (DRAFT_BATCH, 1) if method["kind"] == "draft" else (ROLLOUT, UPDATES)


def _facts(cell: Cell) -> dict[str, str]:
    return {
        "base model": f"{MODEL} {cell.settings['weights']}",
        "budget": f"{IMAGES} pictures a run, {STEPS} steps, guidance 1; LoRA rank 8; rates {RATES}; clip {CLIP}; {UPDATES} updates "
        f"a rollout of {ROLLOUT}; draft: batches of {DRAFT_BATCH}",
        "exam": (
            f"{EXAM['images']} pictures for each of {len(NAMES)} prompts, on the same noise seeds for all, {STEPS} DDIM "
            "steps without noise"
        ),
        "judges": "CLIP: the embedded studio-tiny-clip; object named: the independent EfficientNet-lite0, of 40",
        "combinations": "two runs of one seed loaded together at strength 1, not trained further (0 seconds)",
    }


RECIPE = Recipe(
    title="Rewards on the embedded model: text encoder, denoiser, back-propagation, and their sum",
    question=(
        "How far does a reward grow on fixed noise seeds for the same number of drawn pictures, what happens to the rewards "
        "that were not asked for and to diversity, and is a text encoder and a denoiser trained apart better together?"
    ),
    cells=_cells,
    run=_run,
    charts=curves.write,
)
