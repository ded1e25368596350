"""A run measured on this machine: a few real steps at the largest shape, one preview, one save, one export."""

import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from studio.backend.core import Backend
from studio.backend.peak import Peak, release
from studio.backend.shard import Shard
from studio.catalog import methods
from studio.catalog.run import Run
from studio.contracts.batch import Batch
from studio.contracts.trainer import Trainer
from studio.records import runs
from studio.records.runs import RunFolder
from studio.training.loop import fit
from studio.training.measured import GIB, Measured, Phase
from studio.training.session import Session

_STEPS = 3
"""Steps measured: the first holds the one-time costs, the fastest other one is the speed."""
_BATCHES_LOOKED_AT = 16


def measure(run: Run, *, exports: bool = True) -> Measured:
    """Time, memory and disk of one run in this process, in a temporary folder beside its output; always with its export."""
    del exports
    backend = Backend(run.hardware)
    with tempfile.TemporaryDirectory(dir=existing(Path(run.output)), prefix=".plan-") as temporary:
        folder = runs.create(dataclasses.replace(run, output=temporary, name="plan"))
        try:
            return _measure(run, folder, backend)
        except torch.OutOfMemoryError:
            phase = Phase(name="out of memory", gib=math.inf)
            return Measured(phases=(phase,), step_seconds=math.nan, checkpoint_gib=0.0, export_gib=0.0)
        finally:
            release(backend.device)


def _measure(run: Run, folder: RunFolder, backend: Backend) -> Measured:
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    with Peak(backend.device) as load:
        session = Session(run, folder, trainer, backend)
    first = largest(trainer, run)
    with Peak(backend.device) as train:
        seconds = list(_steps(run, session, first))
    session.step = first + _STEPS
    phases = {"load": load, "train": train}
    with Peak(backend.device) as phases["preview"]:
        drawn = session.preview()
    with Peak(backend.device) as phases["save"]:
        session.save()
    with Peak(backend.device) as phases["export"]:
        session.export()
    if drawn is None:
        del phases["preview"]
    return Measured(
        phases=tuple(Phase(name=n, seconds=p.seconds, gib=p.gib) for n, p in phases.items()),
        step_seconds=min(seconds[1:]),
        checkpoint_gib=_size(folder.checkpoints),
        export_gib=_size(folder.export),
    )


def _steps(run: Run, session: Session, first: int) -> Iterator[float]:
    loop = dataclasses.replace(run.loop, steps=first + _STEPS, log_every=1)
    steps = fit(
        session.trainer, session.learner, session.backend, dataclasses.replace(run, loop=loop), first=first
    )
    for done in steps:
        yield done.values["seconds"]


def largest(trainer: Trainer, run: Run) -> int:
    """The step, among the first ones, whose batch holds the most numbers: the largest shape the data has."""
    source = trainer.source()
    size = run.loop.batch_size
    count = min(_BATCHES_LOOKED_AT, math.ceil(len(source) / size))
    stream = source.stream(run.seed, 0, Shard(size, 0, size))
    sizes = [_numbers(batch) for batch in itertools.islice(stream, count)]
    return max(range(len(sizes)), key=sizes.__getitem__, default=0)


def _numbers(batch: Batch) -> int:
    return sum(value.numel() for value in batch.values() if isinstance(value, torch.Tensor))


def existing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / GIB
