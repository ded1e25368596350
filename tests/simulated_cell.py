"""One method on one model in one way, driven on the simulated device, and what is asked of every such run."""

import dataclasses
import gc
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from studio.adapters.config import Full
from studio.backend.core import Backend
from studio.backend.precision import kept_exact
from studio.backend.simulated.autocast import NAME
from studio.backend.simulated.device import install
from studio.backend.simulated.meter import BLOCK
from studio.backend.simulated.mode import Machine, machine
from studio.catalog import methods
from studio.catalog.run import Run
from studio.contracts.trainer import Loss
from studio.errors import StudioError
from studio.models.base import Family
from studio.records import places, runs
from studio.settings.run import Hardware
from studio.training.loop import fit
from studio.training.session import Session
from tests.on_families import run_of

install()  # before a case that trains a model of its own
DEVICE = Hardware(device="simulated", precision="bf16")
WAYS = ("adapter", "whole", "text", "offload", "cache")
"""What trains, and what leaves the device: an adapter, all of the denoiser, text encoders too; parts rest; data is cached."""
LONGEST = 500
"""Letters of one sentence."""
THROUGH = {"draft": {"vae"}, "textual_inversion": {"text_encoder", "text_encoder_2"}}
"""Frozen parts that a method's gradient goes back through: they stay on the device."""


@dataclass(frozen=True)
class Counted:
    """What a run did on the device.

    Attributes:
        reads: Values that the second step read back: each makes a GPU wait.
        in_loss: Those of them that the loss read.
        left: Bytes on the device after the steps that are no module's, gradient or optimizer state.
        highest: Bytes at the highest moment of the steps.
    """

    reads: int
    in_loss: int
    left: int
    highest: int

    def words(self) -> str:
        """Reads of a step."""
        return f"{self.reads}"


def applies(method: str, family: str, way: str, folder: Path) -> Run | None:
    """A method's case in one way; None where the method has no such way.

    Raises:
        StudioError: The settings are refused.
    """
    usual = run_of(method, family, folder, DEVICE)
    changes = _changes(usual.method, way)
    if changes is None:
        return None
    try:
        return dataclasses.replace(
            usual,
            method=dataclasses.replace(usual.method, **changes),
            hardware=dataclasses.replace(DEVICE, offload=way == "offload"),
            loop=dataclasses.replace(usual.loop, log_every=1000),
            preview=dataclasses.replace(usual.preview, steps=1),
        )
    except ValidationError:
        return None


def _changes(case: Any, way: str) -> dict[str, Any] | None:
    """What to change of a case, or None where there is nothing of the kind."""
    text = {"text_encoder": False} if hasattr(case, "text_encoder") else {}
    match way:
        case "offload":
            return {}
        case "adapter":
            return text
        case "whole":
            return {**text, "adapter": Full()} if hasattr(case, "adapter") else None
        case "text" if hasattr(case, "text_encoder"):
            return {"text_encoder": True}
        case "text":
            return {"trains": "text-encoder"} if getattr(case, "trains", "") == "denoiser" else None
        case "cache" if hasattr(case, "images") and hasattr(case.images, "cache"):
            kept = "latents+text" if hasattr(case, "text_encoder") else "latents"
            return {**text, "images": dataclasses.replace(case.images, cache=kept)}
    return None


def driven(run: Run, way: str, folder: Path) -> Counted:
    """Set a run up, train two steps, draw, save and export, and ask at each place what must be so there."""
    with places.caches_in(folder / "caches"), machine() as here:
        trainer = methods.card_of(run.method).load_trainer()(run.method)
        session = Session(run, runs.create(run), trainer, Backend(run.hardware))
        _types(session)
        _ = session.source
        in_loss = _Watched(session, here)
        here.reads, reads = 0, [0]
        here.here.reset()
        for _ in fit(session.trainer, session.learner, session.backend, session.run, source=session.source):
            reads.append(here.reads)
            _places(session, run, way)
        highest, left = here.here.highest, _left(session, here)
        session.preview()
        session.validate()
        session.save()
        session.export()
    return Counted(reads[-1] - reads[-2], in_loss.reads, left, highest)


