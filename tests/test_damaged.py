"""Damaged checkpoints: gone back from, trained and saved again, and never taken for what they are not."""

import json
import shutil
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.records import runs
from studio.settings.run import Loop
from studio.training import checkpoint
from studio.training.export import export
from studio.training.session import at_step, opened
from studio.training.train import resume, run_to_end
from tests.damages import KINDS
from tests.test_loop import make_run, same, weights

LOOP = Loop(steps=12, batch_size=8, log_every=1, checkpoint_every=4, keep_checkpoints=2)
MORE = {"loop": {"steps": 14}}


TRAINED = (
    "weights.safetensors: a bit at 100%",
    "manifest.json: gone",
    "manifest of null",
    "manifest without hashes",
    "a file",
)
"""Kinds that are driven to the end here; `python -m tests.campaign` drives all."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> runs.RunFolder:
    return run_to_end(make_run(tmp_path_factory.mktemp("straight"), loop=Loop(steps=14, batch_size=8)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> runs.RunFolder:
    return run_to_end(make_run(tmp_path_factory.mktemp("made"), loop=LOOP))


@pytest.fixture
def folder(made: runs.RunFolder, tmp_path: Path) -> runs.RunFolder:
    return runs.RunFolder(Path(shutil.copytree(made.path, tmp_path / "toy")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_noticed_and_not_exported(kind: str, folder: runs.RunFolder) -> None:
    newest = folder.checkpoints / "step-00000012"
    assert not checkpoint.damage(newest)
    KINDS[kind](newest)
    assert checkpoint.damage(newest)
    assert (checkpoint.latest(folder.checkpoints) or Path()).name == "step-00000008"
    with pytest.raises(StudioError, match=r"step-00000012' is damaged \(.+\); resume the run"):
        export(folder.path)


@pytest.mark.parametrize("kind", TRAINED)
def test_the_steps_of_a_damaged_checkpoint_are_trained_and_saved_again(
    kind: str, straight: runs.RunFolder, folder: runs.RunFolder
) -> None:
    KINDS[kind](folder.checkpoints / "step-00000012")
    told = [e["step"] for e in resume(folder.path, MORE) if e["event"] == "checkpoint"]
    assert told == [12, 14]
    assert not any(checkpoint.damage(path) for path in runs.saved(folder.checkpoints).values())
    assert list(runs.saved(folder.checkpoints)) == [
        12,
        14,
    ]  # the damaged one is none of the two that are kept
    assert same(weights(folder), weights(straight))
    assert [e["step"] for e in folder.read_events("step")] == list(range(1, 15))


def test_a_run_with_damaged_checkpoints_alone_begins_anew(
    straight: runs.RunFolder, folder: runs.RunFolder
) -> None:
    for path in runs.saved(folder.checkpoints).values():
        KINDS["manifest.json: gone"](path)
    list(resume(folder.path, MORE))
    assert same(weights(folder), weights(straight))
    assert [e["step"] for e in folder.read_events("step")] == list(range(1, 15))
    assert [e["resumed"] for e in folder.read_events("start")] == [False]


def test_pictures_are_not_drawn_from_a_damaged_checkpoint(folder: runs.RunFolder) -> None:
    KINDS["weights.safetensors: a bit at 100%"](folder.checkpoints / "step-00000008")
    with pytest.raises(StudioError, match="step-00000008' is damaged"):
        at_step(opened(folder.path), 8)


def test_a_run_killed_before_its_first_checkpoint_has_each_step_once(folder: runs.RunFolder) -> None:
    for path in runs.saved(folder.checkpoints).values():
        checkpoint.set_aside(path)  # as if it had been killed before the first one
    (folder.events).write_text("".join(json.dumps(e) + "\n" for e in folder.read_events() if e["step"] < 4))
    list(resume(folder.path))
    assert [e["step"] for e in folder.read_events("step")] == list(range(1, 13))
    assert len(list(folder.read_events("start"))) == 1
