"""A full disk: told in a sentence, and the run goes on or stops saved. `python -m tests.campaign` fills a real one."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from studio import cli
from studio.errors import RunFailed
from studio.records import runs
from studio.records.runs import EventLog, RunFolder
from studio.settings.run import Preview
from studio.training import checkpoint
from studio.training.train import run_to_end, train
from tests.test_loop import make_run, same, weights
from tests.toy.trainer import ToyTrainer


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_events_wait_for_room_and_none_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path)
    record = EventLog(folder)
    record.write("start", step=0)
    kept = record._file
    with Path("/dev/full").open("wb", buffering=0) as record._file:
        for step in range(1, 4):
            record.write("step", step=step)
    assert caplog.text.count("events wait in memory for room") == 1
    record._file = kept
    record.write("done", step=4)
    record.close()
    assert [event["step"] for event in folder.read_events()] == [0, 1, 2, 3, 4]


def test_a_checkpoint_that_finds_no_room_is_told_and_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    for event in train(make_run(tmp_path)):
        events.append(event)
        if event["event"] == "step" and event["step"] == 1:
            monkeypatch.setattr(checkpoint, "write_text", full)
        if event["event"] == "unsaved":
            monkeypatch.setattr(checkpoint, "write_text", runs.write_text)
    unsaved = [e for e in events if e["event"] == "unsaved"]
    assert [(e["step"], e["what"]) for e in unsaved] == [(4, "checkpoint")]
    assert "No space left on device" in unsaved[0]["error"]
    folder = RunFolder(tmp_path / "toy")
    assert list(runs.saved(folder.checkpoints)) == [8, 12]
    assert same(weights(folder), weights(run_to_end(make_run(tmp_path, name="straight"))))


def test_a_preview_that_finds_no_room_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runs.write_text
    monkeypatch.setattr(
        runs, "write_text", lambda path, text: full() if path.name == "texts.json" else real(path, text)
    )
    events = list(train(make_run(tmp_path, preview=Preview(every=6))))
    assert [(e["step"], e["what"]) for e in events if e["event"] == "unsaved"] == [
        (s, "preview") for s in (0, 6, 12)
    ]
    assert events[-1]["event"] == "done"


def test_an_export_that_finds_no_room_leaves_the_run_saved_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyTrainer, "export", full)
    with pytest.raises(RunFailed, match=r"weights of step 12 cannot be exported .*run: studio export"):
        list(train(make_run(tmp_path)))
    folder = RunFolder(tmp_path / "toy")
    assert checkpoint.newest(folder.checkpoints).name == "step-00000012"
    assert folder.status() == "failed"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_the_command_tells_what_a_disk_refused_in_one_sentence(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number), "some/where")

    monkeypatch.setattr(cli, "_answer", refuse)
    assert cli.run(["train"]) == 1
    assert f"studio: {os.strerror(number)}: some/where; free space" in capsys.readouterr().err
