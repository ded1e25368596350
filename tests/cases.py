"""The smallest sensible settings of every method, for the tests that all methods pass.

A method that `studio new method` made has its case beside its test: `tests/trainers/case_<name>.py`.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from studio.adapters.config import Full, Lora, Oft
from studio.attacks.config import Pgd
from studio.data.config import Labelled
from studio.data.set_config import StickerSets
from studio.data.sticker_config import Stickers
from studio.matching.config import Classes, Maple
from studio.rewards.config import Brightness, Redness
from studio.rl.config import Ppo, Rollouts, Sampler
from studio.same_subject.config import OnlinePrior
from studio.testing import SIDE, photos
from tests.trainers.pictures import class_folders, trained_folder
from trainers.adversarial.config import Adversarial
from trainers.arrest.config import Arrest
from trainers.cafe.config import Cafe
from trainers.captioner.config import Captioner
from trainers.clip.config import Clip
from trainers.cola.config import Cola, Multimodal
from trainers.ddpo.config import Ddpo
from trainers.decor.config import Decor
from trainers.diffusion_dpo.config import DiffusionDpo
from trainers.draft.config import Draft
from trainers.dreambooth.config import DreamBooth
from trainers.flow_grpo.config import FlowGrpo
from trainers.instantbooth.config import InstantBooth
from trainers.ip_adapter.config import IpAdapter
from trainers.jedi.config import Jedi
from trainers.oft.config import OftControl
from trainers.ogen.config import Ogen, Teacher, Words
from trainers.pretrain.config import Pretrain, Vit
from trainers.shared_attention.config import SharedAttention
from trainers.style_injection.config import StyleInjection
from trainers.texforce.config import TexForce
from trainers.textual_inversion.config import TextualInversion
from trainers.vit.config import Vit as Classifier
from trainers.vit_nullspace.config import VitNullspace
from trainers.vlm.config import Vlm

# Two batches of two pictures: two updates a rollout, so that runs also stop inside one.
REINFORCED: dict[str, Any] = {
    "prompts": ("a dog", "a cat"), "model": "tiny:sd1", "reward": Redness(), "held_out": Brightness(),
    "rollouts": Rollouts(images=4, steps=2), "ppo": Ppo(fraction=1.0),
}  # fmt: skip


REWARDED = {key: REINFORCED[key] for key in ("prompts", "model", "reward", "held_out")}


def classes(folder: Path) -> Labelled:
    """Two class folders of noise pictures."""
    for name in ("ball", "cup"):
        photos(folder / name, 8)
    return Labelled(train=str(folder), augment="none")


def pairs(folder: Path) -> str:
    """Two pairs with a prompt each: noise is better than one color."""
    photos(folder / "chosen", 2)
    (folder / "rejected").mkdir()
    for index in range(2):
        (folder / "chosen" / f"{index}.txt").write_text("a dog")
        Image.new("RGB", (SIDE, SIDE), (90 * index, 40, 200)).save(folder / "rejected" / f"{index}.png")
    return str(folder)


def chats(folder: Path) -> str:
    """Three conversations about noise pictures, as sharegpt."""
    photos(folder)
    asked = {"from": "human", "value": "<image>\nWhat is it?"}
    answers = ("A ball.", "Two cups and a ball.", "Noise.")
    said = [
        {"id": str(n), "image": f"{n}.png", "conversations": [asked, {"from": "gpt", "value": text}]}
        for n, text in enumerate(answers)
    ]
    (folder / "chats.json").write_text(json.dumps(said), encoding="utf-8")
    return str(folder / "chats.json")


CASES: dict[str, Callable[[Path], Any]] = {
    "adversarial": lambda root: Adversarial(model="tiny:vit", data=classes(root), attack=Pgd(steps=2)),
    "arrest": lambda root: Arrest(
        model=trained_folder(root), data=class_folders(root / "data", 16), attack=Pgd(steps=2)
    ),
    "cafe": lambda root: Cafe(data=chats(root), model="tiny:llava", adapter=Full()),
    "captioner": lambda root: Captioner(model="new:tiny:open-clip", candidates=4),
    "cola": lambda root: Cola(model="tiny:clip", head=Multimodal(feed_forward=16)),
    "clip": lambda root: Clip(model="tiny:clip", data=classes(root), chunk=1),
    "ddpo": lambda root: Ddpo(**REINFORCED),
    "diffusion_dpo": lambda root: DiffusionDpo(data=pairs(root), model="tiny:sd1"),
    "draft": lambda root: Draft(**REWARDED, sampler=Sampler(steps=2, noise=1.0), adapter=Lora(rank=2)),
    "dreambooth": lambda root: DreamBooth(
        data=photos(root), model="tiny:sd1", class_word="dog", token="sks", prior=OnlinePrior(), text_encoder=True,
        adapter=Lora(rank=2, dropout=0.1),
    ),
    "flow_grpo": lambda root: FlowGrpo(
        **REINFORCED | {"model": "tiny:sd3", "rollouts": Rollouts(images=4, group=2, steps=2, noise=0.7)},
        adapter=Lora(rank=2),
    ),
    "ogen": lambda root: Ogen(
        model="tiny:clip", data=classes(root), classes=Classes(), tuning=Maple(), names=Words(words=("fox", "bus")),
        warmup=1, teacher=Teacher(period=1), refresh=1,
    ),
    "instantbooth": lambda root: InstantBooth(model="tiny:sd1", encoder="tiny:clip"),
    "ip_adapter": lambda root: IpAdapter(model="tiny:sd1", encoder="tiny:clip"),
    "jedi": lambda root: Jedi(model="tiny:sd1", data=StickerSets(scenes=Stickers(num_concepts=4)), held_out_sets=1),
    "oft": lambda root: OftControl(data=photos(root), model="tiny:sd1", adapter=Oft()),
    "pretrain": lambda root: Pretrain(model=Vit(width=32, depth=1, scenes=Stickers(num_concepts=4))),
    "texforce": lambda root: TexForce(**REINFORCED),
    "textual_inversion": lambda root: TextualInversion(data=photos(root), model="tiny:sd1", class_word="a"),
    "vit": lambda root: Classifier(model="tiny:vit", data=classes(root)),
    "vit_nullspace": lambda root: VitNullspace(model="tiny:vit", data=classes(root), search_steps=2),
    "vlm": lambda root: Vlm(
        data=chats(root), model="tiny:llava", trains=("vision", "projector", "language"),
        adapter=Lora(rank=2, layers="linear", dropout=0.1),
    ),
} | {
    file.stem.removeprefix("case_"): importlib.import_module(f"tests.trainers.{file.stem}").case
    for file in sorted(Path(__file__).parent.glob("trainers/case_*.py"))
}  # fmt: skip
"""Method to settings over an empty folder."""

EDITS: dict[str, Callable[[Path], Any]] = {
    "decor": lambda root: Decor(undesired=("grass",)),
    "shared_attention": lambda root: SharedAttention(prompt="a cat"),
    "style_injection": lambda root: StyleInjection(
        content=photos(root) + "/0.png", style=photos(root) + "/1.png", refine=0
    ),
}
"""Method that edits sampling to settings over an empty folder."""
