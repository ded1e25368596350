"""SDXL reads the sizes of the pictures that it learns from, whatever the method; other families read none."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog import methods
from studio.contracts.trainer import Trainer
from studio.data.config import Images
from studio.data.set_config import SetFolder
from studio.data.view_config import Views
from studio.rewards.config import Brightness, Redness
from studio.rl.config import Sampler
from studio.same_subject.config import FolderPrior, NoPrior, OnlinePrior
from studio.settings.run import Hardware
from trainers.diffusion_dpo.config import DiffusionDpo
from trainers.draft.config import Draft
from trainers.dreambooth.config import DreamBooth
from trainers.instantbooth.config import InstantBooth
from trainers.ip_adapter.config import IpAdapter
from trainers.jedi.config import Jedi
from trainers.oft.config import OftControl
from trainers.textual_inversion.config import TextualInversion

OWN = [80, 96, 0, 6, 64, 64]
"""Sizes of a picture of 96 x 80 pixels: it covers 64 px at 77 x 64, of which the middle begins at 6."""
PRIOR = [70, 140, 0, 32, 64, 64]


def pictures(folder: Path, size: tuple[int, int] = (96, 80)) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, color in (("a", (200, 30, 30)), ("b", (30, 30, 200))):
        Image.new("RGB", size, color).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a sks dog")
    return str(folder)


def subject(root: Path, model: str, **settings: Any) -> DreamBooth:
    return DreamBooth(data=pictures(root / "own"), model=model, class_word="dog", token="sks", **settings)


def pairs(root: Path) -> str:
    for kind in ("chosen", "rejected"):
        pictures(root / kind)
    return str(root)


CASES: dict[str, tuple[Callable[[Path, str], Any], list[list[int]]]] = {
    "plain": (lambda root, model: subject(root, model, prior=NoPrior()), [OWN, OWN]),
    "cached": (
        lambda root, model: subject(
            root, model, prior=NoPrior(), images=Images(cache="latents", cache_folder=str(root / "cache"))
        ),
        [OWN, OWN],
    ),
    "class pictures": (
        lambda root, model: subject(
            root, model, prior=FolderPrior(folder=pictures(root / "class", (140, 70)))
        ),
        [OWN, OWN, PRIOR, PRIOR],
    ),
    "online prior": (lambda root, model: subject(root, model, prior=OnlinePrior()), [OWN] * 4),
    "textual_inversion": (
        lambda root, model: TextualInversion(data=pictures(root / "own"), model=model, class_word="a"),
        [OWN, OWN],
    ),
    "oft": (lambda root, model: OftControl(data=pictures(root / "own"), model=model), [OWN, OWN]),
    "diffusion_dpo": (lambda root, model: DiffusionDpo(data=pairs(root), model=model, flip=0.0), [OWN] * 4),
    "draft": (
        lambda root, model: Draft(
            prompts=("a",), model=model, reward=Redness(), held_out=Brightness(), sampler=Sampler(steps=1),
            pretrain=pictures(root / "own"),
        ),
        [OWN, OWN],
    ),
    "jedi": (
        lambda root, model: Jedi(
            data=SetFolder(folder=str(Path(pictures(root / "sets" / "rex")).parent)), model=model, set_sizes=(2,)
        ),
        [OWN] * 4,
    ),
    "ip_adapter": (
        lambda root, model: IpAdapter(
            data=pictures(root / "own"), model=model, encoder="tiny:clip", views=Views(mask="none")
        ),
        [OWN, OWN],
    ),
    "instantbooth": (
        lambda root, model: InstantBooth(
            data=pictures(root / "own"), model=model, encoder="tiny:clip", views=Views(mask="none"),
            class_words=("dog",),
        ),
        [OWN, OWN],
    ),
}  # fmt: skip


def told(settings: Any) -> tuple[Trainer, list[Any]]:
    """A trainer, and what its denoiser was told beside its text in one step's loss: the last call counts."""
    trainer = methods.card_of(settings).load_trainer()(settings)
    trainer.backend = Backend(Hardware(device="cpu"))
    with trainer.backend.seeded(0):
        trainer.setup(trainer.backend)
    stream = trainer.batches(trainer.source().stream(0, 0, trainer.backend.shard(2)), 0)
    seen: list[Any] = []
    family: Any = trainer.family  # pyright: ignore[reportAttributeAccessIssue]
    family.denoiser.register_forward_pre_hook(lambda _m, _a, named: seen.append(named), with_kwargs=True)
    trainer.loss(next(stream), Rng.single(0, 1, 2))
    return trainer, seen


@pytest.mark.parametrize("name", CASES)
def test_sdxl_is_told_the_sizes_of_every_picture(name: str, tmp_path: Path) -> None:
    make, expected = CASES[name]
    _, seen = told(make(tmp_path, "tiny:sdxl"))
    assert seen[-1]["added_cond_kwargs"]["time_ids"].tolist() == expected


@pytest.mark.parametrize("model", ["tiny:sd1", "tiny:sd3"])
def test_other_families_are_told_nothing(model: str, tmp_path: Path) -> None:
    _, seen = told(subject(tmp_path, model, prior=NoPrior()))
    assert not any("time_ids" in str(name) or name == "added_cond_kwargs" for name in seen[-1])


def test_data_without_sizes_is_told_as_drawing_is(tmp_path: Path) -> None:
    make, _ = CASES["oft"]
    _, seen = told(dataclasses.replace(make(tmp_path, "tiny:sdxl"), data="stickers"))
    assert torch.equal(
        seen[-1]["added_cond_kwargs"]["time_ids"], torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    )
