"""One cell of a table of classifiers: train the base if it is not there, finetune it, disturb both.

The base is trained once a unit and seed, and measured once; every variant starts from it and takes as many steps.
Torch is imported when a cell runs, not before.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Result
from studio.records import runs
from studio.settings import serial

if TYPE_CHECKING:
    from studio.evaluation.robustness import Found


def run(cell: Cell, folder: Path) -> Result:
    """Train the base if it is not there, finetune it by the variant, and measure both."""
    base, before = _base(cell, folder.parent.parent / "classifier-bases")
    values = json.loads(json.dumps(dict(cell.settings["run"])))
    values["method"]["model"] = base
    started = time.monotonic()
    trained = _train(values, folder)
    seconds = time.monotonic() - started
    measured = _measure(cell, str(trained), folder / "robustness", before=base)
    pairs = {name: (before.get(name), value) for name, value in measured.numbers.items()}
    return Result(
        measures=pairs, seconds=seconds, facts=_facts(cell, measured.facts), pictures=_pictures(cell, folder)
    )


def _pictures(cell: Cell, folder: Path) -> dict[str, list[str]]:
    """What fooled the net first, and how the picture was changed (stretched to be seen)."""
    name = cell.variant.removeprefix(f"{cell.unit}: ")
    shown = {"Changed": "change", "Attacked": "attacked"}
    files = {kind: sorted(map(str, folder.rglob(f"*-{end}.png")))[:1] for kind, end in shown.items()}
    return {f"{kind}: {name}": found for kind, found in files.items() if found}


def _base(cell: Cell, folder: Path) -> tuple[str, dict[str, float]]:
    """The net that the variants start from, and its measures; both kept for the other cells and recipes."""
    trains = dict(cell.settings["base"])  # says the seed, too; a ready net has none
    place = folder / _key({"base": trains, "unit": cell.settings["unit"]})
    model = str(_train(trains, place)) if trains else cell.settings["unit"]["model"]
    measured = place / _key(cell.settings["eval"])
    file = measured / "measures.json"
    if not file.exists():
        numbers = _measure(cell, model, measured).numbers
        runs.write_text(file, json.dumps(numbers) + "\n")
    return model, json.loads(file.read_text(encoding="utf-8"))


def _key(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:12]


def _train(values: Mapping[str, Any], folder: Path) -> Path:
    """Train a run in `folder`, or go on with one that was stopped there; gives its folder."""
    from studio.training.train import resume, run_to_end

    place = folder / "run"
    if not (place / "config.json").exists():
        return run_to_end(Run.from_dict({**values, "output": str(folder), "name": "run"})).path
    if runs.RunFolder(place).status() != "done":
        for _ in resume(place):
            pass
    return place


@dataclass(frozen=True)
class Measured:
    """Numbers for the table, and what decides how to read them."""

    numbers: Mapping[str, float]
    facts: Mapping[str, str]


def _measure(cell: Cell, model: str, folder: Path, before: str = "none") -> Measured:
    """Disturb a net as the cell asks; with `before` along the line of weights from there, too."""
    asked = cell.settings["eval"]
    few = {"names": ["pgd", "autoattack"], "eps": [max(asked["eps"])]}
    most = {"names": asked["attacks"], "eps": asked["eps"]}
    found = _evaluated(
        cell,
        {
            "model": model,
            "attacks": most,
            "num_images": asked["num_images"],
            "corruptions": "benchmark",
            "severities": asked["severities"],
            "before": before if asked["alphas"] else "none",
            "alphas": asked["alphas"] or [1.0],
            "output": str(folder),
        },
    )
    numbers = {
        name: value
        for name, value in found.numbers.items()
        if ("/255" in name and not name.startswith("all attacks")) or name in ("clean accuracy", "ece")
    }
    numbers["corrupted accuracy"] = 1 - found.numbers["mean corruption error percent"] / 100
    numbers |= {
        f"WiSE-FT {point['alpha']:g}, {name}": value
        for point in found.line
        for name, value in point.items()
        if name != "alpha"
    }
    if asked["suite_images"]:
        suite = {"model": model, "attacks": few, "num_images": asked["suite_images"], "corruptions": "none"}
        stood = _evaluated(cell, {**suite, "before": "none", "output": str(folder / "suite")}).numbers
        numbers |= {
            f"{name}, {asked['suite_images']} pictures": value
            for name, value in stood.items()
            if name.startswith(("pgd", "autoattack"))
        }
    return Measured(numbers, found.facts)


def _evaluated(cell: Cell, asked: Mapping[str, Any]) -> "Found":
    from studio.evaluation.robustness import evaluate
    from studio.vision.config import Robustness

    values = {"data": cell.settings["unit"]["data"], "checks": False, **asked}
    return evaluate(serial.from_dict(Robustness, values))


def _facts(cell: Cell, found: Mapping[str, str]) -> dict[str, str]:
    steps, unit, attack = (
        cell.settings["run"]["loop"],
        cell.unit,
        cell.settings["run"]["method"].get("attack"),
    )
    facts = {
        f"{unit}, pictures": found["pictures"],
        f"{unit}, corruptions": f"15, severities {list(cell.settings['eval']['severities'])}, {found['corruptions']}",
        f"{unit}, finetuning": f"{steps['steps']} steps of {steps['batch_size']}",
        "libraries": found["libraries"],
        "device": found["device"],
    }
    if attack:
        facts["attack in training"] = (
            f"{attack['steps']} steps of {attack['step_size']}/255 at {attack['eps']:g}/255"
        )
    return facts
