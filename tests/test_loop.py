"""The loop, checkpoints and resuming, on a method that fits a line."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.errors import RunFailed, StudioError
from studio.records.runs import RunFolder
from studio.settings.run import Hardware, Loop, Optim, Preview
from studio.training import checkpoint
from studio.training.session import Session
from studio.training.train import resume, run_to_end, train
from studio.training.verify import verify_resume
from tests.toy.config import Toy


def make_run(path: Path, **changes: object) -> Run:
    loop = Loop(steps=12, batch_size=8, log_every=1, checkpoint_every=4)
    base = Run(method=Toy(), output=str(path), name="toy", loop=loop, optim=Optim(lr=0.05))
    return dataclasses.replace(base, **changes)


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    path = checkpoint.latest(folder.checkpoints)
    assert path is not None
    return load_file(path / "weights.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_training_lowers_the_loss_and_exports(tmp_path: Path) -> None:
    folder = run_to_end(make_run(tmp_path, loop=Loop(steps=60, batch_size=8, log_every=1)))
    losses = [e["loss"] for e in folder.read_events("step")]
    assert losses[-1] < losses[0] / 4
    assert (folder.export / "line.safetensors").exists()
    assert folder.status() == "done"


@pytest.mark.parametrize(
    ("optim", "toy"),
    [
        (Optim(lr=0.05), Toy()),
        (Optim(lr=0.05, ema=0.9, schedule="cosine", warmup=3), Toy(dropout=0.5)),
        (Optim(lr=0.05, name="schedule-free"), Toy()),
        (Optim(lr=1.0, name="prodigy"), Toy()),
        (Optim(lr=0.05, name="adafactor"), Toy()),
        (Optim(lr=0.05, name="sgd", options={"momentum": 0.9}), Toy()),
    ],
)
def test_resuming_is_the_uninterrupted_run(tmp_path: Path, optim: Optim, toy: Toy) -> None:
    assert verify_resume(make_run(tmp_path, optim=optim, method=toy), steps=7, at=3) == []


def test_closing_the_generator_saves_and_resuming_goes_on(tmp_path: Path) -> None:
    straight = run_to_end(make_run(tmp_path, name="straight"))
    events = train(make_run(tmp_path, name="closed"))
    for event in events:
        if event["event"] == "step" and event["step"] == 5:
            break
    events.close()
    folder = RunFolder(tmp_path / "closed")
    assert folder.status() == "stopped"
    list(resume(folder.path))
    assert same(weights(folder), weights(straight))
    assert [e["step"] for e in folder.read_events("step")] == list(range(1, 13))


def test_accumulating_parts_is_the_whole_batch(tmp_path: Path) -> None:
    whole = run_to_end(make_run(tmp_path, name="whole"))
    parts = run_to_end(make_run(tmp_path, name="parts", loop=Loop(steps=12, batch_size=8, accumulate=4)))
    for key, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[key], value, rtol=1e-5, atol=1e-6)


def test_frozen_groups_stay_bit_identical(tmp_path: Path) -> None:
    run = make_run(tmp_path, loop=Loop(steps=6, batch_size=8, checkpoint_every=1, keep_checkpoints=9))
    folder = run_to_end(run)
    first, last = (load_file(folder.checkpoints / f"step-0000000{i}" / "weights.safetensors") for i in (1, 6))
    frozen = [k for k in first if k.startswith("frozen/")]
    assert frozen
    assert all(torch.equal(first[k], last[k]) for k in frozen)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_step(tmp_path: Path) -> None:
    run = make_run(tmp_path, method=Toy(fail_at=6))
    with pytest.raises(
        RunFailed, match=r"Step 6: loss, error, grad_norm is not finite; the weights of step 5"
    ):
        run_to_end(run)
    folder = RunFolder(tmp_path / "toy")
    assert folder.status() == "failed"
    assert checkpoint.step_of(checkpoint.latest(folder.checkpoints) or Path()) == 5


def test_rotation_keeps_the_newest_and_never_touches_other_files(tmp_path: Path) -> None:
    run = make_run(tmp_path, loop=Loop(steps=12, batch_size=8, checkpoint_every=2, keep_checkpoints=2))
    root = tmp_path / "toy" / "checkpoints"
    root.mkdir(parents=True)
    (root / "step-00000001").mkdir()
    (root / "notes.txt").write_text("mine")
    run_to_end(run)
    assert sorted(p.name for p in root.iterdir()) == [
        "notes.txt",
        "step-00000001",
        "step-00000010",
        "step-00000012",
    ]


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        preview=Preview(every=1),
        loop=Loop(steps=8, batch_size=8, keep_checkpoints=1),
        optim=Optim(lr=0.5),
    )
    folder = run_to_end(run)
    scores = {e["step"]: e["scores"]["quality"] for e in folder.read_events("preview") if e["step"]}
    assert (folder.checkpoints / f"step-{max(scores, key=scores.__getitem__):08d}").exists()


def test_a_damaged_checkpoint_is_named_and_an_older_one_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_to_end(make_run(tmp_path))
    newest = folder.checkpoints / "step-00000012"
    data = bytearray((newest / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "weights.safetensors").write_bytes(bytes(data))
    assert (checkpoint.latest(folder.checkpoints) or Path()).name == "step-00000008"
    assert "step-00000012 is damaged" in caplog.text


def test_a_full_disk_fails_the_save_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    events = train(make_run(tmp_path))
    with pytest.raises(RunFailed, match=r"No space left on device.*Older checkpoints are untouched"):  # noqa: PT012  # the error comes while iterating
        for event in events:
            if event["event"] == "checkpoint":
                monkeypatch.setattr(checkpoint, "save_file", full)
    names = [p.name for p in (tmp_path / "toy" / "checkpoints").iterdir()]
    assert names == ["step-00000004"]


def test_killed_in_a_step_resumes_to_the_uninterrupted_run(tmp_path: Path) -> None:
    straight = run_to_end(make_run(tmp_path, name="straight"))
    code = (
        "from studio.catalog.run import Run; from studio.training.train import run_to_end; import json, sys;"
        "run_to_end(Run.from_dict(json.loads(sys.argv[1])))"
    )
    values = make_run(tmp_path, name="killed", method=Toy(die_at=7)).to_dict()
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(values)], check=False, capture_output=True
    )
    assert result.returncode == -9
    folder = RunFolder(tmp_path / "killed")
    list(resume(folder.path, {"method": {"die_at": 0}}, allow_changes=True))
    assert same(weights(folder), weights(straight))


def test_killed_in_a_save_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    code = (
        "import os, signal, json, sys; from studio.catalog.run import Run\n"
        "from studio.training import checkpoint; from studio.training.train import run_to_end\n"
        "real = checkpoint.write_text\n"
        "def die(path, text):\n"
        "    if 'step-00000008' in str(path): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(path, text)\n"
        "checkpoint.write_text = die\n"
        "run_to_end(Run.from_dict(json.loads(sys.argv[1])))"
    )
    values = make_run(tmp_path, name="killed").to_dict()
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(values)], check=False, capture_output=True
    )
    assert result.returncode == -9
    folder = RunFolder(tmp_path / "killed")
    assert (checkpoint.latest(folder.checkpoints) or Path()).name == "step-00000004"
    list(resume(folder.path))
    assert same(weights(folder), weights(run_to_end(make_run(tmp_path, name="straight"))))
    assert not list(folder.checkpoints.glob(".step-*"))


def test_a_changed_setting_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder = run_to_end(make_run(tmp_path))
    with pytest.raises(StudioError, match=r"optim.lr: 0.05 -> 0.1.*--allow-changes"):
        list(resume(folder.path, {"optim": {"lr": 0.1}}))


def test_a_run_interrupted_at_once_says_that_it_stopped_at_its_last_checkpoint(tmp_path: Path) -> None:
    def interrupt(session: Session) -> None:
        if session.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(train(make_run(tmp_path), between=interrupt))
    folder = RunFolder(tmp_path / "toy")
    assert [(e["event"], e["step"]) for e in folder.read_events()][-1] == ("stopped", 4)
    assert list(resume(folder.path))[-1]["event"] == "done"


def test_an_existing_run_is_never_written_over(tmp_path: Path) -> None:
    run_to_end(make_run(tmp_path))
    with pytest.raises(StudioError, match=r"exists already; choose another --name"):
        list(train(make_run(tmp_path)))


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="did you mean 'adamw'"):
        list(train(make_run(tmp_path, optim=Optim(name="adamx"))))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_failed_before_its_first_step_can_be_started_again_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        run_to_end(make_run(tmp_path, method=Toy(fail_at=1)))
    folder = run_to_end(make_run(tmp_path))
    assert [e["event"] for e in folder.read_events() if e["event"] in ("failed", "done")] == ["done"]


def test_a_folder_of_the_persons_own_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "toy" / "samples").mkdir(parents=True)
    picture = tmp_path / "toy" / "samples" / "mine.png"
    picture.write_bytes(b"mine")
    with pytest.raises(StudioError, match="adamx"):
        list(train(make_run(tmp_path, optim=Optim(name="adamx"))))
    assert picture.read_bytes() == b"mine"


def test_a_batch_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, hardware=Hardware(num_processes=3))
    with pytest.raises(StudioError, match=r"choose loop\.batch_size 9 with loop\.accumulate 1"):
        list(train(run))
    assert not (tmp_path / "toy").exists()


def launched(path: Path, *, steps: int = 12, **hardware: object) -> RunFolder:
    """A run of the toy in two processes, from the command."""
    path.mkdir(exist_ok=True)
    here = Hardware(num_processes=2, device="cpu", threads=1, **hardware)
    run = make_run(path, hardware=here, loop=Loop(steps=steps, batch_size=8, log_every=1, checkpoint_every=4))
    (path / "run.json").write_text(json.dumps(run.to_dict()))
    _processes("--config", str(path / "run.json"))
    return RunFolder(path / "toy")


def _processes(*arguments: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*launch, "studio.cli", "train", *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def agree(one: RunFolder, two: RunFolder) -> None:
    for a, b in zip(one.read_events("step"), two.read_events("step"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(two)[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.timeout(300)
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    agree(run_to_end(make_run(tmp_path)), launched(tmp_path / "two"))


@pytest.mark.timeout(300)
def test_sharded_weights_give_the_curve_of_one_process_also_after_resuming(tmp_path: Path) -> None:
    sharded = launched(tmp_path / "sharded", steps=6, sharded=True)
    assert "weights sharded" in next(iter(sharded.read_events("start")))["facts"][0]
    assert (sharded.export / "line.safetensors").exists()
    _processes("--resume", str(sharded.path), "--loop.steps", "12")
    agree(run_to_end(make_run(tmp_path)), sharded)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hardware": Hardware(sharded=True)}, "num_processes 1; set it to the number of GPUs"),
        (
            {"hardware": Hardware(sharded=True, num_processes=2), "optim": Optim(name="prodigy")},
            "optim.name prodigy; choose adamw or sgd",
        ),
    ],
)
def test_sharding_refuses_what_it_would_change(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        check(make_run(tmp_path, **changes))
