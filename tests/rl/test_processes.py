"""Two processes learn what one learns."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.rl.two_processes import gradients

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_two_processes_have_equal_gradients_and_those_of_one(tmp_path: Path):
    _, alone, told = gradients()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*launch, "tests.rl.two_processes", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert any(gradient.any() for gradient in alone.values())
    for key, gradient in alone.items():
        assert torch.equal(first["gradients"][key], second["gradients"][key])
        torch.testing.assert_close(first["gradients"][key], gradient, rtol=1e-3, atol=1e-6)
    for name in ("reward", "reward_std", "held_out", "similarity"):
        assert first["parts"][name] == pytest.approx(told[name], rel=1e-4)
