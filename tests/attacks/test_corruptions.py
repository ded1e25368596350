"""The common corruptions: range, shape, repeatability, severity."""

import numpy as np
import pytest
from PIL import Image

from studio.attacks.constants import ALEXNET_ERRORS, BENCHMARK, CIFAR, EXTRA, IMAGENET
from studio.attacks.corruptions import FUNCTIONS, SEVERITIES, corrupt

ALL = (*BENCHMARK, *EXTRA)
GROWS = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur", "contrast",
         "jpeg_compression", "pixelate")  # fmt: skip


def picture(side: int = 48) -> np.ndarray:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def test_there_are_fifteen_and_four_with_five_severities_each() -> None:
    assert (len(BENCHMARK), len(EXTRA)) == (15, 4)
    assert set(FUNCTIONS) == set(ALL) == set(IMAGENET) == set(CIFAR)
    assert all(len(table[name]) == 5 for table in (IMAGENET, CIFAR) for name in ALL)
    assert tuple(ALEXNET_ERRORS) == BENCHMARK


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", [28, 64, 160])
def test_uint8_and_shape_are_kept_and_the_picture_changes(name: str, side: int) -> None:
    before = picture(side)
    after = corrupt(before, name, 3, identity=0)
    assert (after.dtype, after.shape) == (np.uint8, before.shape)
    assert not np.array_equal(after, before)


@pytest.mark.parametrize("name", ALL)
def test_the_same_identity_gives_the_same_picture_in_any_order(name: str) -> None:
    first = corrupt(picture(), name, 4, identity=7)
    corrupt(picture(), "snow", 1, identity=8)
    assert np.array_equal(first, corrupt(picture(), name, 4, identity=7))


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "snow", "frost", "fog", "glass_blur", "motion_blur", "spatter"]
)
def test_two_pictures_get_different_random_numbers(name: str) -> None:
    assert not np.array_equal(
        corrupt(picture(), name, 5, identity=1), corrupt(picture(), name, 5, identity=2)
    )


@pytest.mark.parametrize("name", GROWS)
@pytest.mark.parametrize("side", [64, 160])
def test_higher_severity_is_farther_from_the_picture(name: str, side: int) -> None:
    before = picture(side).astype(float)
    distances = [np.abs(corrupt(picture(side), name, s, identity=0) - before).mean() for s in SEVERITIES]
    assert distances == sorted(distances)


def test_brightness_adds_to_the_value_of_hsv() -> None:
    gray = np.full((32, 32, 3), 100, dtype=np.uint8)
    assert corrupt(gray, "brightness", 1, identity=0)[0, 0].tolist() == [113] * 3


def test_contrast_keeps_the_mean_color() -> None:
    before = picture()
    after = corrupt(before, "contrast", 3, identity=0)
    assert np.abs(after.mean((0, 1)) - before.mean((0, 1))).max() < 1
