"""What a resumed run may be told: what is written down is what runs, and what is refused changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.errors import StudioError
from studio.records.runs import RunFolder
from studio.settings.run import Loop, Optim, Preview
from studio.training.session import opened
from studio.training.train import resume, run_to_end
from tests.test_loop import make_run, same, weights
from tests.toy.config import Toy


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    optim = Optim(lr=0.05, schedule="cosine", ema=0.9)
    return run_to_end(make_run(tmp_path, optim=optim))


def on(folder: RunFolder, **optim: Any) -> list[str]:
    """Go on for a few steps with a changed optimizer; gives the facts of the start."""
    events = list(resume(folder.path, {"loop": {"steps": 15}, "optim": optim}, allow_changes=True))
    assert events[-1]["event"] == "done"
    written = json.loads(folder.config.read_text())["optim"]
    assert {key: written[key] for key in optim} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in optim.items()
    }
    return next(e["facts"] for e in events if e["event"] == "start")


def rates(folder: RunFolder) -> list[float]:
    return [event["lr"] for event in folder.read_events("step")][12:]


def test_a_changed_learning_rate_is_the_one_that_runs(tmp_path: Path) -> None:
    folder = run_to_end(make_run(tmp_path))
    assert "optim.lr: 0.05 -> 1e-05" in on(folder, lr=1e-5)
    assert rates(folder) == [1e-5] * 3


def test_a_changed_schedule_goes_on_where_it_is(folder: RunFolder) -> None:
    on(folder, lr=0.1, schedule="linear")
    assert rates(folder) == pytest.approx([0.1 * (15 - step) / 15 for step in (12, 13, 14)])


@pytest.mark.parametrize(
    "changed", [{"weight_decay": 0.5}, {"betas": (0.5, 0.5)}, {"options": {"eps": 1.0}}, {"lr": 0.5}]
)
def test_every_changed_number_of_the_optimizer_is_heeded_and_told(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    plain = run_to_end(make_run(tmp_path, name="plain"))
    other = run_to_end(make_run(tmp_path, name="other"))
    assert not [fact for fact in on(plain) if "->" in fact]
    (told,) = [fact for fact in on(other, **changed) if "->" in fact]
    assert told.startswith("optim.eps" if "options" in changed else f"optim.{next(iter(changed))}")
    assert not same(weights(plain), weights(other))


def test_an_average_that_was_none_begins_with_the_weights(tmp_path: Path) -> None:
    folder = run_to_end(make_run(tmp_path))
    assert "average of weights: begun from the weights as they are" in on(folder, ema=0.9)


@pytest.mark.parametrize("name", ["sgd", "adafactor", "schedule-free", "prodigy"])
def test_another_optimizer_begins_anew_and_says_so(name: str, tmp_path: Path) -> None:
    folder = run_to_end(make_run(tmp_path))
    assert f"optimizer: {name}, begun anew; adamw before" in on(folder, name=name)
    assert all(torch.isfinite(value).all() for value in weights(folder).values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": {"lr": 0.5}}, "made with other settings"),
        ({"optim": {"name": "adamx"}, "loop": {"steps": 20}}, "did you mean 'adamw'"),
        ({"loop": {"steps": 5}}, r"loop\.steps 5 is less than the 12 steps that the run has taken"),
    ],
)
def test_what_is_refused_leaves_the_run_as_it_was(
    changes: dict[str, Any], said: str, folder: RunFolder
) -> None:
    before = folder.config.read_bytes(), folder.events.read_bytes()
    with pytest.raises(StudioError, match=said):
        list(resume(folder.path, changes, allow_changes=said != "made with other settings"))
    assert (folder.config.read_bytes(), folder.events.read_bytes()) == before
    assert list(resume(folder.path, {"loop": {"steps": 15}}, allow_changes=True))[-1]["event"] == "done"


@pytest.mark.parametrize("optim", [Optim(lr=0.05, name="schedule-free"), Optim(lr=0.05, ema=0.9)])
def test_looking_at_a_run_changes_no_bit_of_it(optim: Optim, tmp_path: Path) -> None:
    looked = run_to_end(make_run(tmp_path, name="looked", optim=optim, preview=Preview(every=1)))
    straight = run_to_end(make_run(tmp_path, name="straight", optim=optim))
    assert same(weights(looked), weights(straight))


def test_a_validation_loss_repeats_and_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    loop = Loop(steps=12, batch_size=8, log_every=1, validate_every=1)
    run = make_run(tmp_path, loop=loop, method=Toy(dropout=0.5))
    looked, straight = run_to_end(run), run_to_end(make_run(tmp_path, name="plain", method=Toy(dropout=0.5)))
    assert same(weights(looked), weights(straight))
    session = opened(looked.path)
    assert session.validate() == session.validate()
