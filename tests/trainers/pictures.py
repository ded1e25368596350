"""Class folders of drawn pictures, a trained classifier in a folder, and short runs: for tests of classifier methods."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog.run import Run
from studio.contracts.batch import Batch
from studio.data.config import Labelled
from studio.models.vit import save_classifier
from studio.settings.run import Hardware, Loop, Optim
from tests.classifiers import CLASSES, pictures, trained

BACKEND = Hardware(device="cpu", precision="fp32")


def class_folders(root: Path, count: int = 64) -> Labelled:
    """Drawn pictures as files in one folder a class."""
    images, labels = pictures(count, 5)
    pixels = rearrange((images * 255).round().to(torch.uint8), "b c h w -> b h w c").numpy()
    for index, (picture, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{index}.png")
    return Labelled(train=str(root), augment="none")


def trained_folder(root: Path, name: str = "tiny:vit") -> str:
    """The trained classifier as a folder that --model takes."""
    model = trained(name)
    save_classifier(model, model.network, root / "trained")
    return str(root / "trained")


def ready(trainer: Any) -> Any:
    """A trainer after setup, as a run would have it."""
    backend = backend_of_tests()
    trainer.backend = backend
    with backend.seeded(0):
        trainer.groups = trainer.setup(backend)
    return trainer


@cache
def backend_of_tests() -> Backend:
    """One backend for all tests."""
    return Backend(BACKEND)


def batch_of(count: int = 16, seed: int = 3) -> Batch:
    """Drawn pictures as a batch."""
    images, labels = pictures(count, seed)
    return {"images": images, "labels": labels}


def rng_of(batch: Batch, step: int = 1) -> Rng:
    """Random numbers for a batch."""
    return Rng.single(0, step, len(batch["labels"]))


def short_run(method: object, path: Path, name: str, steps: int = 6, **loop: Any) -> Run:
    """A run of a few steps."""
    settings = Loop(steps=steps, batch_size=16, log_every=1, checkpoint_every=0, **loop)
    return Run(
        method=method, output=str(path), name=name, loop=settings, optim=Optim(lr=1e-3), hardware=BACKEND
    )
