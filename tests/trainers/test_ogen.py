"""OGEN: the generator, what warms up, what is read, the teacher's window."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from studio.backend.rng import Rng
from studio.contracts.trainer import Loss
from studio.data import pools
from studio.data.config import Labelled
from studio.errors import StudioError
from studio.flags import flags
from studio.matching.config import Classes, Coop, Maple, Whole
from studio.metrics.matching import harmonic
from tests.trainers.pictures import class_folders, ready
from trainers.ogen.config import METHOD, Ogen, Teacher, Weights, Words
from trainers.ogen.generator import Generator
from trainers.ogen.neighbors import statistics, tables
from trainers.ogen.teacher import LocalMean, window
from trainers.ogen.trainer import OgenTrainer

WIDTH = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return class_folders(tmp_path_factory.mktemp("pictures"), 48)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def generator(width: int = WIDTH) -> Generator:
    torch.manual_seed(0)
    return Generator(width, 4).eval()


def method(data: Labelled, **changes: object) -> Ogen:
    values = {"model": "tiny:clip", "data": data, "warmup": 2, "teacher": Teacher(period=1)}
    return Ogen(**{**values, **changes})


def lost(trainer: OgenTrainer, count: int = 6) -> Loss:
    batch = next(trainer.source().stream(0, trainer.step, trainer.backend.shard(count)))
    return trainer.loss(batch, Rng.single(0, trainer.step + 1, count))


def test_invented_features_have_unit_length_and_neighbors_no_order() -> None:
    query, keys, values = unit(5, WIDTH), unit(5, 3, WIDTH, seed=1), unit(5, 3, WIDTH, seed=2)
    found = generator()(query, keys, values)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(5))
    turned = generator()(query, keys[:, [2, 0, 1]], values[:, [2, 0, 1]])
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-6)


def test_with_one_neighbor_attention_does_not_ask_for_the_class() -> None:
    net = generator()
    keys, values = unit(5, 1, WIDTH, seed=1), unit(5, 1, WIDTH, seed=2)
    found = [net.attention(unit(5, 1, WIDTH, seed=seed), keys, values)[0] for seed in (3, 4)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("tuning", [Coop(), Maple(), Whole()], ids=["coop", "maple", "flyp"])
def test_the_inner_method_learns_after_the_warm_up_only(data: Labelled, tuning: Coop | Maple | Whole) -> None:
    trainer = ready(OgenTrainer(method(data, tuning=tuning)))
    inner = [p for k, p in trainer.tuned.matcher.named_parameters() if k in trainer.tuned.trains]
    for step, learns in ((0, False), (2, True)):
        trainer.step = step
        trainer.generator.zero_grad()
        lost(trainer).total.backward()
        moved = [p for p in inner if p.grad is not None and bool(p.grad.abs().sum() > 0)]
        assert bool(moved) == learns
        assert all(p.grad is not None for p in trainer.generator.feed.parameters())


def test_training_makes_invented_features_better_than_the_names() -> None:
    """Classes in a space where pictures are a fixed turn of the texts, and near classes are alike."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    texts = unit(40, WIDTH)
    means = F.normalize(texts @ turn, dim=-1)
    near = tables(means, texts, texts[:1], 3).known
    net = generator().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)

    def error(rows: Tensor) -> Tensor:
        found = net(texts[rows], texts[near[rows]], means[near[rows]])
        return (found - means[rows]).square().sum(-1).mean()

    seen, held_out = torch.arange(30), torch.arange(30, 40)
    net.eval()
    before = float(error(held_out).detach())
    net.train()
    for _ in range(120):
        optimizer.zero_grad()
        error(seen).backward()
        optimizer.step()
    net.eval()
    after = float(error(held_out).detach())
    assert after < before
    cosine = 1 - after / 2
    assert cosine > float((texts[held_out] * means[held_out]).sum(-1).mean())


