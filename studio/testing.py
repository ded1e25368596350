"""What every method must keep, whatever it is, as tests: `pytest --pyargs studio.testing --method my_package.my_method`.

The smallest sensible settings come from the method itself: `case.py` beside its `config.py` (of a method that is one file:
that file) has a function `case(folder)` that gives them, over an empty folder. A test class of one's own does the same:

    class TestContract(Contract):
        method = "my_package.my_method"
"""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog import methods, outside
from studio.catalog.cards import Card
from studio.catalog.run import Run
from studio.contracts.sampling import Edit, Request
from studio.contracts.trainer import Trainer
from studio.errors import StudioError
from studio.flags import flags, names
from studio.models.base import Family
from studio.models.build import load
from studio.models.draw import draw
from studio.records.runs import RunFolder
from studio.sampling import infer
from studio.settings import serial
from studio.settings.run import Hardware, Loop, Optim
from studio.training.export import export_again
from studio.training.loop import rows
from studio.training.train import run_to_end, train
from studio.training.verify import verify_resume

SIDE = 32
PICKLES = (".pt", ".bin", ".pkl", ".ckpt")


def photos(folder: Path, number: int = 3) -> str:
    """A folder of noise pictures, for cases: small, and the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for index in range(number):
        pixels = noise.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return str(folder)


def case_of(card: Card) -> Callable[[Path], Any]:
    """The function of a method that gives its smallest sensible settings.

    Raises:
        StudioError: It has none.
    """
    home = sys.modules[card.config.__module__]
    file = Path(str(home.__file__))
    if file.name == "config.py":
        file = file.with_name("case.py")
        home = outside.module(str(file), what="Case", field="method") if file.is_file() else None
    case = getattr(home, "case", None)
    if not callable(case):
        raise StudioError(
            f"Method {card.name!r} has no case: write `def case(folder: Path)` into {file}, which gives the smallest sensible "
            "settings over an empty folder.",
            field="method",
        )
    return case


def small(settings: Any, output: Path) -> Run:
    """A run of two steps on the CPU, which looks at held-out data where there is some."""
    loop = Loop(steps=2, batch_size=2, log_every=1, validate_every=2)
    return Run(
        method=settings, output=str(output), name="one", loop=loop, optim=Optim(lr=1e-3), hardware=Hardware(device="cpu")
    )  # fmt: skip


def started(run: Run) -> Trainer:
    """The trainer of a run, with its hardware."""
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    trainer.backend = Backend(run.hardware)
    return trainer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """End before the first test, with one sentence, where `--method` names no method with a case."""
    try:
        case_of(_card("", metafunc.config))
    except StudioError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _card(method: str, config: pytest.Config) -> Card:
    if name := method or config.getoption("method", ""):
        return methods.card(name)
    raise StudioError("No method is named; add --method my_package.my_method.", field="method")


def _settings(card: Card, kind: str, folder: Path) -> Any:
    """The settings of a method's case, over a folder made for it."""
    if not getattr(card, kind):
        pytest.skip(f"{card.name} has no {kind}")
    folder.mkdir()
    return case_of(card)(folder)


class Contract:
    """What every method keeps that trains."""

    method: ClassVar[str] = ""
    """As `studio train` takes it; empty takes what `--method` names."""

    @pytest.fixture
    def run(self, request: pytest.FixtureRequest, tmp_path: Path) -> Run:
        """A small run of the method's case."""
        settings = _settings(_card(self.method, request.config), "trainer", tmp_path / "data")
        return small(settings, tmp_path / "runs")

    def test_a_loss_is_finite_and_repeats(self, run: Run) -> None:
        totals: list[torch.Tensor] = []
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

    def test_training_changes_what_trains_and_nothing_else(self, run: Run) -> None:
        trainer = started(run)
        with trainer.backend.seeded(0):
            groups = trainer.setup(trainer.backend)
        trained = {id(p) for g in groups if g.trains for p in g.parameters().values()}
        everything = {f"{g.name}/{k}": p for g in groups for k, p in g.module.named_parameters()}
        frozen = {key for key, p in everything.items() if id(p) not in trained}
        assert trained
        assert not [key for key in frozen if everything[key].requires_grad]

    def test_resuming_is_exact(self, run: Run) -> None:
        assert verify_resume(run, steps=3, at=1) == []

    def test_a_run_ends_done_with_its_weights_exported(self, run: Run) -> None:
        folder = run_to_end(run)
        assert folder.status() == "done"
        told = [fact for event in folder.read_events("start") for fact in event["facts"]]
        assert bool(list(folder.read_events("validation"))) != (
            "validation: none, as there is no held-out data" in told
        )
        assert any(folder.export.iterdir())
        assert [p for p in folder.export.rglob("*") if p.suffix in PICKLES] == []

    def test_a_run_that_stopped_early_is_exported_from_its_checkpoint(self, run: Run) -> None:
        events = train(run)
        next(event for event in events if event["event"] == "step")
        events.close()  # pyright: ignore[reportAttributeAccessIssue]  # it is a generator
        folder = RunFolder(Path(run.output) / run.name)
        assert folder.status() == "stopped"
        assert not any(folder.export.iterdir())
        files = export_again(folder, run)
        assert files
        assert all(Path(file).exists() for file in files)

    def test_settings_survive_json(self, run: Run) -> None:
        assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run

    def test_settings_come_back_from_flags(self, run: Run) -> None:
        values = run.to_dict()
        method = values["method"].pop("kind")
        words = [word for pair in serial.flatten(values).items() for word in names.words(*pair)]
        assert flags.parse_run(method, words)[0] == run


class EditContract:
    """What every method keeps that changes sampling without training."""

    method: ClassVar[str] = ""
    """As `studio sample --edits` takes it; empty takes what `--method` names."""

    @pytest.fixture
    def written(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        """The settings of the method's case as a request holds them."""
        card = _card(self.method, request.config)
        return in_request(methods.reference(card), _settings(card, "edit", tmp_path / "data"))

    def test_an_edit_comes_from_its_settings_changes_the_picture_and_repeats(self, written: str) -> None:
        first, second = (infer.load_edit(written, _family()) for _ in range(2))
        assert isinstance(first, Edit)
        plain, once = _picture(), _picture(first)
        assert once != plain
        assert _picture(first) == once
        assert _picture(second) == once

    def test_an_edit_leaves_no_trace_in_the_model(self, written: str) -> None:
        plain = _picture()
        _picture(infer.load_edit(written, _family()))
        assert _picture() == plain


def in_request(method: str, settings: Any) -> str:
    """Settings of an edit as `studio sample --edits` takes them."""
    return json.dumps({"kind": method, **serial.to_dict(settings)})


@functools.cache
def _family() -> Family:
    return load("tiny:sd1", Backend(Hardware(device="cpu", precision="fp32")))


def _picture(*edits: Edit) -> bytes:
    request = Request(prompts=["a dog on grass"], steps=2, guidance=1.0, seed=3, edits=edits)
    return draw(_family(), request)[0].tobytes()


class TestTrainer(Contract):
    """The method that `--method` names, if it trains."""


class TestEdit(EditContract):
    """The method that `--method` names, if it edits sampling."""
