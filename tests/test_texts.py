"""What is said of text in training is what training reads, what its files tell, and what drawing takes over."""

import dataclasses
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from studio.adapters.config import Export, Full, Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog import methods
from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.evaluation.subject import evaluate
from studio.flags import flags, names
from studio.metrics.config import DreamBenchEval, Judges, SubjectEval, Timm
from studio.models.build import load
from studio.models.text import encode_clip, encode_t5
from studio.records import recipes, texts, trained
from studio.records.runs import RunFolder
from studio.same_subject.config import MakeSets, NoPrior
from studio.sampling import infer
from studio.settings import serial
from studio.settings.run import Hardware, Loop
from studio.settings.sampling import READ, SampleRequest, Text
from studio.testing import small, started
from studio.training.train import run_to_end
from tests.cases import CASES, photos
from tests.metrics.judges import timm_folder
from trainers.decor.config import Components, Save
from trainers.dreambooth.config import DreamBooth
from trainers.textual_inversion.config import TextualInversion

CPU = Hardware(device="cpu", precision="fp32")
SKIPPED = Text(clip_skip=1)
READERS = [name for name in CASES if "text" in serial.hints(methods.card(name).config)]
"""Methods that read text with a text-to-image model."""


def trained_run(folder: Path, method: Any, name: str = "run") -> RunFolder:
    run = Run(method=method, output=str(folder), name=name, loop=Loop(steps=1, batch_size=1), hardware=CPU)
    return run_to_end(run)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return photos(tmp_path_factory.mktemp("data") / "photos", 2)


def subject(data: str, **settings: Any) -> DreamBooth:
    given = {
        "data": data,
        "model": "tiny:sd1",
        "class_word": "dog",
        "token": "sks",
        "prior": NoPrior(),
        "text": SKIPPED,
    }
    return DreamBooth(**given | {"adapter": Lora(rank=2)} | settings)


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    formats = Export(formats=("diffusers", "kohya", "peft"), name="one")
    return trained_run(tmp_path_factory.mktemp("runs"), subject(data, export=formats))


@pytest.mark.parametrize("name", READERS)
def test_every_method_trains_with_the_text_that_was_asked_for(name: str, tmp_path: Path) -> None:
    settings = dataclasses.replace(CASES[name](tmp_path / "data"), text=SKIPPED)
    trainer = started(small(settings, tmp_path / "runs"))
    trainer.setup(trainer.backend)
    family = trainer.family  # pyright: ignore[reportAttributeAccessIssue]
    assert family.text.clip_skip == 1


def test_methods_of_text_to_image_are_those_that_read_text() -> None:
    drawing = {name for name in CASES if "text-to-image" in methods.card(name).offers}
    assert drawing == set(READERS)


def test_weights_in_captions_are_refused(data: str) -> None:
    with pytest.raises(StudioError, match=r"text\.weights .* captions of training are read as they are"):
        check(small(subject(data, text=Text(weights=True)), Path("runs")))


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_a_warning_names_a_flag_that_the_command_has(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    family = load("tiny:sd3", Backend(CPU))
    if kind == "clip":
        encoder, tokenizer = family.text_encoders["text_encoder"], family.tokenizers["tokenizer"]
        encode_clip(encoder, tokenizer, ["z " * 100], text=Text(), penultimate=False)
    else:
        encoder, tokenizer = family.text_encoders["text_encoder_3"], family.tokenizers["tokenizer_3"]
        encode_t5(encoder, tokenizer, ["z " * 100], length=16)
    (flag,) = re.findall(r"--[\w.-]+\w", caplog.text)
    commands = [flags.run_class(methods.card(name)) for name in READERS]
    for settings in (*commands, SampleRequest, SubjectEval, DreamBenchEval, MakeSets, Components, Save):
        assert flag in set(names.every(settings))


def test_the_flag_is_taken(data: str) -> None:
    run, _ = flags.parse_run("dreambooth", ["--data", data, "--text.long-prompts", "--text.clip-skip", "2"])
    assert run.method.text == Text(long_prompts=True, clip_skip=2)


def test_the_files_of_a_run_tell_it_wherever_they_go(run: RunFolder, tmp_path: Path) -> None:
    for name in ("pytorch_lora_weights.safetensors", "one.safetensors", "peft"):
        away = tmp_path / name
        (shutil.copytree if name == "peft" else shutil.copy)(run.export / name, away)
        assert texts.text_of(away) == SKIPPED
    with safe_open(tmp_path / "one.safetensors", "pt") as opened:
        told = opened.metadata()
    assert (told["ss_clip_skip"], told["modelspec.encoder_layer"]) == ("2", "2")
    assert texts.text_of(run.path) == texts.text_of(run.export / "peft" / "unet") == SKIPPED


def test_a_file_without_headers_is_known_by_the_run_that_it_lies_in(
    run: RunFolder, data: str, tmp_path: Path
) -> None:
    bare = Export(formats=("diffusers",), strip_metadata=True)
    found = trained_run(tmp_path, subject(data, export=bare))
    file = found.export / "pytorch_lora_weights.safetensors"
    with safe_open(file, "pt") as opened:
        assert texts.KEY not in opened.metadata()
    assert texts.text_of(file) == SKIPPED
    assert texts.text_of(shutil.copy(file, tmp_path.parent / "moved.safetensors")) is None


def test_whole_models_words_and_folders_of_a_method_tell_it_too(data: str, tmp_path: Path) -> None:
    whole = trained_run(tmp_path, subject(data, adapter=Full()), "whole")
    shutil.copytree(whole.export / "merged", tmp_path / "merged")
    assert texts.text_of(tmp_path / "merged") == SKIPPED
    method = TextualInversion(data=data, model="tiny:sd1", class_word="a", text=SKIPPED)
    word = trained_run(tmp_path, method, "word").export / "subject.safetensors"
    assert texts.text_of(shutil.copy(word, tmp_path / "word.safetensors")) == SKIPPED
    trained.write(tmp_path / "own", method="jedi", model="tiny:sd1", settings={}, text=SKIPPED)
    assert texts.text_of(tmp_path / "own") == SKIPPED
    trained.write(tmp_path / "old", method="jedi", model="tiny:sd1", settings={})
    assert texts.text_of(tmp_path / "old") is None


def test_damaged_words_about_text_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / texts.FILE).write_text('{"clip_skip": -1}')
    with pytest.raises(StudioError, match="does not tell rightly how text is read"):
        texts.text_of(tmp_path)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (READ, {"clip_skip": 1, "weights": True}),
        (Text(clip_skip=2), {"clip_skip": 2, "weights": False}),
        (Text(long_prompts=True, weights=True), {"clip_skip": 1, "long_prompts": True, "weights": True}),
    ],
)
def test_what_a_person_asks_for_goes_first(run: RunFolder, asked: Text, expected: dict[str, Any]) -> None:
    assert texts.as_trained(asked, READ, [str(run.path)]) == Text(**expected)


