"""Finetuning of dual encoders: contrast, classes, locked towers, what is refused."""

from pathlib import Path

import pytest
import torch

from studio.backend.rng import Rng
from studio.data.config import Labelled
from studio.data.sticker_config import Stickers
from studio.errors import StudioError
from studio.matching.config import Classes, Coop, LpFt, Scenes, Whole
from studio.models.clip import load_clip
from studio.training.train import run_to_end
from tests.trainers.pictures import class_folders, ready, short_run
from trainers.clip.config import METHOD, Clip
from trainers.clip.trainer import ClipTrainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return class_folders(tmp_path_factory.mktemp("pictures"), 48)


def first_loss(trainer: ClipTrainer, count: int = 8) -> torch.Tensor:
    batch = next(trainer.source().stream(0, 0, trainer.backend.shard(count)))
    return trainer.loss(batch, Rng.single(0, 1, count)).total


def test_chunks_change_no_gradient_of_a_model() -> None:
    scenes = Scenes(scenes=Stickers(num_concepts=8))
    grads = []
    for chunk in (0, 3):
        trainer = ready(ClipTrainer(Clip(model="tiny:open-clip", data=scenes, chunk=chunk)))
        first_loss(trainer).backward()
        grads.append({k: v.grad for k, v in trainer.tuned.matcher.named_parameters()})
    for key, whole in grads[0].items():
        torch.testing.assert_close(grads[1][key], whole, rtol=1e-3, atol=1e-5)


def test_the_sigmoid_loss_gets_its_bias_and_keeps_it(data: Labelled, tmp_path: Path) -> None:
    method = Clip(model="tiny:open-clip", data=data, objective="sigmoid")
    folder = run_to_end(short_run(method, tmp_path, "sigmoid", steps=2))
    assert float(load_clip(str(folder.path)).logit_bias.detach()) != 0
    with pytest.raises(StudioError, match="cannot keep"):
        ready(ClipTrainer(Clip(model="tiny:clip", data=data, objective="sigmoid")))


def test_a_model_that_was_pretrained_with_the_sigmoid_loss_goes_on_with_it(data: Labelled) -> None:
    trainer = ready(ClipTrainer(Clip(model="tiny:siglip", data=data)))
    model = trainer.tuned.matcher.model
    asked = ready(ClipTrainer(Clip(model="tiny:siglip", data=data, objective="sigmoid")))
    assert first_loss(trainer) == first_loss(asked)
    assert not ready(ClipTrainer(Clip(model="tiny:clip", data=data))).sigmoid
    with torch.no_grad():
        model.network.logit_scale.fill_(4.77)  # as released: about 117
    loss = first_loss(trainer)
    loss.backward()
    assert model.network.logit_scale.grad.item() != 0
    trainer.after_step(1)
    assert float(model.logit_scale.detach()) == pytest.approx(117.9, abs=0.1)


def test_softmax_holds_the_scale_at_a_hundred_or_where_it_started(data: Labelled) -> None:
    trainer = ready(ClipTrainer(Clip(model="tiny:clip", data=data)))
    model = trainer.tuned.matcher.model
    with torch.no_grad():
        model.network.logit_scale.fill_(5.0)
    trainer.after_step(1)
    assert float(model.logit_scale.detach()) == pytest.approx(100)


def test_a_locked_tower_keeps_its_weights(data: Labelled) -> None:
    trainer = ready(ClipTrainer(Clip(model="tiny:clip", data=data, tuning=Whole(locked="image"))))
    model = trainer.tuned.matcher.model
    assert {model.tower_of(name.removeprefix("model.network.")) for name in trainer.tuned.trains} == {
        "text",
        "scale",
    }


def test_frozen_towers_are_asked_once(data: Labelled) -> None:
    trainer = ready(ClipTrainer(Clip(model="tiny:clip", data=data, tuning=Coop())))
    batch = next(trainer.source().stream(0, 0, trainer.backend.shard(4)))
    assert set(batch) == {"features", "labels", "rows"}


def test_only_base_classes_are_read(data: Labelled) -> None:
    trainer = ready(
        ClipTrainer(Clip(model="tiny:clip", data=data, classes=Classes(part="base"), tuning=Coop()))
    )
    assert trainer.classes == ("plaid", "spots")
    photos = trainer.task.train.photos
    read = {Path(photos.pool.where(index)).parent.name for index in range(len(photos))}
    assert read == {"plaid", "spots"}


def test_probing_leaves_the_tower_alone_until_its_steps_are_over(data: Labelled) -> None:
    trainer = ready(ClipTrainer(Clip(model="tiny:clip", data=data, tuning=LpFt(probe_steps=1))))
    tower = [v for k, v in trainer.tuned.matcher.named_parameters() if "vision_model" in k]
    first_loss(trainer).backward()
    assert all(value.grad is None for value in tower)
    trainer.after_step(1)
    first_loss(trainer).backward()
    assert any(value.grad is not None for value in tower)


def test_what_cannot_work_is_refused_before_anything_loads() -> None:
    with pytest.raises(StudioError, match="needs labelled pictures"):
        METHOD.check(Clip(data=Scenes(), tuning=Coop()))
    with pytest.raises(StudioError, match="learns from classes"):
        METHOD.check(Clip(tuning=Coop(), objective="softmax"))
