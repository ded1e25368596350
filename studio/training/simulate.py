"""What a run would hold on a GPU, counted on the simulated device: no weights, no download, no GPU.

One real step of the method's own code on the model's full shapes. Denoisers of equal blocks run with two and three units
of them, and the rest is counted on (`studio.models.depth`). Axes: `gib` on the device, `host_gib` of models in the
machine's memory.
"""

import contextlib
import dataclasses
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.simulated.mode import Machine, machine
from studio.catalog import methods
from studio.catalog.run import Run
from studio.models.depth import FEWEST
from studio.records import places, runs
from studio.training.loop import fit
from studio.training.measured import GIB, Measured, Phase
from studio.training.session import Session

Parts = dict[str, Counter[str]]
"""Bytes by kind at the highest moment of each part of a phase, before, in and after the denoiser."""


@dataclass(frozen=True)
class _Held:
    """Bytes of one phase: on the device by part and kind, on the host in all."""

    here: Parts
    host: int = 0

    def further(self, deeper: "_Held", times: int) -> "_Held":
        """What so many more units hold, each as much as `deeper` holds more than this."""
        here = {part: _along(kinds, deeper.here[part], times) for part, kinds in self.here.items()}
        return _Held(here, self.host + times * (deeper.host - self.host))

    @property
    def highest(self) -> Counter[str]:
        """Bytes by kind of the part that holds most."""
        return max(self.here.values(), key=Counter.total)


def _along(one: Counter[str], two: Counter[str], times: int) -> Counter[str]:
    return Counter({kind: one[kind] + times * (two[kind] - one[kind]) for kind in {*one, *two}})


def simulate(run: Run, *, exports: bool = True) -> Measured:
    """Peak memory of a run by phase and kind, in one process; times are not known.

    Args:
        run: What would be trained, checked.
        exports: Look at the export too, which takes as long as all the rest; never of a network that is finetuned whole.

    Raises:
        StudioError: The settings cannot work.
    """
    waits, run = run.loop.accumulate > 1, _brief(run)
    held, whole = _phases(run, FEWEST, exports=exports, waits=waits)
    if whole:
        deeper, _ = _phases(run, FEWEST + 1, exports=exports, waits=waits)
        held = {name: each.further(deeper[name], whole - FEWEST) for name, each in held.items()}
    checkpoint, export = (held.pop(name).highest.total() / GIB for name in ("checkpoint", "trained"))
    return Measured(
        phases=tuple(_phase(name, each) for name, each in held.items()),
        step_seconds=math.nan,
        checkpoint_gib=checkpoint,
        export_gib=export,
    )


def _phase(name: str, held: _Held) -> Phase:
    kinds = {kind: size / GIB for kind, size in sorted(held.highest.items()) if size}
    return Phase(name=name, gib=sum(kinds.values()), kinds=kinds, host_gib=held.host / GIB)


def _brief(run: Run) -> Run:
    """The run with as little to do as shows all that it holds."""
    run = methods.card_of(run.method).brief(run)
    short = {field.name: value.brief() for field in dataclasses.fields(run.method)
             if hasattr(value := getattr(run.method, field.name), "brief")}  # fmt: skip
    run = dataclasses.replace(run, method=dataclasses.replace(run.method, **short))
    hardware = dataclasses.replace(run.hardware, device="simulated", num_processes=1, compile=False)
    preview = dataclasses.replace(run.preview, steps=1)
    rows = run.loop.batch_size // run.loop.accumulate
    loop = dataclasses.replace(run.loop, steps=1, epochs=0, log_every=1, accumulate=1, batch_size=rows)
    return dataclasses.replace(run, hardware=hardware, preview=preview, loop=loop)


def _phases(run: Run, units: int, *, exports: bool, waits: bool) -> tuple[dict[str, _Held], int]:
    """Bytes by phase with a denoiser of so many units, and the units it has; 0 if it ran whole."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="studio-plan-")))
        stack.enter_context(places.caches_in(root / "caches"))
        here = stack.enter_context(machine(units=units))
        folder = runs.create(dataclasses.replace(run, output=str(root), name="plan"))
        return dict(_driven(run, folder, here, exports=exports, waits=waits)), here.whole


def _driven(
    run: Run, folder: runs.RunFolder, here: Machine, *, exports: bool, waits: bool
) -> Iterator[tuple[str, _Held]]:
    trainer = methods.card_of(run.method).load_trainer()(run.method)
    session = Session(run, folder, trainer, Backend(run.hardware))
    yield "load", _read(here)
    _ = session.source
    yield "prepare", _read(here)
    backward: Parts = {}
    _watch(session, here, backward)
    list(fit(session.trainer, session.learner, session.backend, session.run, source=session.source))
    states = sum(map(_bytes, _states(session)))
    trained = sum(map(_bytes, session.learner.parameters))
    later = {part: _later(kinds, states, trained if waits else 0) for part, kinds in backward.items()}
    yield "train", _Held({**later, "optimizer": _read(here).highest}, here.host.highest)
    if run.preview.every and session.preview() is not None:
        yield "preview", _read(here)
    if exports and not _whole(session):
        session.export()
        yield "export", _read(here)
    yield "checkpoint", _Held({"": Counter(all=trained + states)})
    yield "trained", _Held({"": Counter(all=trained // 2)})  # written in half precision


def _whole(session: Session) -> bool:
    """Whether a published network is finetuned whole: its export would write all of its weights, which are not there."""
    return any(
        hasattr(group.module, "save_pretrained") and all(p.requires_grad for p in group.module.parameters())
        for group in session.groups
        if group.trains
    )


def _later(kinds: Counter[str], states: int, waiting: int) -> Counter[str]:
    """What a step holds that is not the first: the optimizer's states, and the gradients of a batch's earlier parts."""
    return kinds | Counter(gradients=waiting) | Counter(optimizer=states)


def _watch(session: Session, here: Machine, backward: Parts) -> None:
    """Tell gradients and the optimizer's states apart, and end the backward pass where the optimizer begins."""
    for weight in session.learner.parameters:
        weight.register_post_accumulate_grad_hook(
            lambda w: w.grad is None or here.here.call(w.grad, "gradients")
        )
    optimizer = session.learner.optimizer

    def before(*_: object) -> None:
        for part, kinds in here.read().items():
            backward[part] = max(backward.get(part, kinds), kinds, key=Counter.total)

    def after(*_: object) -> None:
        for state in _moments(
            optimizer, (weight for group in optimizer.param_groups for weight in group["params"])
        ):
            here.meter_of(state).call(state, "optimizer")

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _moments(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor]) -> Iterator[Tensor]:
    for weight in weights:
        yield from (
            value for value in optimizer.state[weight].values() if isinstance(value, Tensor) and value.ndim
        )


def _states(session: Session) -> Iterator[Tensor]:
    yield from _moments(session.learner.optimizer, session.learner.parameters)
    yield from session.learner.ema.shadow if session.learner.ema else ()


def _read(here: Machine) -> _Held:
    found = _Held(here.read(), here.host.highest)
    here.host.reset()
    return found


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
