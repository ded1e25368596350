"""The benchmark of learning from rewards tells everything it promises."""

import pytest

from studio.bench.rewards import RewardBench, paired, ratio, run
from studio.settings.run import Hardware


def test_throughput_and_savings_are_told():
    found = run(RewardBench(model="tiny:sd1", images=2, steps=2, rounds=1, hardware=Hardware(device="cpu")))
    for name in ("rollout images/s", "updates/s", "embeddings anew / cached", "rewards one at a time / at once",
                 "rollout with / without unconditional pass"):  # fmt: skip
        assert found[name] > 0


def test_a_saving_is_the_median_of_paired_rounds():
    assert ratio({"slow": [2.0, 9.0, 4.0], "fast": [1.0, 1.0, 1.0]}, "slow", "fast") == pytest.approx(4.0)


def test_the_first_round_is_not_counted():
    calls: list[str] = []
    times = paired({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, clock="wall")
    assert calls.count("a") == calls.count("b") == 3
    assert [len(rounds) for rounds in times.values()] == [2, 2]
