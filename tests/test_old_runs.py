"""Runs made before the house had rooms (commit a7ee7c8): all open, and those with a checkpoint resume and export as ever.

`old_runs/METHOD/config.json` is a run of `tests.cases`, two steps of four, with ROOT in place of the folder it was made in;
`step-00000004.safetensors` holds the weights that the same version reached without a stop.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.records import runs
from studio.settings import serial
from studio.training.export import export
from studio.training.train import resume
from tests.cases import CASES

OLD = Path(__file__).with_name("old_runs")
WHOLE = sorted(path.parent.name for path in OLD.glob("*/checkpoints"))


def copied(method: str, root: Path) -> Path:
    """An old run of a method under a folder, with its data."""
    CASES[method](root / "data")
    folder = root / "runs" / "half"
    shutil.copytree(OLD / method, folder)
    for name in ("config.json", "events.jsonl"):
        if (folder / name).exists():
            (folder / name).write_text((folder / name).read_text().replace("ROOT", str(root)))
    return folder


def test_there_is_an_old_run_of_every_method():
    assert {path.name for path in OLD.iterdir()} >= {
        json.loads((path / "config.json").read_text())["method"]["kind"] for path in OLD.iterdir()
    }
    assert len(list(OLD.iterdir())) == 22
    assert WHOLE == ["dreambooth", "flow_grpo", "textual_inversion"]


@pytest.mark.parametrize("method", sorted(path.name for path in OLD.iterdir()))
def test_an_old_run_opens_with_the_settings_it_was_made_with(method: str, tmp_path: Path):
    folder = tmp_path / "half"
    shutil.copytree(OLD / method, folder)
    _, run = runs.open_run(folder)
    written = json.loads((folder / "config.json").read_text())
    kept = ("seed", "optim", "preview", "name")
    own, then = (serial.flatten({key: values[key] for key in kept}) for values in (run.to_dict(), written))
    assert {key: own[key] for key in then} == then
    own, then = serial.flatten(run.to_dict()["method"]), serial.flatten(written["method"])
    assert {key: own[key] for key in then} == then


def test_what_later_versions_added_stays_off_in_an_old_run():
    _, grpo = runs.open_run(OLD / "flow_grpo")
    assert grpo.method.ppo.last_step
    assert (
        grpo.loop.batch_size == 1
    )  # picture, of which 2 sampler steps were learned from: 2, as they were counted
    _, dpo = runs.open_run(OLD / "diffusion_dpo")
    assert (dpo.method.caption_dropout, dpo.method.flip) == (0, 0)


@pytest.mark.parametrize("method", WHOLE)
def test_an_old_run_resumes_to_where_the_old_version_went_and_exports(method: str, tmp_path: Path):
    folder = copied(method, tmp_path)
    assert list(resume(folder))[-1]["event"] == "done"
    reached = load_file(folder / "checkpoints" / "step-00000004" / "weights.safetensors")
    expected = load_file(OLD / method / "step-00000004.safetensors")
    assert reached.keys() == expected.keys()
    for (
        name,
        tensor,
    ) in expected.items():  # bit for bit on the machine it was made on; other processors round otherwise
        torch.testing.assert_close(reached[name], tensor, rtol=1e-5, atol=1e-6)
    assert all(file.exists() for file in export(folder))