def test_what_is_taken_over_and_what_is_not_is_told(
    run: RunFolder, data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "studio.records.texts")
    other = trained_run(tmp_path, subject(data, text=Text()), "plain")
    assert texts.as_trained(READ, READ, [str(run.path), str(other.path)]).clip_skip == 1
    assert f"text is read as {run.path} was trained: clip_skip 1" in caplog.text
    assert f"{other.path} was trained with clip_skip 0" in caplog.text


def picture(family: Any, request: SampleRequest) -> torch.Tensor:
    with torch.no_grad():
        return family.embed(request.prompt).tokens


def test_sampling_takes_it_from_the_artifact_unless_told_otherwise(run: RunFolder, tmp_path: Path) -> None:
    request = SampleRequest(
        prompt=("a sks dog",), artifact=(str(run.path),), steps=1, output=str(tmp_path), hardware=CPU
    )
    drawn = infer.run(request)
    assert drawn.request.text == Text(clip_skip=1, weights=True)
    assert "Clip skip: 2" in recipes.parameters(drawn.request)
    assert recipes.read(drawn.paths[0]).text.clip_skip == 1
    family, _ = infer.load(request)
    plain, _ = infer.load(dataclasses.replace(request, as_trained=False))
    assert (family.text.clip_skip, plain.text.clip_skip) == (1, 0)
    assert not torch.equal(picture(family, request), picture(plain, request))


def test_previews_read_as_training_does(run: RunFolder) -> None:
    trainer = started(Run.from_dict(json.loads(run.config.read_text())))
    with trainer.backend.seeded(0):
        trainer.setup(trainer.backend)
    assert trainer.family.text == SKIPPED  # pyright: ignore[reportAttributeAccessIssue]


def test_an_evaluation_reads_as_training_did(
    run: RunFolder, data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "studio.records.texts")
    judges = Judges(likeness=Timm(model=timm_folder(tmp_path / "timm")))
    asked = SubjectEval(
        artifact=str(run.path),
        data=data,
        num_images=1,
        steps=1,
        hardware=CPU,
        judges=judges,
        output=str(tmp_path / "e"),
    )
    evaluate(asked)
    assert f"text is read as {run.path} was trained: clip_skip 1" in caplog.text


def test_going_on_with_other_text_is_told(
    run: RunFolder, data: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = started(small(subject(data, text=Text(), start=str(run.path)), Path("runs")))
    trainer.setup(trainer.backend)
    assert "was trained with clip_skip 1" in caplog.text
    assert "this training reads text with clip_skip 0" in caplog.text


def test_long_captions_train_beside_short_ones(data: str, tmp_path: Path) -> None:
    folder = tmp_path / "captioned"
    shutil.copytree(data, folder)
    (folder / "0.txt").write_text("a sks dog")
    (folder / "1.txt").write_text("sks " + "z " * 100)
    trainer = started(small(subject(str(folder), text=Text(long_prompts=True)), tmp_path))
    with trainer.backend.seeded(0):
        trainer.setup(trainer.backend)
    batch = next(trainer.source().stream(0, 0, trainer.backend.shard(2)))
    assert torch.isfinite(trainer.loss(batch, Rng.single(0, 1, 2)).total)
