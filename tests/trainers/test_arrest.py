"""ARREST: the angle, noisy replay, the teacher, and what it is for."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.nn import functional as F

from studio.attacks.ball import Ball
from studio.attacks.config import Pgd
from studio.data.config import Labelled
from studio.errors import StudioError
from studio.training import checkpoint
from studio.training.train import run_to_end
from studio.training.verify import verify_resume
from tests.classifiers import pictures
from tests.trainers.pictures import batch_of, class_folders, ready, rng_of, short_run, trained_folder
from tests.trainers.test_adversarial import robust
from trainers.arrest.config import Arrest, Replay
from trainers.arrest.representation import angle, drifted, replayed
from trainers.arrest.trainer import ArrestTrainer

OFF = Replay(on=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrest")


@pytest.fixture(scope="module")
def data(root: Path) -> Labelled:
    return class_folders(root / "pictures")


@pytest.fixture(scope="module")
def model(root: Path) -> str:
    return trained_folder(root)


def make(model: str, data: Labelled, **settings: Any) -> ArrestTrainer:
    return ready(
        ArrestTrainer(
            Arrest(model=model, data=data, **{"attack": Pgd(eps=4, steps=2, step_size=2.5), **settings})
        )
    )


def train(trainer: ArrestTrainer, steps: int = 30) -> ArrestTrainer:
    optimizer = torch.optim.AdamW(trainer.task.model.parameters(), lr=1e-3)
    for step in range(steps):
        batch = batch_of(32, 1000 + step)
        optimizer.zero_grad()
        trainer.loss(batch, rng_of(batch, step)).total.backward()
        optimizer.step()
        trainer.after_step(step + 1)
    return trainer


def drift(trainer: ArrestTrainer) -> float:
    images, _ = pictures(96, 90)
    with torch.no_grad():
        return float(trainer._drift(images, trainer.teacher.features(images)).mean())


def test_the_angle_of_equal_representations_is_zero_with_a_finite_gradient() -> None:
    features = torch.randn(3, 8, requires_grad=True)
    found = angle(features, features.detach())
    assert found.tolist() == [0.0] * 3
    assert torch.autograd.grad(found.sum(), features)[0].abs().max() == 0


def test_the_angle_grows_with_a_rotation_and_is_that_rotation() -> None:
    turns = torch.linspace(0, 3, 20)
    turned = torch.stack([torch.cos(turns), torch.sin(turns)], 1) * 5
    torch.testing.assert_close(
        angle(turned, torch.tensor([[1.0, 0.0]]).expand(20, 2)), turns, rtol=1e-4, atol=1e-5
    )


def test_at_the_start_student_and_teacher_agree_on_clean_pictures(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data, attack=Pgd(eps=0), replay=OFF), batch_of()
    loss = trainer.loss(batch, rng_of(batch))
    assert float(loss.parts["rgkd"].detach()) == 0
    loss.total.backward()
    assert all(
        torch.isfinite(value.grad).all()
        for value in trainer.task.model.parameters()
        if value.grad is not None
    )


def test_without_distillation_and_replay_it_is_pgd_at(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data, distillation_weight=0.0, replay=OFF), batch_of()
    _, attacked = trainer._attack(batch, rng_of(batch).uniform(*batch["images"].shape))
    expected = F.cross_entropy(trainer.task.model(attacked), batch["labels"])
    torch.testing.assert_close(trainer.loss(batch, rng_of(batch)).total, expected)


@pytest.mark.parametrize(("degrees", "rate"), [(180.0, 0.0), (-1.0, 1.0)])
@pytest.mark.parametrize("trigger", ["clean", "adv"])
def test_an_angle_of_180_never_replays_and_one_below_zero_always(
    degrees: float, rate: float, trigger: Literal["clean", "adv"], model: str, data: Labelled
) -> None:
    trainer, batch = make(model, data, replay=Replay(degrees=degrees, trigger=trigger)), batch_of()
    assert float(trainer.loss(batch, rng_of(batch)).parts["replay_rate"]) == rate


def test_a_batch_is_replayed_when_more_than_a_share_has_drifted() -> None:
    degrees = torch.tensor([1.0, 9.0, 9.0, 9.0])
    settings = Replay(degrees=6, scope="batch", share=0.5)
    assert drifted(settings, degrees).all()
    assert not drifted(Replay(degrees=6, scope="batch", share=0.8), degrees).any()
    assert drifted(Replay(degrees=6), degrees).tolist() == [False, True, True, True]


def test_replayed_pictures_lie_in_the_ball_and_fool_less_than_attacked_ones(
    model: str, data: Labelled
) -> None:
    trainer, batch = make(model, data), batch_of(64)
    images, noise = batch["images"], torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ball, attacked = trainer._attack(batch, noise)
    shown = replayed(attacked, images, torch.ones(64, dtype=torch.bool), Ball("linf", 4 / 255), noise)
    assert (shown - images).abs().max() <= ball.radius + 1e-6
    network = trainer.task.model.eval()
    with torch.no_grad():
        entropies = [float(F.cross_entropy(network(x), batch["labels"])) for x in (shown, attacked)]
    assert entropies[0] < entropies[1]


def test_distillation_keeps_representations_nearer_at_the_same_robustness(model: str, data: Labelled) -> None:
    plain = train(make(model, data, distillation_weight=0.0, replay=OFF))
    kept = train(make(model, data, distillation_weight=0.5, replay=OFF))
    assert drift(kept) < drift(plain)
    assert robust(kept) > robust(plain) - 0.03


def test_replaying_every_attacked_picture_never_makes_the_model_robust(model: str, data: Labelled) -> None:
    always = train(make(model, data, replay=Replay(degrees=0.0, trigger="adv")))
    proper = train(make(model, data, replay=OFF))
    assert robust(always) < robust(proper) - 0.1


def test_a_replay_rate_out_of_range_is_warned_about(
    model: str, data: Labelled, caplog: pytest.LogCaptureFixture
) -> None:
    train(make(model, data, attack=Pgd(eps=1, steps=1), replay=Replay(degrees=180.0)), 50)
    assert (
        "replay rate 0.00 over the first 50 steps is outside of 0.02 to 0.70: lower replay.degrees"
        in caplog.text
    )


def test_the_teacher_stays_as_it_is_without_a_gradient(model: str, data: Labelled) -> None:
    trainer = make(model, data)
    before = {key: value.clone() for key, value in trainer.teacher.state_dict().items()}
    train(trainer, 3)
    assert all(torch.equal(value, before[key]) for key, value in trainer.teacher.state_dict().items())
    assert all(value.grad is None for value in trainer.teacher.parameters())
    assert not trainer.teacher.training


def test_the_checkpoint_holds_the_teacher(model: str, data: Labelled, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    method = Arrest(model=model, data=data, attack=Pgd(steps=1))
    folder = run_to_end(short_run(method, tmp_path, "run", steps=2))
    path = checkpoint.latest(folder.checkpoints)
    assert path
    saved = load_file(path / "weights.safetensors")
    teacher = make(model, data).teacher
    assert all(torch.equal(saved[f"teacher/{key}"], value) for key, value in teacher.named_parameters())


def test_resuming_is_exact(model: str, data: Labelled, tmp_path: Path) -> None:
    method = Arrest(model=model, data=data, attack=Pgd(steps=2), eps_warmup=3)
    assert verify_resume(short_run(method, tmp_path, "exact"), steps=4, at=2) == []


def test_a_model_that_has_not_learned_the_classes_is_refused(data: Labelled) -> None:
    with pytest.raises(StudioError, match=r"has not learned these classes.*studio train vit"):
        make("tiny:vit", data)
