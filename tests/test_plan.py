"""The plan measures a real run, keeps nothing of it, and tries changes until one fits."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from studio.backend.peak import Peak
from studio.catalog.run import Run
from studio.data.config import Images
from studio.errors import StudioError
from studio.same_subject.config import NoPrior
from studio.settings.run import Hardware, Loop, Preview
from studio.training.plan import Plan, duration, plan
from studio.training.savers import changes
from tests.toy.config import Toy
from trainers.dreambooth.config import DreamBooth


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    loop = Loop(steps=40, batch_size=2, checkpoint_every=10)
    preview = Preview(every=20)
    output = str(tmp_path_factory.mktemp("runs"))
    return Run(method=Toy(), loop=loop, preview=preview, output=output, hardware=Hardware(device="cpu"))


@pytest.fixture(scope="module")
def measured(run: Run) -> Plan:
    return plan(run)


def test_every_phase_is_measured(measured: Plan):
    assert [phase.name for phase in measured.measured.phases] == [
        "load",
        "train",
        "preview",
        "save",
        "export",
    ]


def test_nothing_of_the_plan_is_kept(run: Run, measured: Plan):
    assert measured.fits
    assert list(Path(run.output).iterdir()) == []


def test_the_whole_run_takes_at_least_its_steps(run: Run, measured: Plan):
    assert measured.eta_seconds > run.loop.steps * measured.measured.step_seconds


def test_the_disk_holds_all_checkpoints_kept_at_once(run: Run, measured: Plan):
    assert measured.disk_gib > measured.measured.checkpoint_gib * (run.loop.keep_checkpoints + 1)


def test_what_cannot_fit_is_said_after_trying(run: Run, monkeypatch: pytest.MonkeyPatch):
    small = dataclasses.replace(run, loop=Loop(steps=1, batch_size=1), preview=Preview())
    monkeypatch.setattr("studio.training.plan.limit_gib", lambda _: 0.001)
    found = plan(small)
    assert not found.fits
    assert "smaller model" in found.advice


def test_changes_begin_with_the_one_that_keeps_the_result(run: Run):
    change = next(changes(run))
    assert change.flags == ["--loop.accumulate 2"]
    assert change.run.loop.accumulate == 2


def test_a_batch_that_cannot_be_split_is_refused_before_measuring(run: Run):
    with pytest.raises(StudioError, match=r"choose loop\.batch_size 3 with loop\.accumulate 3"):
        plan(dataclasses.replace(run, loop=Loop(batch_size=4, accumulate=3)))


def test_a_real_method_is_measured_at_its_largest_picture(run: Run, tmp_path: Path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (64, 64), "red").save(small)
    Image.new("RGB", (64, 128), "blue").save(large)
    images = Images(buckets=True, resolution=64, bucket_step=32)
    method = DreamBooth(model="tiny:sd1", data=str(tmp_path), prior=NoPrior(), images=images)
    found = plan(dataclasses.replace(run, method=method, loop=Loop(steps=1, batch_size=1), preview=Preview()))
    assert found.fits
    assert found.measured.export_gib > 0


def test_peak_sees_memory_that_is_held():
    with Peak(torch.device("cpu")) as before:
        pass
    with Peak(torch.device("cpu")) as held:
        block = torch.ones(64, 2**20)
        block.sum()
    assert held.gib - before.gib > 0.2
    assert held.seconds > before.seconds


@pytest.mark.parametrize(("seconds", "said"), [(45, "45 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_read_as_people_say_them(seconds: float, said: str):
    assert duration(seconds) == said
    assert not math.isnan(seconds)