class _Watched:
    """Asks of a trainer's loss, before its gradient: are all weights on the device those of modules?"""

    def __init__(self, session: Session, here: Machine) -> None:
        self.reads, self._here, self._loss = 0, here, session.trainer.loss
        session.trainer.loss = self

    def __call__(self, *given: Any) -> Loss:
        before = self._here.reads
        found = self._loss(*given)
        self.reads = self._here.reads - before
        held, own = self._here.here.now["weights"], _bytes(_weights())
        assert held <= own, (
            f"{held - own} bytes of weights are of no module, or of one that left before the gradient"
        )
        return found


def _types(session: Session) -> None:
    """Trained weights are fp32, a model's frozen ones in the compute dtype, but for those that are kept exact."""
    trained = {id(p) for group in session.groups if group.trains for p in group.parameters().values()}
    wrong = [p.dtype for group in session.groups if group.trains for p in group.parameters().values()
             if p.requires_grad and p.dtype != torch.float32]  # fmt: skip
    assert not wrong, f"{len(wrong)} trained weights are {wrong[0]}"
    for part, module in _parts(session).items():
        exact = {name for name, _ in kept_exact(module, session.backend.dtype)}
        for name, value in module.named_parameters():
            if id(value) not in trained and name not in exact:
                assert value.dtype == session.backend.dtype, f"{part}.{name} is frozen and {value.dtype}"


def _places(session: Session, run: Run, way: str) -> None:
    """What trains and the denoiser are on the device; with ways that take parts off it, the other parts are not."""
    for group in session.groups:
        away = [name for name, p in group.parameters().items() if group.trains and p.device.type != NAME]
        assert not away, f"{group.name}.{away[0]} trains on the CPU"
    stays = THROUGH.get(methods.card_of(run.method).name, set())
    for part, module in _parts(session).items():
        own = list(module.parameters())
        trains = any(p.requires_grad for p in own)
        if (
            part == session.trainer.family.denoiser_name
            or trains
            or part in stays
            or way not in ("offload", "cache")
        ):
            wanted = NAME
        elif way == "offload" or part == "vae" or run.method.images.cache == "latents+text":
            wanted = "cpu"
        else:
            wanted = NAME
        found = {p.device.type for p in own}
        assert found == {wanted}, f"{part} is on {' and '.join(sorted(found))} between steps, not on {wanted}"


def _parts(session: Session) -> dict[str, nn.Module]:
    family = getattr(session.trainer, "family", None)
    return family.modules() if isinstance(family, Family) else {}


def _left(session: Session, here: Machine) -> int:
    """Bytes on the device that are not of a module, a gradient or the optimizer."""
    tensors = [*_weights()]
    tensors += [
        value
        for moments in session.learner.optimizer.state.values()
        for value in moments.values()
        if _is_here(value)
    ]
    tensors += [p.grad for p in session.learner.parameters if p.grad is not None]
    return here.here.total - _bytes(iter(tensors))


def _weights() -> Iterator[Tensor]:
    """Parameters and buffers on the device of all modules there are."""
    gc.collect()
    for module in [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]:
        yield from (v for v in (*module._parameters.values(), *module._buffers.values()) if _is_here(v))


def _is_here(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _bytes(tensors: Iterator[Tensor]) -> int:
    """Bytes of distinct storages, in blocks."""
    sizes = {each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in tensors}
    return sum(-(-size // BLOCK) * BLOCK for size in sizes.values())


def tried(method: str, family: str, way: str) -> Counted | str | None:
    """What came of a method on a family in a way: counts, the sentence of a refusal, or None where there is no such way."""
    with tempfile.TemporaryDirectory() as root:
        try:
            run = applies(method, family, way, Path(root))
            return driven(run, way, Path(root)) if run else None
        except StudioError as error:
            said = str(error)
            assert "\n" not in said, f"not one sentence: {said!r}"
            assert 0 < len(said) <= LONGEST, f"not one sentence: {said!r}"
            return said
