"""The smallest sensible settings of every method, for the tests that all methods pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.adapters.config import Lora, Oft
from studio.attacks.config import Pgd
from studio.data.config import Labelled
from studio.data.sticker_config import Stickers
from tests.trainers.pictures import class_folders, trained_folder
from trainers.adversarial.config import Adversarial
from trainers.arrest.config import Arrest
from trainers.dreambooth.config import DreamBooth, OnlinePrior
from trainers.oft.config import OftControl
from trainers.pretrain.config import Pretrain, Vit
from trainers.textual_inversion.config import TextualInversion
from trainers.vit.config import Vit as Classifier
from trainers.vit_nullspace.config import VitNullspace

SIZE = 32


def photos(folder: Path, number: int = 3) -> str:
    """A folder of noise pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for index in range(number):
        pixels = draw.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return str(folder)


def classes(folder: Path) -> Labelled:
    """Two class folders of noise pictures."""
    for name in ("ball", "cup"):
        photos(folder / name, 8)
    return Labelled(train=str(folder), augment="none")


CASES: dict[str, Callable[[Path], Any]] = {
    "adversarial": lambda root: Adversarial(model="tiny:vit", data=classes(root), attack=Pgd(steps=2)),
    "arrest": lambda root: Arrest(
        model=trained_folder(root), data=class_folders(root / "data", 16), attack=Pgd(steps=2)
    ),
    "dreambooth": lambda root: DreamBooth(
        data=photos(root), model="tiny:sd1", class_word="dog", token="sks", prior=OnlinePrior(), text_encoder=True,
        adapter=Lora(rank=2, dropout=0.1),
    ),
    "oft": lambda root: OftControl(data=photos(root), model="tiny:sd1", adapter=Oft()),
    "pretrain": lambda root: Pretrain(model=Vit(width=32, depth=1, scenes=Stickers(num_concepts=4))),
    "textual_inversion": lambda root: TextualInversion(data=photos(root), model="tiny:sd1", class_word="a"),
    "vit": lambda root: Classifier(model="tiny:vit", data=classes(root)),
    "vit_nullspace": lambda root: VitNullspace(model="tiny:vit", data=classes(root), search_steps=2),
}  # fmt: skip
"""Method to settings over an empty folder."""
