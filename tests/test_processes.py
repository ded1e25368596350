"""Several processes, started by the command as a person would: the same run as one process."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from studio.assets import path as asset
from studio.catalog.run import Run
from studio.records.runs import RunFolder
from studio.settings.run import Hardware, Loop, Optim
from studio.training.train import run_to_end
from trainers.dreambooth import DreamBooth

TWO = Hardware(num_processes=2, device="cpu", threads=1)


def subject_run(path: Path) -> Run:
    method = DreamBooth(
        data=str(asset("samples") / "unicorn"), class_word="unicorn", token="sks", model="tiny:sd1"
    )
    loop = Loop(steps=2, batch_size=4, log_every=1)
    one = Hardware(device="cpu", threads=1)
    return Run(method=method, output=str(path), name="one", loop=loop, optim=Optim(lr=1e-3), hardware=one)


def from_command(run: Run, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(run.to_dict()), encoding="utf-8")
    command = [sys.executable, "-m", "studio.cli", "train", "--config", str(file), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(300)
def test_a_sharded_adapter_trains_and_exports_as_in_one_process(tmp_path: Path) -> None:
    one = subject_run(tmp_path)
    alone = run_to_end(one)
    sharded = dataclasses.replace(one, name="sharded", hardware=dataclasses.replace(TWO, sharded=True))
    done = from_command(sharded, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events].count("start") == 1
    folder = RunFolder(tmp_path / "sharded")
    for mine, theirs in zip(alone.read_events("step"), folder.read_events("step"), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
    expected, found = (load_file(f.export / "pytorch_lora_weights.safetensors") for f in (alone, folder))
    assert expected.keys() == found.keys()
    assert all((expected[key] - found[key]).abs().max() < 1e-4 for key in expected)


@pytest.mark.timeout(120)
def test_a_mistake_is_refused_once_and_before_any_process_starts(tmp_path: Path) -> None:
    run = dataclasses.replace(subject_run(tmp_path), hardware=TWO, loop=Loop(steps=2, batch_size=3))
    done = from_command(run, tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("batch_size 3 cannot be split over 2 processes") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "one").exists()
