"""PGD-AT and TRADES: the losses, and robustness that grows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from studio.attacks.build import Attacker
from studio.attacks.config import Attacks, Pgd
from studio.contracts.batch import Batch
from studio.data.config import Labelled
from studio.training.verify import verify_resume
from studio.vision.config import AdaptFormer
from tests.classifiers import pictures
from tests.trainers.pictures import batch_of, class_folders, ready, rng_of, short_run, trained_folder
from trainers.adversarial.config import Adversarial, PgdAt, Trades
from trainers.adversarial.trainer import AdversarialTrainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adversarial")


@pytest.fixture(scope="module")
def data(root: Path) -> Labelled:
    return class_folders(root / "pictures")


@pytest.fixture(scope="module")
def model(root: Path) -> str:
    return trained_folder(root)


def make(model: str, data: Labelled, **settings: Any) -> AdversarialTrainer:
    return ready(AdversarialTrainer(Adversarial(model=model, data=data, **settings)))


def robust(trainer: Any, eps: float = 4.0) -> float:
    images, labels = pictures(96, 90)
    network = trainer.task.model.eval()
    attacked = Attacker(network, Attacks(steps=10), seed=0)("pgd", images, labels, eps)
    return float((network(attacked).argmax(1) == labels).float().mean())


def test_pgd_at_is_cross_entropy_on_the_attacked_pictures(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data, attack=Pgd(eps=4, steps=3)), batch_of()
    attacked = trainer._attack(batch["images"], batch["labels"], rng_of(batch))
    expected = F.cross_entropy(trainer.task.model(attacked), batch["labels"])
    torch.testing.assert_close(trainer.loss(batch, rng_of(batch)).total, expected)
    clean = F.cross_entropy(trainer.task.model(batch["images"]), batch["labels"])
    assert expected.item() > clean.item()


def test_radius_zero_is_plain_training(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data, attack=Pgd(eps=0)), batch_of()
    torch.testing.assert_close(
        trainer.loss(batch, rng_of(batch)).total,
        F.cross_entropy(trainer.task.model(batch["images"]), batch["labels"]),
    )


def test_trades_with_beta_zero_is_clean_cross_entropy(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data, objective=Trades(beta=0)), batch_of()
    expected = F.cross_entropy(trainer.task.model(batch["images"]), batch["labels"])
    torch.testing.assert_close(trainer.loss(batch, rng_of(batch)).total, expected)


def test_trades_adds_beta_times_the_divergence_with_gradient_to_both_sides(
    model: str, data: Labelled
) -> None:
    trainer, batch = make(model, data, objective=Trades(beta=6), attack=Pgd(eps=4, steps=3)), batch_of()
    loss = trainer.loss(batch, rng_of(batch))
    torch.testing.assert_close(loss.total, loss.parts["clean"] + 6 * loss.parts["pull"])
    clean = trainer.task.model(batch["images"])
    attacked = trainer.task.model(batch["images"] + 0.01)
    p, q = clean.softmax(1), attacked.softmax(1)
    slow = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(F.kl_div(q.log(), p, reduction="batchmean"), slow)
    assert torch.autograd.grad(slow, clean, retain_graph=True)[0].abs().sum() > 0


def test_the_attack_leaves_no_gradient_and_train_mode(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data), batch_of()
    trainer._attack(batch["images"], batch["labels"], rng_of(batch))
    assert trainer.task.model.training
    assert all(value.grad is None and value.requires_grad for value in trainer.task.model.parameters())


def test_the_radius_grows_over_the_warm_up(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data, eps_warmup=4, attack=Pgd(eps=8, steps=2, step_size=8)), batch_of()
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        trainer.step = step
        moved = trainer._attack(batch["images"], batch["labels"], rng_of(batch))
        assert float((moved - batch["images"]).abs().max()) == pytest.approx(share * 8 / 255, abs=1e-6)


@pytest.mark.parametrize("objective", [PgdAt(), Trades(beta=3.0)], ids=["PGD-AT", "TRADES"])
def test_training_makes_the_model_robust(objective: object, model: str, data: Labelled) -> None:
    trainer = make(model, data, objective=objective, attack=Pgd(eps=4, steps=2, step_size=2.5))
    before = robust(trainer)
    optimizer = torch.optim.AdamW(trainer.task.model.parameters(), lr=1e-3)
    trainer.task.model.train()
    for step in range(30):
        batch: Batch = batch_of(32, 1000 + step)
        optimizer.zero_grad()
        trainer.loss(batch, rng_of(batch, step)).total.backward()
        optimizer.step()
    assert robust(trainer) > before + 0.1


def test_adapters_as_the_only_moving_part_are_warned_about(
    model: str, data: Labelled, caplog: pytest.LogCaptureFixture
) -> None:
    make(model, data, tuning=AdaptFormer(bottleneck=4))
    assert "expect small gains in robustness" in caplog.text


def test_resuming_is_exact(model: str, data: Labelled, tmp_path: Path) -> None:
    method = Adversarial(model=model, data=data, objective=Trades(), attack=Pgd(steps=2), eps_warmup=3)
    assert verify_resume(short_run(method, tmp_path, "exact"), steps=4, at=2) == []
