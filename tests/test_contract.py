"""What every method must do, whatever it is. A new method is tested by existing: it needs a case in `cases.py`."""

from pathlib import Path

import pytest
import torch

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog import methods
from studio.catalog.run import Run
from studio.contracts.trainer import Trainer
from studio.records.runs import RunFolder
from studio.settings.run import Hardware, Loop, Optim
from studio.training.export import export_again
from studio.training.loop import rows
from studio.training.train import run_to_end, train
from studio.training.verify import verify_resume
from tests.cases import CASES

METHODS = [name for name in methods.ours() if methods.card(name).trainer]


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    method = CASES[request.param](tmp_path / "data")
    return Run(
        method=method, output=str(tmp_path / "runs"), name="one", loop=Loop(steps=2, batch_size=2, log_every=1),
        optim=Optim(lr=1e-3), hardware=Hardware(device="cpu"),
    )  # fmt: skip


def started(run: Run) -> Trainer:
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    trainer.backend = Backend(run.hardware)
    return trainer


def test_every_method_has_a_case() -> None:
    assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_a_loss_is_finite_and_repeats(run: Run) -> None:
    totals = []
    for _ in range(2):
        trainer = started(run)
        with trainer.backend.seeded(0):
            trainer.setup(trainer.backend)
        stream = trainer.batches(trainer.source().stream(0, 0, trainer.backend.shard(2)), 0)
        batch = next(stream)
        trainer.backend.seed(0, 1)
        totals.append(trainer.loss(batch, Rng.single(0, 1, rows(batch))).total.detach())
    assert torch.isfinite(totals[0])
    assert torch.equal(totals[0], totals[1])


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_training_changes_what_trains_and_nothing_else(run: Run) -> None:
    trainer = started(run)
    with trainer.backend.seeded(0):
        groups = trainer.setup(trainer.backend)
    trained = {id(p) for g in groups if g.trains for p in g.parameters().values()}
    everything = {f"{g.name}/{k}": p for g in groups for k, p in g.module.named_parameters()}
    frozen = {key for key, p in everything.items() if id(p) not in trained}
    assert trained
    assert not any(everything[key].requires_grad for key in frozen)


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_resuming_is_exact(run: Run) -> None:
    assert verify_resume(run, steps=3, at=1) == []


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_a_run_ends_done_with_its_weights_exported(run: Run) -> None:
    folder = run_to_end(run)
    assert folder.status() == "done"
    assert any(folder.export.iterdir())
    assert all(p.suffix not in (".pt", ".bin", ".pkl", ".ckpt") for p in folder.export.rglob("*"))


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_a_run_that_stopped_early_is_exported_from_its_checkpoint(run: Run) -> None:
    events = train(run)
    next(event for event in events if event["event"] == "step")
    events.close()
    folder = RunFolder(Path(run.output) / run.name)
    assert folder.status() == "stopped"
    assert not any(folder.export.iterdir())
    files = export_again(folder, run)
    assert files
    assert all(Path(file).exists() for file in files)


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_settings_survive_json(run: Run) -> None:
    assert Run.from_dict(run.to_dict()) == run
