"""What a table of classifiers is made of: data and nets, how much is measured on them, and the cells. No torch."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import assets
from studio.errors import StudioError
from studio.evidence.reproduce import Cell, Reproduce
from studio.settings import serial

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
EMBEDDED = "studio-tiny-vit"
ATTACK = {"method.attack.eps": 8.0, "method.attack.steps": 3, "method.attack.step_size": 3.33}
"""Three steps of 1.25 eps / 3 from a random start: short, to keep the tables affordable on a CPU."""
FASHION_PHI, STICKERS_PHI = 20.0, 12.0
"""Half of the drift in degrees that plain adversarial finetuning reached once: 41 after 200 steps, 24 after 50."""
QUIET = {"loop.checkpoint_every": 0, "loop.log_every": 50}
BASE = {
    "loop.steps": 800,
    "loop.batch_size": 64,
    "optim.lr": 1e-3,
    "optim.warmup": 50,
    "optim.schedule": "cosine",
    "optim.weight_decay": 0.05,
}
TUNE = {"optim.schedule": "cosine", "optim.weight_decay": 0.05}
"""What all variants share, beside the unit's own steps, rate and batch."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What a net is measured on.

    Attributes:
        eps: Radii of the attacks on all pictures; the line of weights is measured at the largest.
        suite_images: Pictures for AutoAttack at the largest radius, PGD being measured on the same ones; 0 leaves
            it out. On a CPU a picture that resists costs thousands of forward and backward passes.
        alphas: Points of the line of weights from the base to the finetuned net (WiSE-FT).
    """

    eps: tuple[float, ...] = (2.0, 8.0)
    attacks: tuple[str, ...] = ("pgd",)
    severities: tuple[int, ...] = (1, 3, 5)
    num_images: int = 200
    suite_images: int = 0
    alphas: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Data, the net that all variants start from (trained here from random weights, or ready), and what it can bear.

    Attributes:
        attack: The attack inside of adversarial training: short, to keep the table affordable on a CPU; nets are
            measured with 20 steps and more.
        replay_degrees: ARREST's phi.
        suite_images: As in `Examination`, for recipes that ask for AutoAttack.
    """

    name: str
    data: Mapping[str, Any]
    model: str
    ready: bool = False
    tune: Mapping[str, Any]
    replay_degrees: float
    examination: Examination
    suite_images: int


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method by name and its settings, as dotted names; `attacks` adds the unit's attack inside of training."""

    kind: str
    attacks: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)


def units(bench: str) -> list[Unit]:
    """Fashion-MNIST as Debian packages it (or the folder `bench`), and the stickers of the embedded net.

    Raises:
        StudioError: None of them is on this machine.
    """
    folder = Path(bench) if bench else FASHION
    found = []
    if folder.is_dir():
        found.append(_fashion(folder))
    if assets.exists(f"models/{EMBEDDED}"):
        found.append(_stickers())
    if not found:
        raise StudioError(
            f"There is no labelled data: neither {folder} nor the embedded {EMBEDDED}; install dataset-fashion-mnist (Debian) "
            "or give a folder with --bench.",
            field="bench",
        )
    return found


def _fashion(folder: Path) -> Unit:
    return Unit(
        name=folder.name,
        data={"train": str(folder), "shots": 500, "augment": "none"},
        model="tiny:vit",
        tune={"loop.steps": 200, "loop.batch_size": 64, "optim.lr": 5e-4},
        replay_degrees=FASHION_PHI,
        examination=Examination(alphas=(0.5,)),
        suite_images=40,
    )


def _stickers() -> Unit:
    return Unit(
        name="stickers",
        data={"train": "stickers", "stickers_per_class": 100, "augment": "none"},
        model=EMBEDDED,
        ready=True,
        tune={"loop.steps": 50, "loop.batch_size": 32, "optim.lr": 3e-4},
        replay_degrees=STICKERS_PHI,
        examination=Examination(severities=(3,), num_images=48, alphas=(0.5,)),
        suite_images=8,
    )


def cells(
    request: Reproduce, variants: Mapping[str, Variant], *, suite: bool = False, **asked: Any
) -> list[Cell]:
    """Every variant on every unit with every seed; seeds outermost, so that a stopped table is a fair one.

    A cell's variant names its unit too: means over such different nets would say nothing.

    Args:
        request: Seeds, units and hardware.
        variants: By title.
        suite: Whether AutoAttack runs.
        asked: Fields of `Examination` that replace the units' own.
    """
    found = []
    chosen = units(request.bench)[: request.num_units or None]
    for seed in range(request.num_seeds):
        for unit in chosen:
            shown = dataclasses.replace(
                unit.examination, **{"suite_images": unit.suite_images if suite else 0, **asked}
            )
            for name, variant in variants.items():
                settings = {
                    "base": {} if unit.ready else _values("vit", unit, {**BASE, **QUIET}, seed, request),
                    "run": _values(variant.kind, unit, _finetuning(unit, variant), seed, request),
                    "eval": dataclasses.asdict(shown),
                    "unit": {"model": unit.model, "data": dict(unit.data)},
                }
                found.append(
                    Cell(variant=f"{unit.name}: {name}", unit=unit.name, seed=seed, settings=settings)
                )
    return found


def _finetuning(unit: Unit, variant: Variant) -> dict[str, Any]:
    """A variant's settings on a unit, as dotted names."""
    values = {**TUNE, **QUIET, **unit.tune}
    if variant.attacks:
        values |= {**ATTACK, "method.eps_warmup": unit.tune["loop.steps"] // 10}
    if variant.kind == "arrest":
        values["method.replay.degrees"] = unit.replay_degrees
    return {**values, **variant.values}


def _values(
    kind: str, unit: Unit, dotted: Mapping[str, Any], seed: int, request: Reproduce
) -> dict[str, Any]:
    values = serial.nest(dict(dotted))
    own = {"kind": kind, "model": unit.model, "data": dict(unit.data)}
    values["method"] = {**values.get("method", {}), **own}
    return values | {"seed": seed, "hardware": serial.to_dict(request.hardware)}


def table(variants: Mapping[str, Variant], *, suite: bool = False, **asked: Any) -> Any:
    """The `cells` function of a recipe; the arguments are those of `cells`."""

    def made(request: Reproduce) -> Sequence[Cell]:
        return cells(request, variants, suite=suite, **asked)

    return made
