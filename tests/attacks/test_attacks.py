"""Attacks keep their promises: the ball, the box, the model left alone, the order of strength, other people's code."""

import statistics
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F

from studio.attacks import gradient
from studio.attacks.ball import Ball
from studio.attacks.build import Attacker
from studio.attacks.config import AttackName, Attacks, Pgd
from studio.attacks.gradient import Walk, cross_entropy
from tests.classifiers import pictures, trained

ALL: tuple[AttackName, ...] = ("fgsm", "pgd", "pgd-margin", "square", "transfer", "autoattack-mini")


def attacker(model: nn.Module, **settings: Any) -> Attacker:
    return Attacker(model, Attacks(**{"steps": 20, "queries": 50, **settings}), seed=1)


def right(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


class Linear(nn.Module):
    """Two classes told apart by one weight a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 48).reshape(3, 4, 4) + 0.01)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


@pytest.mark.parametrize("eps", [0.0, 2.0, 8.0, 16.0])
@pytest.mark.parametrize("name", ALL)
def test_linf_attacks_stay_in_the_ball_and_the_box(name: AttackName, eps: float) -> None:
    images, labels = pictures(6, 99)
    moved = attacker(trained())(name, images, labels, eps)
    assert (moved - images).abs().max() <= eps / 255 + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_l2_attacks_stay_in_the_ball_and_the_box(name: AttackName) -> None:
    images, labels = pictures(6, 99)
    moved = attacker(trained(), norm="l2")(name, images, labels, 0.5)
    assert torch.linalg.vector_norm(moved - images, dim=(1, 2, 3)).max() <= 0.5 + 1e-5
    assert moved.min() >= 0
    assert moved.max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_a_radius_of_zero_gives_the_picture_back(name: AttackName) -> None:
    images, labels = pictures(4, 99)
    assert torch.equal(attacker(trained())(name, images, labels, 0.0), images)


@pytest.mark.parametrize("name", ALL)
def test_attacks_leave_mode_gradients_and_flags_of_the_model_alone(name: AttackName) -> None:
    model = trained().train()
    model.network.norm.requires_grad_(False)
    images, labels = pictures(4, 99)
    attacker(model)(name, images, labels, 8.0)
    assert all(module.training for module in model.modules())
    assert all(value.grad is None for value in model.parameters())
    assert [n for n, v in model.named_parameters() if not v.requires_grad] == [
        "network.norm.weight",
        "network.norm.bias",
    ]


@pytest.mark.parametrize("name", ALL)
def test_attacks_repeat_and_do_not_disturb_the_global_generator(name: AttackName) -> None:
    model, (images, labels) = trained(), pictures(4, 99)
    before = torch.random.get_rng_state()
    first = attacker(model)(name, images, labels, 8.0)
    assert torch.equal(first, attacker(model)(name, images, labels, 8.0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_pictures_that_need_a_gradient_themselves_can_be_attacked() -> None:
    images, labels = pictures(4, 99)
    images = images * torch.ones(1, requires_grad=True)
    moved = attacker(trained())("pgd", images.detach(), labels, 8.0)
    assert not moved.requires_grad


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_on_a_linear_model_the_margin_drops_by_eps_times_the_weights_l1_norm(name: AttackName) -> None:
    model, images = Linear(), torch.full((5, 3, 4, 4), 0.5)
    labels = torch.ones(5, dtype=torch.long)  # never right, so that PGD with the worst iterate stops at once
    labels[:] = model(images).argmax(1)
    ball = Ball("linf", 0.1)
    moved = (
        gradient.fgsm(model, images, labels, ball)
        if name == "fgsm"
        else gradient.ascend(model, images, labels, ball, start=images, walk=Walk(20, 0.025, cross_entropy))
    )
    drop = model(images)[0, labels[0]] - model(moved)[0, labels[0]]
    torch.testing.assert_close(drop, 0.1 * model.weight.abs().sum(), rtol=1e-4, atol=1e-5)


def test_stronger_attacks_leave_fewer_right_answers() -> None:
    model, (images, labels) = trained(), pictures(96, 98)
    found = [right(model, images, labels)]
    found += [
        right(model, attacker(model)(n, images, labels, 6.0), labels)
        for n in ("fgsm", "pgd", "autoattack-mini")
    ]
    assert found[0] > 0.9
    assert found[1] < found[0]
    assert all(stronger <= weaker + 1 / 96 for weaker, stronger in pairwise(found))


def test_more_steps_and_restarts_never_help_the_defender() -> None:
    model, (images, labels) = trained(), pictures(96, 98)
    few = right(model, attacker(model, steps=3)("pgd", images, labels, 6.0), labels)
    many = right(model, attacker(model, steps=20)("pgd", images, labels, 6.0), labels)
    again = right(model, attacker(model, steps=20, restarts=3)("pgd", images, labels, 6.0), labels)
    assert again <= many <= few


def test_accuracy_falls_to_zero_at_a_radius_that_hides_everything() -> None:
    model, (images, labels) = trained(), pictures(64, 98)
    assert right(model, attacker(model)("pgd", images, labels, 64.0), labels) <= 0.02


def test_leaving_broken_pictures_out_of_the_batch_gives_the_same_accuracy() -> None:
    model, (images, labels) = trained(), pictures(96, 98)
    ball, settings = Ball("linf", 5 / 255), Pgd(eps=5, steps=20)
    start = ball.start(images, torch.rand(images.shape, generator=torch.Generator().manual_seed(3)))
    walk = Walk(20, settings.stride, cross_entropy)
    last = gradient.ascend(model, images, labels, ball, start=start, walk=walk)
    worst = gradient.pgd(model, images, labels, ball, starts=[start], walk=walk)
    survives = model(last).argmax(1) == labels
    assert right(model, worst, labels) <= right(model, last, labels)
    torch.testing.assert_close(
        worst[survives & (model(worst).argmax(1) == labels)],
        last[survives & (model(worst).argmax(1) == labels)],
    )


def test_a_patch_changes_one_square_only_and_fools_more_than_a_small_ball() -> None:
    model, (images, labels) = trained(), pictures(32, 98)
    moved = attacker(model, patch_share=0.25)("patch", images, labels, 0.0)
    changed = reduce((moved != images).float(), "b c h w -> b h w", "max")
    assert changed.sum((1, 2)).max() <= 64
    assert right(model, moved, labels) < right(model, images, labels)


def test_the_suite_runs_with_three_classes() -> None:
    network: Any = (model := trained()).network
    network.reset_classifier(3)
    images, labels = pictures(4, 99)
    moved = attacker(model)("autoattack-mini", images, labels.clamp(max=2), 4.0)
    assert (moved - images).abs().max() <= 4 / 255 + 1e-6


def test_margin_is_the_best_other_logit_minus_the_label_s() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert gradient.margin(logits, torch.tensor([0, 2])).tolist() == [-1.0, 4.0]


def test_divergence_is_kullback_leibler_summed_over_classes() -> None:
    p, logits = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.5, -0.3]])
    slow = sum(float(a * (a.log() - b)) for a, b in zip(p[0], logits.log_softmax(1)[0], strict=True))
    assert float(gradient.divergence(logits, p)) == pytest.approx(slow, rel=1e-5)


def test_our_pgd_agrees_with_torchattacks_on_the_same_model() -> None:
    torchattacks = pytest.importorskip(
        "torchattacks", reason="cross-check; its pins conflict: uv pip install --no-deps torchattacks"
    )
    model, (images, labels) = trained(), pictures(1000, 97)
    with torch.random.fork_rng():
        torch.manual_seed(5)  # theirs starts from the global generator
        attack = torchattacks.PGD(model, eps=4 / 255, alpha=1 / 255, steps=20, random_start=True)
        theirs = attack(images, labels)
    ours = attacker(model)("pgd", images, labels, 4.0)
    assert abs(right(model, ours, labels) - right(model, theirs, labels)) <= 0.005


def test_our_pgd_agrees_with_an_independent_loop_written_from_the_paper() -> None:
    model, (images, labels) = trained(), pictures(400, 97)
    eps, alpha = 4 / 255, 1 / 255
    x = (
        images + torch.empty_like(images).uniform_(-eps, eps, generator=torch.Generator().manual_seed(5))
    ).clamp(0, 1)
    for _ in range(20):
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(F.cross_entropy(model(x), labels), x)[0]
        x = torch.min(torch.max(x + alpha * slope.sign(), images - eps), images + eps).clamp(0, 1)
    assert (
        abs(right(model, attacker(model)("pgd", images, labels, 4.0), labels) - right(model, x, labels))
        <= 0.005
    )


@pytest.mark.timing
def test_our_pgd_is_as_fast_as_torchattacks() -> None:
    torchattacks = pytest.importorskip(
        "torchattacks", reason="cross-check; its pins conflict: uv pip install --no-deps torchattacks"
    )
    model, (images, labels) = trained(), pictures(128, 97)
    ball, walk = Ball("linf", 4 / 255), Walk(10, 1 / 255, cross_entropy)
    theirs = torchattacks.PGD(model, eps=4 / 255, alpha=1 / 255, steps=10, random_start=True)
    speed = {"studio": [], "torchattacks": []}
    for _ in range(5):
        start = time.process_time()
        gradient.ascend(model, images, labels, ball, start=images, walk=walk)
        middle = time.process_time()
        theirs(images, labels)
        speed["studio"].append(128 / (middle - start))
        speed["torchattacks"].append(128 / (time.process_time() - middle))
    best = {name: statistics.median(values) for name, values in speed.items()}
    print(", ".join(f"{name} {value:.0f} pictures/s" for name, value in best.items()))
    assert best["studio"] >= 0.9 * best["torchattacks"]
