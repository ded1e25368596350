"""The recipe that methods for classifiers share: the same trained net, finetuned by each variant, then disturbed.

The base is trained once a unit and seed, and measured once; every variant starts from it and takes as many steps.
Torch is imported when a cell runs, not before.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import assets, runs, serial
from studio.errors import StudioError
from studio.reproduce import Cell, Reproduce, Result

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
EMBEDDED = "studio-tiny-vit"
QUIET = {"loop.checkpoint_every": 0, "loop.log_every": 50}
BASE = {
    "loop.steps": 800,
    "loop.batch_size": 64,
    "optim.lr": 1e-3,
    "optim.warmup": 50,
    "optim.schedule": "cosine",
    "optim.weight_decay": 0.05,
}
TUNE = {
    "loop.steps": 200,
    "loop.batch_size": 64,
    "optim.lr": 5e-4,
    "optim.schedule": "cosine",
    "optim.weight_decay": 0.05,
}
"""Same steps, rate and batch for all variants."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Data, and the net that all variants start from: trained here from random weights, or ready."""

    name: str
    data: Mapping[str, Any]
    model: str
    ready: bool = False


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What a net is measured on."""

    eps: tuple[float, ...] = (2.0, 8.0)
    attacks: tuple[str, ...] = ("pgd", "autoattack-mini")
    severities: tuple[int, ...] = (2, 4)
    num_images: int = 200


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method by name and its settings, as dotted names."""

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)


def units(bench: str) -> list[Unit]:
    """Fashion-MNIST as Debian packages it (or the folder `bench`), and the stickers of the embedded net.

    Raises:
        StudioError: None of them is on this machine.
    """
    folder = Path(bench) if bench else FASHION
    found = []
    if folder.is_dir():
        data = {"train": str(folder), "shots": 500, "augment": "none"}
        found.append(Unit(name=folder.name, data=data, model="tiny:vit"))
    if assets.exists(f"models/{EMBEDDED}"):
        data = {"train": "stickers", "stickers_per_class": 100}
        found.append(Unit(name="stickers", data=data, model=EMBEDDED, ready=True))
    if not found:
        raise StudioError(
            f"There is no labelled data: neither {folder} nor the embedded {EMBEDDED}; install dataset-fashion-mnist (Debian) "
            "or give a folder with --bench.",
            field="bench",
        )
    return found


def cells(request: Reproduce, variants: Mapping[str, Variant], examination: Examination) -> list[Cell]:
    """Every variant on every unit with every seed; seeds outermost, so that a stopped table is a fair one."""
    found = []
    chosen = units(request.bench)[: request.num_units or None]
    for seed in range(request.num_seeds):
        for unit in chosen:
            for name, variant in variants.items():
                settings = {
                    "base": {}
                    if unit.ready
                    else _values("vit", unit, {**BASE, **QUIET}, seed, unit.model, request),
                    "run": _values(
                        variant.kind, unit, {**TUNE, **QUIET, **variant.values}, seed, unit.model, request
                    ),
                    "eval": serial_examination(examination),
                    "unit": {"model": unit.model, "data": dict(unit.data)},
                }
                found.append(Cell(variant=name, unit=unit.name, seed=seed, settings=settings))
    return found


def serial_examination(examination: Examination) -> dict[str, Any]:
    """An examination as plain values of `Robustness`."""
    return {
        "attacks": {"names": list(examination.attacks), "eps": list(examination.eps)},
        "severities": list(examination.severities),
        "num_images": examination.num_images,
        "corruptions": "benchmark",
        "checks": False,
    }


def _values(
    kind: str, unit: Unit, dotted: Mapping[str, Any], seed: int, model: str, request: Reproduce
) -> dict[str, Any]:
    values = serial.nest(dict(dotted))
    own = {"kind": kind, "model": model, "data": dict(unit.data)}
    values["method"] = {**values.get("method", {}), **own}
    return values | {"seed": seed, "hardware": serial.to_dict(request.hardware)}


def run(cell: Cell, folder: Path) -> Result:
    """Train the base if it is not there, finetune it by the variant, and measure both."""
    base, before = _base(cell, folder.parent)
    values = json.loads(json.dumps(dict(cell.settings["run"])))
    values["method"]["model"] = base
    started = time.monotonic()
    trained = _train(values, folder)
    seconds = time.monotonic() - started
    after = _measure(cell, str(trained), folder / "robustness")
    pairs = {name: (before[name], value) for name, value in after.items()}
    return Result(measures=pairs, seconds=seconds, facts=_facts(cell, folder))


def _base(cell: Cell, folder: Path) -> tuple[str, dict[str, float]]:
    """The net that the variants start from, and its measures; both kept for the other cells."""
    wanted = {
        "base": cell.settings["base"],
        "eval": cell.settings["eval"],
        "unit": cell.settings["unit"],
        "seed": cell.seed,
    }
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    place = folder / f"base-{key}"
    model = cell.settings["unit"]["model"] if not cell.settings["base"] else str(place / "run")
    if cell.settings["base"]:
        _train(cell.settings["base"], place)
    file = place / "measures.json"
    if not file.exists():
        measures = _measure(cell, model, place / "robustness")
        file.parent.mkdir(parents=True, exist_ok=True)
        runs.write_text(file, json.dumps(measures) + "\n")
    return model, json.loads(file.read_text(encoding="utf-8"))


def _train(values: Mapping[str, Any], folder: Path) -> Path:
    """Train a run in `folder`, or go on with one that was stopped there; gives its folder."""
    from studio.train import resume, run_to_end

    place = folder / "run"
    if not (place / "config.json").exists():
        return run_to_end(runs.build({**values, "output": str(folder), "name": "run"})).path
    if runs.RunFolder(place).status() != "done":
        for _ in resume(place):
            pass
    return place


def _measure(cell: Cell, model: str, folder: Path) -> dict[str, float]:
    from studio.robustness import evaluate
    from studio.vision.config import Robustness

    asked = {
        "model": model,
        "data": cell.settings["unit"]["data"],
        "output": str(folder),
        **cell.settings["eval"],
    }
    numbers = evaluate(serial.from_dict(Robustness, asked)).numbers
    kept = {
        name: value for name, value in numbers.items() if "/255" in name or name in ("clean accuracy", "ece")
    }
    return {**kept, "corrupted accuracy": 1 - numbers["mean corruption error percent"] / 100}


def _facts(cell: Cell, folder: Path) -> dict[str, str]:
    found: Mapping[str, str] = json.loads(
        (folder / "robustness" / "robustness.json").read_text(encoding="utf-8")
    )["facts"]
    steps = cell.settings["run"]["loop"]
    return {
        "pictures": found["pictures"],
        "corruptions": f"15, severities {list(cell.settings['eval']['severities'])}, {found['corruptions']}",
        "libraries": found["libraries"],
        "device": found["device"],
        "finetuning": f"{steps['steps']} steps of {steps['batch_size']}",
    }


def table(variants: Mapping[str, Variant], examination: Examination = Examination()) -> Any:
    """The `cells` function of a recipe."""

    def made(request: Reproduce) -> Sequence[Cell]:
        return cells(request, variants, examination)

    return made
