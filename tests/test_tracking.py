"""Trackers copy the numbers of events, and say what to install."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.records.runs import RunFolder
from studio.training.tracking import chosen, numbers, tracker

STEP = {"event": "step", "time": 1.0, "step": 3, "loss": 0.5, "parts": {"prior": 0.25}, "clipped": True}
SCORES = {"event": "scores", "time": 1.0, "step": 3, "identity": 0.7, "picture": "0.png"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "fox")
    made.path.mkdir()
    made.config.write_text(json.dumps({"seed": 0}))
    return made


def test_the_numbers_of_a_step_keep_their_names():
    assert numbers(STEP) == {"loss": 0.5, "parts/prior": 0.25}


def test_the_numbers_of_other_events_carry_their_kind():
    assert numbers(SCORES) == {"scores/identity": 0.7}


def test_an_unknown_tracker_offers_the_nearest(folder: RunFolder):
    with pytest.raises(StudioError, match="did you mean 'tensorboard'"):
        tracker("tensorbord", folder)


def test_auto_is_trackio_where_it_is_installed():
    pytest.importorskip("trackio")
    assert chosen(["auto", "trackio", "tensorboard"]) == ["trackio", "tensorboard"]


def test_auto_never_sends_a_run_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    assert chosen(["auto"]) == []


def test_a_missing_library_names_its_extra(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(StudioError, match=r"finetuning-studio\[wandb\]"):
        tracker("wandb", folder)


def test_tensorboard_reads_back_what_was_logged(folder: RunFolder):
    log = tracker("tensorboard", folder)
    log.log(STEP)
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [(s.step, s.value) for s in read.Scalars("parts/prior")] == [(3, 0.25)]


def test_trackio_keeps_the_run_in_its_local_database(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    # Trackio fixes its folder when it is imported, which only a fresh process can show.
    code = (
        "import sys, trackio; from pathlib import Path; from studio.records.runs import RunFolder; "
        "from studio.training.tracking import tracker; log = tracker('trackio', RunFolder(Path(sys.argv[1]))); "
        f"log.log({STEP!r}); log.close(); "
        "print(trackio.Api().runs('studio')[0].name, list(Path(sys.argv[2]).rglob('*.db')) != [])"
    )
    store = folder.path / "store"
    monkeypatch.setenv("TRACKIO_DIR", str(store))
    command = [sys.executable, "-c", code, str(folder.path), str(store)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.splitlines() == ["fox True"], result.stderr


@pytest.mark.parametrize("variable", ["TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"])
def test_trackio_refuses_to_send_a_run_away(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, "someone/space")
    with pytest.raises(StudioError, match=f"unset {variable}"):
        tracker("trackio", folder)


def test_wandb_without_a_login_says_what_to_do(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    library = pytest.importorskip("wandb")

    def refused(**settings: object) -> None:
        raise library.errors.UsageError("No API key configured.")

    monkeypatch.setattr(library, "init", refused)
    with pytest.raises(
        StudioError, match=r"cannot start \(No API key configured\); log in with `wandb login`"
    ):
        tracker("wandb", folder)


def test_wandb_offline_stays_in_the_run_folder(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = tracker("wandb", folder)
    log.log(STEP)
    log.close()
    assert list((folder.path / "wandb").glob("offline-run-*/*.wandb"))
