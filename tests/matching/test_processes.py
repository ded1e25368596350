"""Two processes have the contrast of one: every pair of the batch is compared with every other."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cases import chats
from tests.matching.two_processes import found

ROOT = Path(__file__).parents[2]
LIMITS = {"softmax": 1e-6, "sigmoid": 1e-6, "cafe": 1e-5}
"""Relative distance of the gradients in fp32; CAFe's holds a language model's loss, whose batch has another shape in each process."""


@pytest.mark.timeout(300)
def test_two_processes_have_the_contrastive_loss_and_gradient_of_one(tmp_path: Path) -> None:
    chats(tmp_path)
    alone = found(tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*launch, "tests.matching.two_processes", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"2-{rank}.pt") for rank in (0, 1))
    for name, (gradients, loss) in alone.items():
        assert first[name][1] == pytest.approx(loss, abs=1e-6), name
        assert gradients.keys() == first[name][0].keys()
        assert all(torch.equal(value, second[name][0][key]) for key, value in first[name][0].items())
        whole, parts = (
            torch.cat([one[key].flatten() for key in gradients]) for one in (gradients, first[name][0])
        )
        off = float((parts - whole).norm() / whole.norm())
        assert off < LIMITS[name], f"{name}: {off}"
