"""What a run would need: measured here by a few real steps, or counted for a GPU that is not there.

Nothing is estimated from parameter counts. Where the run does not fit, changes are tried from the cheapest on, each in the
same way, until one fits.
"""

import dataclasses
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.backend.core import Backend
from studio.backend.devices import best_device
from studio.backend.peak import limit_gib
from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.settings.memory import CARDS, said
from studio.training.apart import simulating
from studio.training.measure import existing, measure
from studio.training.measured import GIB, Look, Measured
from studio.training.savers import Change, changes

KEPT_GIB = 0.75
"""Of a GPU for its driver, its libraries' work space and what the allocator cannot use (ours; a display takes more)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would need, and what to change where it does not fit.

    Attributes:
        measured: Phases of the run as it was asked for.
        limit_gib: Memory that it may fill.
        ram_gib: Memory of the machine that models may fill beside a GPU; 0 is not looked at.
        change: The cheapest change that makes it fit; None if it fits, or nothing does.
        changed: Phases with that change, or with all of them where nothing fits.
        advice: What to do, in words.
        here: What the same run took on this machine's GPU, where one is and memory was counted for another.
    """

    measured: Measured
    limit_gib: float
    advice: str
    ram_gib: float = 0.0
    change: Change | None = None
    changed: Measured | None = None
    eta_seconds: float = math.nan
    disk_gib: float = 0.0
    disk_free_gib: float = math.inf
    images_per_second: float = math.nan
    here: Measured | None = None

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return _fits(self.measured, self.limit_gib, self.ram_gib) and self.disk_gib <= self.disk_free_gib

    @property
    def flags(self) -> list[str]:
        """What to add to the command so that it fits: nothing if it fits, or nothing does."""
        return " ".join(self.change.flags).split() if self.change else []

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, for machines; what is not known is left out."""
        told = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name != "change" and _known(value)
        }
        return told | {"peak_gib": self.measured.peak_gib, "fits": self.fits, "flags": self.flags}

    def lines(self) -> list[tuple[str, str]]:
        """The plan as (what, how much) for people."""
        found = [(phase.name, phase.line()) for phase in self.measured.phases]
        if _known(self.measured.step_seconds):
            found += [
                ("a step", f"{self.measured.step_seconds:.3f} s, {self.images_per_second:.1f} images/s"),
                ("whole run", f"about {duration(self.eta_seconds)}"),
            ]
        found.append(("memory", f"{said(self.measured.peak_gib)} of {said(self.limit_gib)}"))
        if self.ram_gib:
            found.append(("RAM", f"{said(self.measured.host_gib)} of {said(self.ram_gib)} for models"))
        if self.here:
            found.append(("measured", f"{said(self.here.peak_gib)} on this machine's GPU"))
        free = "" if math.isinf(self.disk_free_gib) else f" of {said(self.disk_free_gib)} free"
        return [*found, ("disk", f"{said(self.disk_gib)}{free}"), ("verdict", self.advice)]


def plan(run: Run, *, gpu: float = 0.0, ram: float = 0.0) -> Plan:
    """What a run needs, without keeping anything of it.

    Args:
        run: What would be trained. Several processes are looked at as one, with its share of the batch.
        gpu: GiB of the GPU to count for, with no GPU, weights or download; 0 measures on this machine.
        ram: GiB of that machine's own memory; 0 is not looked at.

    Raises:
        StudioError: The settings cannot work.
    """
    check(run)
    one = _one_process(run)
    if not gpu:
        free = shutil.disk_usage(existing(Path(run.output))).free / GIB
        limit = limit_gib(Backend(one.hardware).device)
        return _planned(run, one, measure, limit, 0.0, free)
    found = counted(run, gpu=gpu, ram=ram)
    return dataclasses.replace(found, here=measure(one)) if best_device().type == "cuda" else found


def counted(run: Run, *, gpu: float, ram: float = 0.0) -> Plan:
    """What a run, checked, would need of a GPU of so many GiB: see `plan`. Nothing is measured here."""
    free = shutil.disk_usage(existing(Path(run.output))).free / GIB
    with simulating() as look:
        return _planned(run, _one_process(run), look, max(gpu - KEPT_GIB, 0.1), ram, free)


def _planned(run: Run, one: Run, look: Look, limit: float, ram: float, free: float) -> Plan:
    found = look(one)
    needed = found.checkpoint_gib * (run.loop.keep_checkpoints + 2) + found.export_gib
    change, changed = (None, None) if _fits(found, limit, ram) else _cheapest(one, look, limit, ram)
    return Plan(
        measured=found,
        limit_gib=limit,
        ram_gib=ram,
        change=change,
        changed=changed,
        eta_seconds=_eta(run, found),
        disk_gib=needed,
        disk_free_gib=free,
        images_per_second=run.loop.batch_size / found.step_seconds,
        advice=_advice(found, limit, ram, change, changed, needed - free),
    )


def _fits(found: Measured, limit: float, ram: float) -> bool:
    return found.peak_gib <= limit and (not ram or found.host_gib <= ram)


def _cheapest(run: Run, look: Look, limit: float, ram: float) -> tuple[Change | None, Measured | None]:
    """The first change that fits; if not even all together do, none, and what is left with all."""
    tried = list(changes(run))
    if not tried:
        return None, None
    least = look(tried[-1].run, exports=False)
    if not _fits(least, limit, ram):
        return None, least
    first, last = 0, len(tried) - 1  # each change holds less than those before it
    while first < last:
        middle = (first + last) // 2
        if _fits(look(tried[middle].run, exports=False), limit, ram):
            last = middle
        else:
            first = middle + 1
    found = look(tried[last].run)
    return (tried[last], found) if _fits(found, limit, ram) else (None, found)


def _advice(
    found: Measured, limit: float, ram: float, change: Change | None, changed: Measured | None, short: float
) -> str:
    if short > 0:
        return f"the disk lacks {said(short)}; free it, choose another --output or keep fewer checkpoints"
    if _fits(found, limit, ram):
        return "fits"
    if change and changed:
        slower = changed.step_seconds / found.step_seconds - 1
        cost = "" if math.isnan(slower) else f", {slower:+.0%} time a step"
        return f"does not fit; cheapest change that does: {change}: {said(changed.peak_gib)}{cost}"
    least = min((each for each in (found, changed) if each), key=lambda each: each.peak_gib)
    if least.peak_gib <= limit:
        return f"models need {said(least.host_gib)} of RAM, and {said(ram)} are there; take a machine with more, or a smaller model"
    card = next((size for size in CARDS if least.peak_gib <= size - KEPT_GIB), None)
    smallest = f"a GPU of {card} GiB would do" if card else "no GPU of up to 141 GiB would do"
    return (
        f"does not fit, not even with all that saves memory ({said(least.peak_gib)} then): {smallest}; or take a smaller "
        "model, resolution or adapter"
    )


def _eta(run: Run, measured: Measured) -> float:
    cost = {phase.name: phase.seconds or 0.0 for phase in measured.phases}
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
    loop, hardware = (
        dataclasses.replace(run.loop, batch_size=share),
        dataclasses.replace(run.hardware, num_processes=1),
    )
    return dataclasses.replace(run, loop=loop, hardware=hardware)


def _known(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
