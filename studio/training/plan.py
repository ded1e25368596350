"""What a run would need, measured: a few real steps at the largest shape, one preview, one save, one export.

Nothing is estimated from parameter counts. Where the run does not fit, changes are tried from the cheapest on, each
measured in the same way, until one fits.
"""

import dataclasses
import importlib.util
import itertools
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from studio.backend.core import Backend
from studio.backend.peak import Peak, limit_gib, release
from studio.backend.shard import Shard
from studio.catalog import methods
from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.contracts.batch import Batch
from studio.contracts.trainer import Trainer
from studio.records import runs
from studio.records.runs import RunFolder
from studio.training.loop import fit
from studio.training.session import Session

_GIB = 2**30
_STEPS = 3
"""Steps measured: the first holds the one-time costs, the fastest other one is the speed."""
_BATCHES_LOOKED_AT = 16


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a run: what it took."""

    name: str
    seconds: float
    gib: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run took: time and peak memory by phase, size on disk."""

    phases: tuple[Phase, ...]
    step_seconds: float
    checkpoint_gib: float
    export_gib: float

    @property
    def peak_gib(self) -> float:
        """Highest memory of all phases."""
        return max(phase.gib for phase in self.phases)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would need on this machine, and what to change where it does not fit."""

    measured: Measured
    limit_gib: float
    eta_seconds: float
    disk_gib: float
    disk_free_gib: float
    images_per_second: float
    advice: str

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return self.measured.peak_gib <= self.limit_gib and self.disk_gib <= self.disk_free_gib

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, for machines."""
        return {**dataclasses.asdict(self), "peak_gib": self.measured.peak_gib, "fits": self.fits}

    def lines(self) -> list[tuple[str, str]]:
        """The plan as (what, how much) for people."""
        phases = [(f"{p.name}", f"{_memory(p.gib)} peak, {p.seconds:.2f} s") for p in self.measured.phases]
        return [
            *phases,
            ("a step", f"{self.measured.step_seconds:.3f} s, {self.images_per_second:.1f} images/s"),
            ("whole run", f"about {duration(self.eta_seconds)}"),
            ("memory", f"{_memory(self.measured.peak_gib)} of {_memory(self.limit_gib)}"),
            ("disk", f"{_memory(self.disk_gib)} of {_memory(self.disk_free_gib)} free"),
            ("verdict", self.advice),
        ]


def plan(run: Run, *, memory_gib: float = 0.0) -> Plan:
    """Measure a run without keeping anything of it.

    Args:
        run: What would be trained. Several processes are measured as one, with its share of the batch.
        memory_gib: Memory to fit into; 0 takes what this machine has.

    Raises:
        StudioError: The settings cannot work.
    """
    check(run)
    one = _one_process(run)
    limit = memory_gib or limit_gib(Backend(one.hardware).device)
    measured = measure(one)
    free = shutil.disk_usage(_existing(Path(run.output))).free / _GIB
    needed = measured.checkpoint_gib * (run.loop.keep_checkpoints + 2) + measured.export_gib
    return Plan(
        measured=measured,
        limit_gib=limit,
        eta_seconds=_eta(run, measured),
        disk_gib=needed,
        disk_free_gib=free,
        images_per_second=run.loop.batch_size / measured.step_seconds,
        advice=_advice(one, measured, limit, needed - free),
    )


def measure(run: Run) -> Measured:
    """Time, memory and disk of one run in this process, in a temporary folder beside its output."""
    backend = Backend(run.hardware)
    with tempfile.TemporaryDirectory(dir=_existing(Path(run.output)), prefix=".plan-") as temporary:
        folder = runs.create(dataclasses.replace(run, output=temporary, name="plan"))
        try:
            return _measure(run, folder, backend)
        except torch.OutOfMemoryError:
            phase = Phase(name="out of memory", seconds=math.nan, gib=math.inf)
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


def changes(run: Run) -> Iterator[tuple[str, Run]]:
    """Changes that save memory, with their flags, from the cheapest on; each keeps those before it."""
    rows = run.loop.batch_size * methods.card_of(run.method).rows(run.method)
    parts = [n for n in range(run.loop.accumulate + 1, rows + 1) if rows % n == 0]
    if len(parts) > 1:
        yield f"--loop.accumulate {parts[0]} (same result)", _with(run, loop={"accumulate": parts[0]})
    flags: list[str] = []
    for flag, change in _savers(run, parts):
        run = _with(run, **change)
        flags.append(flag)
        yield " ".join(flags), run


def _savers(run: Run, parts: list[int]) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    quantizes = importlib.util.find_spec("bitsandbytes") is not None
    if parts:
        yield f"--loop.accumulate {parts[-1]} (same result)", {"loop": {"accumulate": parts[-1]}}
    if not run.hardware.gradient_checkpointing:
        flag = "--hardware.gradient-checkpointing True (same result, slower)"
        yield flag, {"hardware": {"gradient_checkpointing": True}}
    if quantizes and run.optim.name == "adamw":
        yield "--optim.name adamw8bit (close to the same result)", {"optim": {"name": "adamw8bit"}}
    if not run.hardware.offload:
        yield "--hardware.offload True (same result, slower)", {"hardware": {"offload": True}}
    if quantizes and run.hardware.quantize == "none":
        yield "--hardware.quantize nf4 (frozen weights in 4 bits)", {"hardware": {"quantize": "nf4"}}


def _with(run: Run, **parts: dict[str, Any]) -> Run:
    changed = {name: dataclasses.replace(getattr(run, name), **values) for name, values in parts.items()}
    return dataclasses.replace(run, **changed)


def _advice(run: Run, measured: Measured, limit: float, disk_short: float) -> str:
    if disk_short > 0:
        return f"the disk lacks {_memory(disk_short)}; free it, choose another --output or keep fewer checkpoints"
    if measured.peak_gib <= limit:
        return "fits"
    for flags, changed in changes(run):
        tried = measure(changed)
        if tried.peak_gib <= limit:
            slower = tried.step_seconds / measured.step_seconds - 1
            cost = "" if math.isnan(slower) else f", {slower:+.0%} time a step"
            return f"does not fit; cheapest change that does: {flags}: {_memory(tried.peak_gib)}{cost}"
    return "does not fit with any of the memory savers; take a smaller model, resolution or adapter"


def _eta(run: Run, measured: Measured) -> float:
    cost = {phase.name: phase.seconds for phase in measured.phases}
    previews = run.loop.steps // run.preview.every + 1 if run.preview.every else 0
    saves = run.loop.steps // run.loop.checkpoint_every if run.loop.checkpoint_every else 0
    return (
        cost.get("load", 0.0)
        + run.loop.steps * measured.step_seconds
        + previews * cost.get("preview", 0.0)
        + (saves + 1) * cost.get("save", 0.0)
        + cost.get("export", 0.0)
    )


def _one_process(run: Run) -> Run:
    share = run.loop.batch_size // run.hardware.num_processes
    return _with(run, loop={"batch_size": share}, hardware={"num_processes": 1})


def _existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _GIB


def _memory(gib: float) -> str:
    return f"{gib * 1024:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
