import math

import pytest

from studio.metrics.statistics import estimate, grouped, paired


def test_standard_error_is_the_spread_over_the_root_of_the_count():
    found = estimate([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.n) == (2.5, 4)
    assert found.se == pytest.approx(math.sqrt(5 / 3) / 2)


def test_order_of_the_values_does_not_matter():
    values = [0.1, 0.7, 1e-9, 3.3, -2.0]
    assert estimate(values) == estimate(reversed(values))


def test_paired_change_has_no_error_when_all_change_alike():
    assert paired([1.0, 5.0], [2.0, 6.0]).se == 0


def test_seeds_of_one_subject_count_once():
    values = {("cat", 0): 0.0, ("cat", 1): 1.0, ("dog", 0): 1.5}
    assert grouped(values).n == 2
    assert grouped(values).mean == pytest.approx(1.0)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="no values"):
        estimate([])
