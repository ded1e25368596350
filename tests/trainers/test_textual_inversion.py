"""Textual inversion: one word learns, nothing else moves."""

from pathlib import Path

import pytest
import torch

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.models.build import load
from studio.settings.run import Hardware, Loop, Optim
from studio.training.train import run_to_end
from studio.weights import artifacts
from tests.cases import photos
from trainers.textual_inversion.config import TextualInversion
from trainers.textual_inversion.trainer import TextualInversionTrainer

CPU = Hardware(device="cpu")


def ready(settings: TextualInversion) -> TextualInversionTrainer:
    trainer = TextualInversionTrainer(settings)
    trainer.backend = Backend(CPU)
    trainer.setup(trainer.backend)
    return trainer


def test_the_word_starts_from_the_class_word(tmp_path: Path) -> None:
    trainer = ready(TextualInversion(data=str(tmp_path), model="tiny:sd1", class_word="a"))
    tokenizer = trainer.family.tokenizers["tokenizer"]
    table = trainer.family.text_encoders["text_encoder"].get_input_embeddings()
    (index,) = tokenizer.encode("a", add_special_tokens=False)
    assert torch.equal(trainer.rows["text_encoder"].vectors[0], table.weight[index])
    with torch.no_grad():
        one = trainer.family.embed(["<subject>"]).tokens
        other = trainer.family.embed(["a"]).tokens
    assert torch.equal(one, other)


def test_after_steps_with_weight_decay_every_other_tensor_is_bit_identical(tmp_path: Path) -> None:
    trainer = ready(TextualInversion(data=photos(tmp_path / "d", 2), model="tiny:sd1", class_word="a"))
    family = trainer.family
    before = {
        f"{m}.{k}": v.clone() for m, net in family.modules().items() for k, v in net.state_dict().items()
    }
    start = trainer.rows["text_encoder"].vectors.detach().clone()
    trained = [p for rows in trainer.rows.values() for p in rows.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    stream = trainer.source().stream(0, 0, trainer.backend.shard(2))
    for step in range(1, 6):
        trainer.loss(next(stream), Rng.single(0, step, 2)).total.backward()
        optimizer.step()
        trainer.after_step(step)
    after = {f"{m}.{k}": v for m, net in family.modules().items() for k, v in net.state_dict().items()}
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(start, trainer.rows["text_encoder"].vectors)


def test_a_class_word_of_several_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"tokens of the model; choose a word of one token"):
        ready(TextualInversion(data=str(tmp_path), model="tiny:sd1", class_word="xylophone quartz"))


def test_a_word_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="is a word of the model already"):
        ready(TextualInversion(data=str(tmp_path), model="tiny:sd1", class_word="a", token="a</w>"))


@pytest.mark.parametrize("name", ["sd2", "sdxl", "sd3", "flux"])
@torch.no_grad()
def test_every_family_reads_its_words_back(name: str, tmp_path: Path) -> None:
    trained = ready(TextualInversion(data=str(tmp_path), model=f"tiny:{name}", class_word="a", vectors=2))
    for rows in trained.rows.values():
        rows.vectors.normal_()
    family = load(f"tiny:{name}", Backend(CPU))
    (file,) = trained.export(tmp_path)
    prompt = f"a photo of {artifacts.load(file, family).trigger}"
    ours, theirs = trained.family.embed([prompt]), family.embed([prompt])
    torch.testing.assert_close(ours.tokens, theirs.tokens)
    if ours.pooled is not None:
        torch.testing.assert_close(ours.pooled, theirs.pooled)


def test_the_file_read_back_gives_the_same_embedding(tmp_path: Path) -> None:
    data = photos(tmp_path / "data", 2)
    method = TextualInversion(data=data, model="tiny:sd1", class_word="a", vectors=2)
    run = Run(
        method=method,
        output=str(tmp_path),
        name="word",
        loop=Loop(steps=2, batch_size=2),
        optim=Optim(lr=0.1),
    )
    folder = run_to_end(run)
    file = folder.export / "subject.safetensors"
    family = load("tiny:sd1", Backend(CPU))
    word = artifacts.load(file, family).trigger
    trained = ready(method)
    from safetensors.torch import load_file

    with torch.no_grad():
        trained.rows["text_encoder"].vectors.copy_(next(iter(load_file(file).values())))
        torch.testing.assert_close(
            family.embed([f"a photo of {word}"]).tokens,
            trained.family.embed([f"a photo of {trained.word}"]).tokens,
        )
