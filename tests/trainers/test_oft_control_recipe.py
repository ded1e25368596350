"""The study of control signals: equal sizes, cells that go on where they were stopped, and their page."""

import dataclasses
import itertools

import pytest
from PIL import Image

from studio.adapters.build import attach
from studio.adapters.config import Oft
from studio.backend.core import Backend
from studio.catalog.run import Run
from studio.data.sticker_config import Stickers
from studio.evidence.reproduce import Cell, Reproduce, recipe_of
from studio.evidence.tables import Finished
from studio.models.build import load
from studio.settings.run import Hardware, Loop, Optim, Preview
from studio.training.train import train
from trainers.oft import reproduce_control
from trainers.oft.config import Colors, OftControl

HARDWARE = Hardware(device="cpu", precision="fp32")


def test_both_adapters_of_the_study_have_as_many_numbers():
    cells = recipe_of("oft_control").cells(Reproduce(method="oft_control", num_seeds=2))
    assert [cell.variant for cell in cells] == ["oft", "lora"] * 2
    family = load("studio-tiny", Backend(HARDWARE))
    sizes = []
    for cell in cells[:2]:
        adapter = Run.from_dict(cell.settings["run"]).method.adapter
        attached = attach(adapter, {"unet": family.denoiser}, name=cell.variant)["unet"]
        values = dict(family.denoiser.named_parameters())
        sizes.append(sum(values[name].numel() for name in attached))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def small_study(tmp_path):
    """A cell of the study on a tiny model, for three steps."""
    method = OftControl(
        model="tiny:sd1",
        control=Colors(),
        adapter=Oft(block_size=8),
        scenes=Stickers(num_concepts=4),
        num_shown=2,
    )
    made = Run(
        method=method, output=str(tmp_path), name="run", hardware=HARDWARE, optim=Optim(lr=1e-3),
        loop=Loop(steps=3, batch_size=2, log_every=1, checkpoint_every=0),
        preview=Preview(every=1, steps=1, guidance=1.0),
    )  # fmt: skip
    return Cell(variant="oft", unit="layouts", seed=0, settings={"run": made.to_dict(), "weights": ""})


def test_a_stopped_cell_of_the_study_goes_on_and_reads_all_its_previews(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce_control, "MODEL", "tiny:sd1")
    monkeypatch.setattr(reproduce_control, "NUM_PICTURES", 2)
    cell = small_study(tmp_path)
    asked = itertools.chain([False], itertools.repeat(True))
    stopped = list(train(Run.from_dict(cell.settings["run"]), stop=lambda: next(asked)))
    assert (stopped[-1]["event"], stopped[-1]["step"]) == ("stopped", 2)
    result = reproduce_control.RECIPE.run(cell, tmp_path)
    assert [step for step, _ in result.curves["agreement"]] == [0, 1, 2, 3]
    assert result.measures["agreement"] == tuple(result.curves["agreement"][i][1] for i in (0, -1))
    assert "the true pictures 1.000" in result.facts["scale of agreement"]
    done = Finished(variant="oft", unit="layouts", seed=0, settings=cell.settings, commit="", **{
        **dataclasses.asdict(result), "measures": {k: list(v) for k, v in result.measures.items()}})  # fmt: skip
    assert "| oft, seed 0 | 0: " in reproduce_control.sheet([done], tmp_path)
    with Image.open(tmp_path / "oft_control-signals.png") as sheet:
        assert sheet.size == (2 * 96, 3 * 96)
