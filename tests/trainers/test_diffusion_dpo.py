"""Diffusion-DPO: where it starts, what a swap of the pair does, both layouts of pairs, and that it learns."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.catalog.run import Run
from studio.contracts.batch import Batch
from studio.errors import StudioError
from studio.settings.run import Hardware, Loop, Optim
from studio.training.loop import fit
from studio.training.optim import Learner
from studio.training.train import train
from tests.cases import pairs
from trainers.diffusion_dpo.config import DiffusionDpo, check
from trainers.diffusion_dpo.pairs import Pairs, find_pairs
from trainers.diffusion_dpo.trainer import DiffusionDpoTrainer

CPU = Hardware(device="cpu")


def plain(folder: Path, number: int = 2) -> str:
    """Pairs whose better picture is red and whose worse one is blue."""
    for side, color in (("chosen", "red"), ("rejected", "blue")):
        (folder / side).mkdir(parents=True)
        for index in range(number):
            Image.new("RGB", (32, 32), color).save(folder / side / f"{index}.png")
            (folder / side / f"{index}.txt").write_text("a dog")
    return str(folder)


def dpo(data: str, **changes: Any) -> DiffusionDpoTrainer:
    trainer = DiffusionDpoTrainer(
        DiffusionDpo(**{"data": data, "model": "tiny:sd1", "adapter": Lora(rank=2)} | changes)
    )
    trainer.backend = Backend(CPU)
    with trainer.backend.seeded(0):
        trainer.groups = trainer.setup(trainer.backend)
    return trainer


def first_batch(trainer: DiffusionDpoTrainer, size: int = 2) -> Batch:
    return next(trainer.source().stream(0, 0, Shard(size, 0, size)))


def push(trainer: DiffusionDpoTrainer) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainer.groups[0].parameters().values():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


def test_the_first_loss_is_log_2_and_half_of_the_pairs_are_right(tmp_path: Path):
    trainer = dpo(pairs(tmp_path))
    loss = trainer.loss(first_batch(trainer), Rng.single(0, 1, 2))
    assert float(loss.total.detach()) == pytest.approx(math.log(2))
    assert float(loss.parts["implicit_accuracy"]) == 0.5


@pytest.mark.parametrize("trains", ["denoiser", "text-encoder"])
def test_swapping_the_pair_negates_the_logit(tmp_path: Path, trains: str):
    trainer = dpo(pairs(tmp_path), trains=trains, beta=2.0)
    push(trainer)
    batch = first_batch(trainer)
    turned = batch | {"chosen": batch["rejected"], "rejected": batch["chosen"]}
    one, other = (trainer.loss(b, Rng.single(0, 1, 2)) for b in (batch, turned))
    assert float(one.parts["error_chosen"]) == pytest.approx(float(other.parts["error_rejected"]), rel=1e-4)
    single = {key: value[:1] for key, value in batch.items()}
    swapped = {key: value[:1] for key, value in turned.items()}
    logits = [
        torch.logit(torch.exp(-trainer.loss(b, Rng.single(0, 1, 1)).total.double()))
        for b in (single, swapped)
    ]
    assert float(logits[0].detach()) == pytest.approx(-float(logits[1].detach()), abs=1e-5)
    assert float(logits[0].detach()) != 0


def test_the_loss_is_the_formula_of_the_paper(tmp_path: Path):
    trainer = dpo(pairs(tmp_path), beta=3.0)
    push(trainer)
    loss = trainer.loss(first_batch(trainer, 1), Rng.single(0, 1, 1))
    d = float(loss.parts["error_chosen"] - loss.parts["error_rejected"])
    assert float(loss.total.detach()) == pytest.approx(-math.log(1 / (1 + math.exp(1.5 * d))), rel=1e-4)


def test_both_pictures_of_a_pair_have_the_same_time_and_noise(tmp_path: Path):
    trainer = dpo(pairs(tmp_path))
    batch = first_batch(trainer)
    batch["rejected"] = batch["chosen"]
    noised = trainer._noised(batch, Rng.single(0, 1, 2))
    first, second = noised.x_t.chunk(2)
    assert torch.equal(first, second)
    assert torch.equal(*noised.t.chunk(2))


def test_the_better_picture_is_learned(tmp_path: Path):
    trainer = dpo(plain(tmp_path), beta=200.0)
    run = Run(
        method=trainer.config,
        loop=Loop(steps=12, batch_size=8, log_every=12),
        optim=Optim(lr=1e-2),
        hardware=CPU,
    )
    learner = Learner(trainer.groups, run.optim, run.loop, trainer.backend.scaler())
    for _ in fit(trainer, learner, trainer.backend, run):
        pass
    loss = trainer.loss(first_batch(trainer, 8), Rng.single(9, 9, 8))
    assert float(loss.parts["implicit_accuracy"]) > 0.8
    assert float(loss.total.detach()) < 0.6


def test_a_table_names_the_files_of_its_pairs(tmp_path: Path):
    for name in ("good", "bad"):
        Image.new("RGB", (40, 20), "red" if name == "good" else "blue").save(tmp_path / f"{name}.png")
    row = {"prompt": "a dog", "chosen": "good.png", "rejected": "bad.png"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    (pair,) = find_pairs(tmp_path)
    assert (pair.prompt, pair.chosen.path.name, pair.rejected.path.name) == ("a dog", "good.png", "bad.png")
    batch = next(Pairs([pair], 16).stream(0, 0, Shard(2, 0, 2)))
    assert batch["chosen"].shape == (2, 3, 16, 16)
    assert float(batch["chosen"][:, 0].min()) == 1
    assert float(batch["rejected"][:, 2].min()) == 1


def test_a_table_of_commas_is_read_too(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "pairs.csv").write_text("caption,chosen,rejected\na cat,a.png,a.png\n")
    assert [pair.prompt for pair in find_pairs(tmp_path)] == ["a cat"]


def test_pick_a_pic_is_read_without_its_ties(tmp_path: Path):
    contents = []
    for color in ("red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), color).save(file, "JPEG")
        contents.append(file.getvalue())
    labels = [1.0, 0.0, 0.5]
    table = {
        "caption": ["a", "b", "c"],
        "jpg_0": contents[:1] * 3,
        "jpg_1": contents[1:] * 3,
        "label_0": labels,
    }
    parquet.write_table(pa.table(table), tmp_path / "train-00000.parquet")
    found = find_pairs(tmp_path)
    assert [pair.prompt for pair in found] == ["a", "b"]
    rows = next(Pairs(found, 16).stream(0, 0, Shard(2, 0, 2)))
    red = rows["chosen"][:, 0].mean((1, 2)).gt(0.9).tolist()
    assert dict(zip(rows["captions"], red, strict=True)) == {"a": True, "b": False}


def half(folder: Path) -> Pairs:
    """A pair of black pictures with a white left side, of which much is dropped and mirrored."""
    picture = Image.new("RGB", (16, 16))
    picture.paste("white", (0, 0, 8, 16))
    picture.save(folder / "a.png")
    (folder / "pairs.csv").write_text("caption,chosen,rejected\na cat,a.png,a.png\n")
    return Pairs(find_pairs(folder), 16, caption_dropout=0.2, flip=0.5)


def varied(batch: Batch) -> list[tuple[bool, bool, bool]]:
    """For each row: no caption, better picture mirrored, worse one mirrored."""
    left = [batch[side][:, 0, 0, 0] > 0 for side in ("chosen", "rejected")]
    return [
        (not c, not a, not b)
        for c, a, b in zip(batch["captions"], *(side.tolist() for side in left), strict=True)
    ]


def test_a_fifth_of_the_captions_and_half_of_the_pictures_vary_each_by_itself(tmp_path: Path):
    stream = half(tmp_path).stream(0, 0, Shard(100, 0, 100))
    rows = torch.tensor([row for _ in range(10) for row in varied(next(stream))]).double()
    for found, share in zip(rows.mean(0).tolist(), (0.2, 0.5, 0.5), strict=True):
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / len(rows)) ** 0.5)
    correlation = torch.corrcoef(rows.T)
    assert float((correlation - torch.eye(3)).abs().max()) < 0.13


def test_what_varies_is_a_function_of_seed_step_and_row(tmp_path: Path):
    pairs_ = half(tmp_path)
    straight = pairs_.stream(3, 0, Shard(8, 0, 8))
    third = [varied(next(straight)) for _ in range(3)][2]
    assert varied(next(pairs_.stream(3, 2, Shard(8, 0, 8)))) == third
    assert varied(next(pairs_.stream(3, 2, Shard(8, 4, 8)))) == third[4:]
    assert varied(next(pairs_.stream(4, 2, Shard(8, 0, 8)))) != third


@pytest.mark.parametrize(
    ("model", "given", "share"),
    [("tiny:sd1", "auto", 0.2), ("tiny:sdxl", "auto", 0.2), ("tiny:sd3", "auto", 0), ("tiny:sd3", 0.3, 0.3)],
)
def test_the_share_of_empty_captions_is_the_official_one_where_there_is_one(
    tmp_path: Path, model: str, given: Any, share: float
):
    data = pairs(tmp_path / "a")
    trainer = dpo(data, model=model, caption_dropout=given, held_out=data)
    stream = trainer.source().stream(0, 0, Shard(100, 0, 100))
    silent = [caption == "" for caption in next(stream)["captions"]]
    assert sum(silent) / 100 == pytest.approx(share, abs=4 * (share * (1 - share) / 100) ** 0.5)
    shown = trainer.held_out()
    assert shown is not None
    batch = next(shown.stream(0, 0, Shard(100, 0, 100)))
    assert "" not in batch["captions"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "There are no pairs in"),
        (
            {"chosen/0.png": "", "chosen/0.txt": "a", "rejected/1.png": ""},
            "2 pictures in .* have no partner, first '0'",
        ),
        ({"chosen/0.png": "", "rejected/0.png": ""}, "has no prompt; give one"),
        ({"pairs.jsonl": '{"prompt": "a", "chosen": "x.png"}'}, "has no 'rejected'; a pair needs"),
        ({"pairs.jsonl": "{"}, "is not JSON"),
        ({"pairs.jsonl": '{"prompt": "a", "chosen": "x.png", "rejected": "y.png"}'}, "it does not exist"),
    ],
)
def test_broken_pairs_are_named(tmp_path: Path, files: dict[str, str], message: str):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        else:
            (tmp_path / name).write_text(text)
    with pytest.raises(StudioError, match=message):
        find_pairs(tmp_path)


def test_a_missing_folder_and_dropout_are_refused():
    with pytest.raises(StudioError, match="Folder 'none' does not exist"):
        check(DiffusionDpo(data="none"))
    with pytest.raises(StudioError, match=r"adapter.dropout"):
        check(DiffusionDpo(data="/", adapter=Lora(dropout=0.1)))


@pytest.mark.parametrize("share", [1.5, -0.1, "half"])
def test_a_share_of_captions_that_is_none_is_refused_by_its_name(share: Any):
    with pytest.raises(
        StudioError, match=r"^caption_dropout was given as .*: input should be 'auto', or "
    ) as error:
        DiffusionDpo(data="pairs", caption_dropout=share)
    assert error.value.field == "caption_dropout"


def test_held_out_pairs_give_a_validation_loss(tmp_path: Path):
    method = DiffusionDpo(data=pairs(tmp_path / "a"), held_out=pairs(tmp_path / "b"), model="tiny:sd1")
    loop = Loop(steps=1, batch_size=2, validate_every=1)
    run = Run(method=method, output=str(tmp_path), name="one", hardware=CPU, loop=loop)
    losses = [event["loss"] for event in train(run) if event["event"] == "validation"]
    assert losses[0] == pytest.approx(math.log(2))
    assert losses[1] != losses[0]
