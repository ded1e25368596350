"""What is counted on the simulated device is what the same steps hold in truth."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from studio import cli
from studio.backend.core import Backend
from studio.backend.simulated.meter import Meter
from studio.catalog import methods
from studio.catalog.run import Run
from studio.data.config import Images
from studio.errors import StudioError
from studio.records import runs
from studio.same_subject.config import GeneratedPrior, NoPrior
from studio.settings.memory import gib
from studio.settings.run import Hardware, Loop
from studio.testing import photos
from studio.training import plan as planning
from studio.training import simulate
from studio.training.loop import fit
from studio.training.measured import Measured, Phase
from studio.training.session import Session
from trainers.dreambooth.config import DreamBooth

GIB = 2**30


class Counting(TorchDispatchMode):
    """Counts real tensors on the CPU as the simulated device counts its own."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                self.meter.add(each)
        return found


def run_of(model: str, folder: Path, **hardware: Any) -> Run:
    """DreamBooth's LoRA at twice the tiny models' size."""
    method = DreamBooth(
        model=model, data=photos(folder / "data", 4), prior=NoPrior(), images=Images(resolution=128)
    )
    settings = Hardware(precision="fp32", channels_last=False, **hardware)
    return Run(
        method=method, loop=Loop(steps=2, batch_size=4), hardware=settings, output=str(folder / "runs")
    )


def held_in_truth(run: Run) -> int:
    """Bytes at the highest moment of two real steps."""
    real = dataclasses.replace(run, hardware=dataclasses.replace(run.hardware, device="cpu"), name="real")
    folder = runs.create(real)
    with Counting() as counting:
        trainer = methods.card_of(run.method).load_trainer()(run.method)
        session = Session(real, folder, trainer, Backend(real.hardware))
        for module in trainer.family.modules().values():
            for value in (*module.parameters(), *module.buffers()):
                counting.meter.add(value)
        counting.meter.reset()
        list(fit(session.trainer, session.learner, session.backend, session.run, source=session.source))
    return counting.meter.highest


@pytest.mark.parametrize(
    ("model", "checkpointing"), [("tiny:sd1", False), ("tiny:flux", True), ("tiny:z-image", True)]
)
def test_a_step_holds_what_is_counted(model: str, checkpointing: bool, tmp_path: Path):
    run = run_of(model, tmp_path, gradient_checkpointing=checkpointing)
    counted = next(p for p in simulate.simulate(run, exports=False).phases if p.name == "train")
    assert counted.gib * GIB == pytest.approx(held_in_truth(run), rel=0.05)


def test_kinds_are_told_apart(tmp_path: Path):
    found = simulate.simulate(run_of("tiny:sd1", tmp_path))
    trained = found.export_gib * 2  # exported in half precision
    train = next(p for p in found.phases if p.name == "train")
    assert train.kinds["optimizer"] == pytest.approx(2 * trained, rel=0.2)
    assert 0 <= train.kinds.get("gradients", 0) <= 1.2 * trained
    assert [p.name for p in found.phases] == ["load", "prepare", "train", "export"]
    assert found.checkpoint_gib == pytest.approx(3 * trained, rel=0.2)


def test_nothing_that_was_counted_is_found_by_a_real_run(tmp_path: Path):
    """Caches hold ones in place of latents; they must not lie where a training looks for them."""
    run = run_of("tiny:sd1", tmp_path)
    kept = tmp_path / "cache"
    images = Images(resolution=128, cache="latents", cache_folder=str(kept))
    prior = GeneratedPrior(num_images=2, folder=str(kept / "priors"))
    method = dataclasses.replace(run.method, images=images, prior=prior, class_word="dog")
    simulate.simulate(dataclasses.replace(run, method=method), exports=False)
    assert not kept.exists()


def measured(gib_each: float) -> Measured:
    phase = Phase(name="train", gib=gib_each)
    return Measured(phases=(phase,), step_seconds=float("nan"), checkpoint_gib=0.1, export_gib=0.1)


def test_the_cheapest_change_that_fits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = dataclasses.replace(run_of("tiny:sd1", tmp_path), loop=Loop(steps=1, batch_size=4))

    def look(asked: Run, **_: bool) -> Measured:
        less = (
            4 * (asked.loop.accumulate - 1)
            + 3 * asked.hardware.gradient_checkpointing
            + 2 * asked.hardware.offload
        )
        return measured(30 - less)

    monkeypatch.setattr(planning, "simulating", lambda: contextlib.nullcontext(look))
    fits = planning.plan(run, gpu=31)
    assert fits.fits
    assert not fits.flags
    assert fits.advice == "fits"
    some = planning.plan(run, gpu=26.8)
    assert not some.fits
    assert some.flags == ["--loop.accumulate", "2"]
    more = planning.plan(run, gpu=16)
    assert more.flags == ["--loop.accumulate", "4", "--hardware.gradient-checkpointing"]
    none = planning.plan(run, gpu=8)
    assert not none.flags
    assert "a GPU of 16 GiB would do" in none.advice


@pytest.mark.parametrize(("text", "size"), [("12GiB", 12), ("24", 24), ("512 MiB", 0.5), ("11.5gb", 11.5)])
def test_sizes_are_read_as_people_write_them(text: str, size: float):
    assert gib(text, "gpu") == size


@pytest.mark.parametrize("text", ["much", "0", "-3", "12TiB", ""])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(StudioError, match="--gpu was given as"):
        gib(text, "gpu")


def test_the_command_plans_without_data_weights_or_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = ["plan", "dreambooth", "--model", "tiny:sdxl", "--gpu", "8GiB", "--ram", "16GiB", "--json"]
    assert cli.run(words) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = next(each for each in told if "peak_gib" in each)
    assert found["fits"]
    assert found["flags"] == []
    assert 0 < found["peak_gib"] < 1
    assert not any(tmp_path.rglob("*.png"))


def test_the_device_is_for_plans_alone(tmp_path: Path):
    with pytest.raises(StudioError, match="computes nothing"):
        Backend(Hardware(device="simulated"))
    assert torch.device("cpu").type == "cpu"
