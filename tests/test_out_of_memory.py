"""Memory that runs out in the middle of a run: steps are kept, and the sentence names what would help."""

import dataclasses

import pytest
import torch

from studio.catalog.run import Run
from studio.errors import RunFailed
from studio.records.runs import RunFolder
from studio.settings.run import Hardware, Loop
from studio.training import checkpoint
from studio.training.out_of_memory import explained, is_out_of_memory
from studio.training.train import run_to_end
from tests.test_loop import make_run
from tests.toy.trainer import ToyTrainer
from trainers.dreambooth.config import DreamBooth


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_told_apart(error, yes):
    assert is_out_of_memory(error) is yes


def test_steps_are_kept_and_the_sentence_names_the_flags(tmp_path, monkeypatch):
    plain = ToyTrainer.loss
    steps = []

    def greedy(self, batch, rng):
        steps.append(1)
        if len(steps) == 6:
            torch.empty(2**60, dtype=torch.uint8)  # more than any machine has: torch's own error
        return plain(self, batch, rng)

    monkeypatch.setattr(ToyTrainer, "loss", greedy)
    run = make_run(tmp_path, hardware=Hardware(device="cpu"))
    with pytest.raises(
        RunFailed, match=r"Memory ran out in step 6 .* step 5 is kept.*--loop\.accumulate 8 \(same result\)"
    ):
        run_to_end(run)
    folder = RunFolder(tmp_path / "toy")
    path = checkpoint.latest(folder.checkpoints)
    assert path is not None
    assert checkpoint.step_of(path) == 5
    assert folder.status() == "failed"
    assert "Memory ran out" in next(iter([*folder.read_events("failed")]))["error"]


def test_a_model_hears_of_all_that_saves_memory():
    run = Run(method=DreamBooth(model="sdxl", data="."), loop=Loop(batch_size=1))
    told = str(explained(torch.OutOfMemoryError(), run, 3))
    for flag in ("--hardware.gradient-checkpointing", "--hardware.offload", "--hardware.quantize"):
        assert flag in told
    small = Hardware(gradient_checkpointing=True, offload=True, quantize="nf4")
    assert "take a smaller model" in str(
        explained(MemoryError(), dataclasses.replace(run, hardware=small), 3)
    )
