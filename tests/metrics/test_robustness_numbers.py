"""The arithmetic of robustness: mCE, calibration, temperature, answers among some classes."""

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from studio.attacks.constants import ALEXNET_CLEAN, ALEXNET_ERRORS, BENCHMARK
from studio.metrics import robustness as metrics


def test_mce_of_alexnet_itself_is_100_and_of_a_perfect_model_0() -> None:
    same = {name: [value / 100] * 5 for name, value in ALEXNET_ERRORS.items()}
    assert metrics.mce(same, ALEXNET_ERRORS) == pytest.approx(100)
    assert metrics.relative_mce(same, ALEXNET_CLEAN / 100, ALEXNET_ERRORS, ALEXNET_CLEAN) == pytest.approx(
        100
    )
    assert metrics.mce({name: [0.0] * 5 for name in BENCHMARK}, ALEXNET_ERRORS) == 0


def test_mce_and_its_relatives_by_hand() -> None:
    errors, baseline = {"a": [0.2, 0.4], "b": [0.5, 0.7]}, {"a": 60.0, "b": 80.0}
    assert metrics.mce(errors, baseline) == pytest.approx(100 * (0.3 / 0.6 + 0.6 / 0.8) / 2)
    assert metrics.relative_mce(errors, 0.1, baseline, 40.0) == pytest.approx(
        100 * (0.2 / 0.2 + 0.5 / 0.4) / 2
    )
    assert metrics.mean_corruption_error(errors) == pytest.approx(45)
    assert metrics.retained(errors, 0.1) == pytest.approx(0.55 / 0.9)


def test_calibration_error_of_sure_and_right_answers_is_zero() -> None:
    labels = torch.tensor([0, 1, 2])
    found = metrics.calibration(100 * torch.eye(3), labels)
    assert (found.ece, found.adaptive_ece, found.brier) == pytest.approx((0, 0, 0), abs=1e-6)


def test_calibration_error_of_constant_confidence_is_its_distance_to_accuracy() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log().expand(10, 2)
    labels = torch.tensor([0] * 6 + [1] * 4)
    found = metrics.calibration(logits, labels)
    assert found.ece == pytest.approx(0.2, abs=1e-6)
    assert found.adaptive_ece == pytest.approx(0.2 * 0 + _chunked(10), abs=1e-6)
    assert found.brier == pytest.approx(0.6 * 2 * 0.04 + 0.4 * 2 * 0.64)


def _chunked(count: int) -> float:
    """Bins of one picture each: |1 - 0.8| for six, |0 - 0.8| for four."""
    return (6 * 0.2 + 4 * 0.8) / count


def test_calibration_error_equals_torchmetrics_on_random_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        3 * torch.randn(500, 7, generator=generator),
        torch.randint(7, (500,), generator=generator),
    )
    theirs = MulticlassCalibrationError(7, n_bins=15, norm="l1")(logits.softmax(1), labels)
    assert metrics.calibration(logits, labels).ece == pytest.approx(float(theirs), abs=1e-6)


def test_temperature_scaling_repairs_confidence_and_keeps_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    found = metrics.temperature(3 * logits, labels)
    assert found == pytest.approx(3, abs=0.2)
    assert metrics.accuracy(3 * logits / found, labels) == metrics.accuracy(logits, labels)
    assert metrics.calibration(3 * logits / found, labels).ece < metrics.calibration(3 * logits, labels).ece


def test_restricted_answers_are_among_the_allowed_and_more_often_right() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(200, 9, generator=generator),
        torch.randint(3, (200,), generator=generator) + 2,
    )
    answers = metrics.restricted(logits, [2, 3, 4])
    assert set(answers.argmax(1).tolist()) <= {2, 3, 4}
    assert metrics.accuracy(answers, labels) >= metrics.accuracy(logits, labels)
