"""Nullspaces: the exact one of the patch embedding, the approximate one of the encoder, and training on it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from studio.data.config import Labelled
from studio.errors import StudioError
from studio.models.vit import load_classifier
from studio.training.verify import verify_resume
from studio.vision.nullspace import (
    as_saved,
    fit_inside,
    in_pixels,
    invisibility,
    noise_change,
    patch_nullspace,
    permuted,
    projection,
    search_noise,
)
from tests.classifiers import pictures, trained, untrained
from tests.trainers.pictures import batch_of, class_folders, ready, rng_of, short_run, trained_folder
from trainers.vit_nullspace.config import VitNullspace
from trainers.vit_nullspace.trainer import VitNullspaceTrainer


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nullspace")


@pytest.fixture(scope="module")
def data(root: Path) -> Labelled:
    return class_folders(root / "pictures")


@pytest.fixture(scope="module")
def model(root: Path) -> str:
    return trained_folder(root)


def make(model: str, data: Labelled, **settings: Any) -> VitNullspaceTrainer:
    return ready(VitNullspaceTrainer(VitNullspace(model=model, data=data, **settings)))


def begin(trainer: VitNullspaceTrainer) -> VitNullspaceTrainer:
    next(trainer.batches(iter([batch_of()]), 0))
    return trainer


def test_the_basis_is_orthonormal_and_maps_to_zero_and_the_nullity_is_inputs_minus_rank() -> None:
    model = trained()
    found = patch_nullspace(model)
    matrix = rearrange(projection(model).weight.detach().double(), "d c p q -> d (c p q)")
    assert (found.basis.T @ found.basis - torch.eye(found.nullity)).abs().max() < 1e-10
    assert (matrix @ found.basis).abs().max() < 1e-10
    assert found.nullity == found.num_inputs - found.rank == 192 - 48


def test_all_channels_together_have_a_larger_nullspace_than_each_by_itself() -> None:
    weight = projection(trained()).weight.detach().double()
    alone = sum(64 - int(torch.linalg.matrix_rank(weight[:, c].flatten(1))) for c in range(3))
    assert patch_nullspace(trained()).nullity >= alone


def test_a_rank_deficient_embedding_has_the_measured_nullity() -> None:
    model = trained()
    layer = projection(model)
    layer.weight.data[1] = layer.weight.data[0]
    assert patch_nullspace(model).nullity == 192 - 47


@pytest.mark.parametrize(("name", "nullity"), [("vit_tiny_patch16_224", 576), ("vit_small_patch16_224", 384)])
def test_timm_s_small_transformers_have_the_nullity_their_shape_guarantees(name: str, nullity: int) -> None:
    assert patch_nullspace(load_classifier(f"new:{name}")).nullity == nullity


def test_nullspace_noise_is_large_and_changes_nothing_while_random_noise_does() -> None:
    model, (images, _) = trained(), pictures(8, 1)
    noise = in_pixels(model, patch_nullspace(model).noise(images, generator()).float())
    other = torch.randn(images.shape, generator=generator())
    other = other * noise.norm() / other.norm()
    unseen, seen = invisibility(model, images, images + noise), invisibility(model, images, images + other)
    assert unseen.pixels > 0.1
    assert unseen.embedding < 1e-5
    assert unseen.logits < 1e-5
    assert seen.embedding > 1e-2


def test_saving_as_eight_bits_leaves_a_residual_that_is_reported() -> None:
    model, (images, _) = trained(), pictures(8, 1)
    noise = in_pixels(model, patch_nullspace(model).noise(images, generator()).float())
    inside, scaled = fit_inside(images, noise)
    kept = as_saved(inside + scaled)
    assert float((inside + scaled).min()) >= 0
    assert float((inside + scaled).max()) <= 1
    exact, stored = invisibility(model, inside, inside + scaled), invisibility(model, inside, kept)
    clipped = invisibility(model, images, as_saved(images + noise))
    assert exact.embedding < 1e-5 < stored.embedding < clipped.embedding


def test_a_nullspace_overlaps_with_itself_fully_and_with_another_by_chance() -> None:
    one, two = patch_nullspace(untrained(seed=0)), patch_nullspace(untrained(seed=1))
    assert one.overlap(one) == pytest.approx(1)
    assert one.overlap(two) == pytest.approx(one.nullity / one.num_inputs, abs=0.05)


@pytest.mark.parametrize(
    ("name", "message"), [("tiny:resnet", "has no patch embedding"), ("new:levit_128s", "overlap|no patch")]
)
def test_models_without_plain_patches_are_refused(name: str, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        patch_nullspace(load_classifier(name))


def test_an_empty_nullspace_is_refused_when_noise_is_asked_for() -> None:
    model = load_classifier("new:vit_tiny_patch16_224")
    found = patch_nullspace(model)
    full = type(found)(found.basis[:, :0], 768, 16)
    with pytest.raises(StudioError, match="full rank 768 of 768 inputs"):
        full.noise(torch.zeros(1, 3, 224, 224), generator())


def test_the_search_finds_large_noise_that_the_model_ignores_in_its_direction_only() -> None:
    model = trained()
    start = 6 * torch.rand(1, 16, 48, generator=generator()) - 3
    found = search_noise(model, (pictures(32, 200 + i)[0] for i in range(150)), start, eps=0.03, lr=0.1)
    images, _ = pictures(96, 90)
    assert found.stopped
    assert found.change < 0.03
    assert found.noise.norm() > 0.5 * start.norm()
    shuffled = noise_change(model, images, permuted(found.noise, generator()))
    assert 3 * noise_change(model, images, found.noise) < shuffled


def test_the_search_leaves_the_model_alone() -> None:
    model = trained().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    search_noise(model, (pictures(8, i)[0] for i in range(3)), torch.ones(1, 16, 48), eps=1e-9, lr=0.1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert all(value.grad is None and value.requires_grad for value in model.parameters())


def test_the_stop_metric_is_squared_differences_of_probabilities() -> None:
    model, (images, _) = trained(), pictures(4, 1)
    noise = torch.randn(1, 16, 48, generator=generator())
    with torch.no_grad():
        moved, plain = model.from_tokens(model.tokens(images) + noise).softmax(1), model(images).softmax(1)
    slow = sum(float(((m - p) ** 2).sum()) for m, p in zip(moved, plain, strict=True)) / 4
    assert noise_change(model, images, noise) == pytest.approx(slow, rel=1e-4)


def test_with_zero_noise_the_loss_is_twice_cross_entropy(model: str, data: Labelled) -> None:
    trainer, batch = make(model, data), batch_of()
    expected = 2 * F.cross_entropy(trainer.task.model(batch["images"]), batch["labels"])
    torch.testing.assert_close(trainer.loss(batch, rng_of(batch)).total, expected)


def test_without_noise_it_is_plain_finetuning_bit_for_bit(model: str, data: Labelled) -> None:
    trainer, batch = begin(make(model, data, noise="none")), batch_of()
    expected = F.cross_entropy(trainer.task.model(batch["images"]), batch["labels"])
    assert torch.equal(trainer.loss(batch, rng_of(batch)).total, expected)
    assert trainer.noise.value.abs().sum() == 0


def test_the_noise_is_outside_of_the_gradient(model: str, data: Labelled) -> None:
    trainer, batch = begin(make(model, data)), batch_of()
    loss = trainer.loss(batch, rng_of(batch))
    loss.total.backward()
    assert not trainer.noise.value.requires_grad
    assert trainer.noise.value.grad is None
    assert trainer.noise.value.abs().sum() > 0


@pytest.mark.parametrize("kind", ["random", "permuted"])
def test_the_controls_have_the_size_of_the_noise_and_disturb_more(
    kind: str, model: str, data: Labelled
) -> None:
    images, _ = pictures(64, 90)
    changes = {}
    for noise in ("learned", kind):
        trainer = begin(make(model, data, noise=noise))
        changes[noise] = noise_change(trainer.task.model, images, trainer.noise.value)
    assert changes[kind] > 2 * changes["learned"]


def test_the_noise_is_searched_anew_every_epoch_and_kept_between(model: str, data: Labelled) -> None:
    trainer = make(model, data, search_steps=2)
    stream, seen = trainer.batches(iter([batch_of() for _ in range(5)]), 0), []
    for _ in range(5):
        next(stream)
        seen.append(trainer.noise.value.clone())
    length = len(trainer.task.train) // 16
    assert torch.equal(seen[0], seen[length - 1])
    assert not torch.equal(seen[0], seen[length])


def test_a_search_that_does_not_reach_the_bound_is_warned_about(
    model: str, data: Labelled, caplog: pytest.LogCaptureFixture
) -> None:
    begin(make(model, data, search_steps=1))
    assert "this noise is not benign" in caplog.text


def test_resuming_is_exact(model: str, data: Labelled, tmp_path: Path) -> None:
    method = VitNullspace(model=model, data=data, search_steps=3, regenerate_every=2)
    assert verify_resume(short_run(method, tmp_path, "exact"), steps=5, at=3) == []