@pytest.mark.parametrize("tuning", [Coop(), Maple()], ids=["coop", "maple"])
def test_no_picture_of_a_new_class_is_read(
    data: Labelled, tuning: Coop | Maple, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = pools.read

    def spy(path: Path, *args: object, **values: object) -> object:
        read.append(Path(path).parent.name)
        return whole(path, *args, **values)

    monkeypatch.setattr(pools, "read", spy)
    trainer = ready(OgenTrainer(method(data, tuning=tuning)))
    for step in range(3):
        trainer.step = step
        lost(trainer)
    assert trainer.new_names == ("stripes", "waves")
    assert set(read) == {"plaid", "spots"}


def test_statistics_are_those_of_the_training_shots(data: Labelled) -> None:
    trainer = ready(OgenTrainer(method(dataclasses.replace(data, shots=3))))
    features, labels = trainer.all_features(trainer.task.train)
    assert len(labels) == 6
    found = statistics(features, labels, 2)
    torch.testing.assert_close(trainer.known.statistics.mean, found.mean)
    torch.testing.assert_close(found.mean[0], features[labels == 0].mean(0))


def test_the_window_grows_from_the_shortest_to_the_longest() -> None:
    settings = Teacher(shortest=2, longest=9, horizon=10)
    assert [window(t, settings) for t in range(11)] == [2, 2, 3, 3, 4, 5, 7, 8, 8, 9, 9]
    assert window(20, settings) == 9


def test_a_window_of_one_is_the_student_and_no_more_is_kept_than_needed() -> None:
    student = {"a": torch.nn.Parameter(torch.zeros(2))}
    teacher = LocalMean(Teacher(period=1, shortest=1, longest=1, horizon=1), student)
    for step in range(1, 5):
        student["a"].data.fill_(float(step))
        teacher.after_step(step)
        assert len(teacher.kept) <= 1
    with teacher.teaching():
        assert student["a"].tolist() == [4.0, 4.0]
    student["a"].data.fill_(9.0)
    with teacher.teaching():
        assert student["a"].tolist() == [4.0, 4.0]
    assert student["a"].tolist() == [9.0, 9.0]


def test_the_teacher_is_the_mean_of_its_window() -> None:
    student = {"a": torch.nn.Parameter(torch.zeros(()))}
    teacher = LocalMean(Teacher(period=2, shortest=2, longest=2, horizon=1), student)
    for step in range(1, 7):
        student["a"].data.fill_(float(step))
        teacher.after_step(step)
    with teacher.teaching():
        assert float(student["a"].detach()) == 5.0  # of steps 4 and 6


def test_the_teacher_speaks_once_there_is_one(data: Labelled) -> None:
    trainer = ready(OgenTrainer(method(data, warmup=0, weights=Weights(distill=2.0))))
    assert "distill" not in lost(trainer).parts
    trainer.after_step(1)
    assert "distill" in lost(trainer).parts


def test_the_mean_of_neighbors_has_no_generator_to_train(data: Labelled) -> None:
    trainer = ready(OgenTrainer(method(data, invents="mean", warmup=0)))
    assert "generator" not in {group.name for group in trainer.groups}
    assert set(lost(trainer).parts) == {"generated", "real", "known", "new"}


def test_other_names_take_the_place_of_the_new_classes(data: Labelled) -> None:
    trainer = ready(OgenTrainer(method(data, names=Words(words=("fox", "waves", "bus", "plaid")))))
    assert trainer.new_names == ("fox", "bus")
    with pytest.raises(StudioError, match="Every name of the pool"):
        ready(OgenTrainer(method(data, names=Words(words=("waves",)))))


def test_what_cannot_work_is_refused_before_anything_loads(data: Labelled) -> None:
    with pytest.raises(StudioError, match="so none is new"):
        METHOD.check(method(data, classes=Classes(part="all")))
    with pytest.raises(StudioError, match="knows no new names"):
        METHOD.check(method(data, tuning=Coop(per_class=True)))


def test_harmonic_mean_is_that_of_the_papers_table() -> None:
    assert round(harmonic(82.69, 63.22), 2) == 71.66


def test_the_window_and_the_warm_up_follow_the_length_of_the_run() -> None:
    for steps in (500, 5000):
        run, _ = flags.started("ogen", ["--loop.steps", str(steps)])
        assert run.method.warmup == steps // 5
        taken = steps // run.method.teacher.period
        assert window(taken, run.method.teacher) == run.method.teacher.longest
        assert window(taken // 2, run.method.teacher) < run.method.teacher.longest
    run, _ = flags.started("ogen", ["--warmup", "7", "--teacher.period", "3", "--loop.steps", "500"])
    assert (run.method.warmup, run.method.teacher.period) == (7, 3)


@pytest.mark.parametrize(("tuning", "looks"), [("coop", 0), ("maple", 50), ("whole", 50)])
def test_statistics_are_taken_anew_where_the_image_tower_moves(tuning: str, looks: int) -> None:
    run, _ = flags.started("ogen", ["--tuning", tuning, "--loop.steps", "500"])
    assert run.method.refresh == looks


@pytest.mark.parametrize("tuning", ["whole", "adapted"])
def test_the_generator_learns_at_a_rate_of_its_own_beside_slow_towers(tuning: str, data: Labelled) -> None:
    run, _ = flags.started("ogen", ["--tuning", tuning, "--model", "ViT-B-16"])
    assert run.optim.lr * run.method.generator_lr_scale == pytest.approx(1e-3)
    trainer = ready(OgenTrainer(method(data, generator_lr_scale=5.0)))
    assert {group.name: group.lr_scale for group in trainer.groups}["generator"] == 5.0


def test_neighbors_are_those_of_the_names_as_they_are_now(data: Labelled) -> None:
    trainer = ready(
        OgenTrainer(method(data, names=Words(words=("fox", "bus", "tree", "car", "cup")), neighbors=1))
    )
    spread = torch.zeros(trainer.known.spread.shape)
    texts = trainer._texts()
    first = trainer._known(texts, spread).tables.new
    turned = dataclasses.replace(texts, new=texts.new.roll(1, 0))
    assert torch.equal(trainer._known(turned, spread).tables.new, (first + 1) % 5)
