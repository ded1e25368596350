"""The recipe that methods of personalization share: train each variant on each subject, judge it against its base.

Torch is imported when a cell runs, not before.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from studio import assets
from studio.catalog import methods
from studio.catalog.presets import starting
from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Reproduce, Result, new_run
from studio.settings import serial

TOKEN = "sks"
"""Word of the subject in all recipes and in the captions of the benchmark."""
SAMPLE = ("unicorn", "animal")
"""The sample subject that comes with the studio, and its class."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a method: a preset of its card (empty takes the model's own), and values over it."""

    preset: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Dotted names of settings to values."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A subject to learn: training pictures, and prompts with true pictures that training does not see."""

    name: str
    class_word: str
    data: Path
    exam: Path
    """Folder of the pictures that likeness is measured against."""
    prompts: tuple[tuple[str, str], ...]
    """Prompt and true picture ("" if there is none); empty takes the captions of the exam's pictures."""


def trials(bench: str) -> list[Trial]:
    """The subjects of a benchmark's folder, or the sample subject."""
    if not bench:
        name, class_word = SAMPLE
        data, held_out = assets.path(f"samples/{name}"), assets.path(f"samples/{name}_held_out")
        return [Trial(name=name, class_word=class_word, data=data, exam=held_out, prompts=())]
    from studio.data import dreambench

    return [
        Trial(
            name=subject.name,
            class_word=subject.class_name,
            data=subject.references[0].parent,
            exam=subject.references[0].parent,
            prompts=tuple(
                (subject.prompt(i, TOKEN), str(subject.targets[i].resolve()) if i in subject.targets else "")
                for i in range(len(subject.prompts))
            ),
        )
        for subject in dreambench.load(bench).subjects
    ]


def cells(
    request: Reproduce, method: str, variants: Mapping[str, Variant], examination: Mapping[str, Any]
) -> list[Cell]:
    """Every variant on every subject with every seed; subjects first, so that a stopped table is a fair one.

    Args:
        request: Which benchmark, how many subjects and seeds.
        method: Name of the method.
        variants: Ways to run it, by name.
        examination: Values of `SubjectEval`, such as the pictures a prompt.
    """
    subjects = spread(trials(request.bench), request.num_units)
    found = []
    for seed in range(request.num_seeds):
        for trial in subjects:
            for name, variant in variants.items():
                run_settings = _run(method, variant, trial, seed, request)
                settings = {
                    "run": run_settings,
                    "weights": weights_of(str(run_settings["method"].get("model", ""))),
                    "eval": {
                        "data": str(trial.exam),
                        "class_word": trial.class_word,
                        "token": TOKEN,
                        **examination,
                    },
                    "prompts": [list(pair) for pair in trial.prompts],
                }
                found.append(Cell(variant=name, unit=trial.name, seed=seed, settings=settings))
    return found


def spread(subjects: Sequence[Trial], number: int) -> list[Trial]:
    """Some of the subjects, evenly over the list, which is sorted by kind; all for 0."""
    wanted = min(number or len(subjects), len(subjects))
    return [subjects[i * len(subjects) // wanted] for i in range(wanted)]


def _run(method: str, variant: Variant, trial: Trial, seed: int, request: Reproduce) -> dict[str, Any]:
    """The whole settings of a cell's run, checked, as plain values."""
    card = methods.card(method)
    given = serial.nest(dict(variant.values))
    values = serial.merge(starting(card, preset=variant.preset, own=given.get("method", {})).values, given)
    own = {"kind": method, "data": str(trial.data), "class_word": trial.class_word, "token": TOKEN}
    values |= {"method": {**values.get("method", {}), **own}, "seed": seed}
    values = serial.merge(values, {"hardware": serial.to_dict(request.hardware)})
    return Run.from_dict(values).to_dict()


@cache
def weights_of(model: str) -> str:
    """A short name for the bytes of an embedded model, which may be trained anew under its old name; else empty."""
    if not model or not assets.exists(f"models/{model}"):
        return ""
    digest = hashlib.sha256()
    for file in sorted(assets.path(f"models/{model}").rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def run(cell: Cell, folder: Path) -> Result:
    """Train a cell and judge it; everything is kept in the cell's folder."""
    from studio.evaluation.subject import evaluate
    from studio.metrics.config import SubjectEval
    from studio.training.train import train

    settings = cell.settings
    place = {"output": str(folder), "name": new_run(folder)}
    events = list(train(Run.from_dict(serial.merge(dict(settings["run"]), place))))
    artifact = folder / place["name"]
    pairs = [{"prompt": prompt, "target": target} for prompt, target in settings["prompts"]]
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps(pairs, indent=1), encoding="utf-8")
    request = serial.from_dict(
        SubjectEval,
        {
            **settings["eval"],
            "artifact": str(artifact),
            "prompts": str(prompts) if pairs else "",
            "output": str(folder / "eval"),
            "keep_base": str(folder.parent / "base-pictures"),
            "hardware": settings["run"]["hardware"],
        },
    )
    found = evaluate(request)
    return Result(
        measures={row.name: (row.base.mean if row.base else None, row.tuned.mean) for row in found.rows},
        seconds=next(e["seconds"] for e in events if e["event"] == "done"),
        pictures=_pictures(found.folder, Path(str(settings["eval"]["data"])), settings["prompts"]),
        facts=_facts(settings, events, json.loads(found.scores.read_text(encoding="utf-8"))),
    )


def _pictures(folder: Path, data: Path, prompts: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    def first(place: Path) -> list[str]:
        return [str(p) for p in sorted(place.glob("0.*"))[:1]]

    drawn = {
        "Base": first(folder / "pictures" / "base" / "subject"),
        "trained": first(folder / "pictures" / "trained" / "subject"),
    }
    if assets.root() not in data.parents:  # a benchmark's own pictures may not be passed on
        return drawn
    target = [prompts[0][1]] if prompts and prompts[0][1] else []
    return {"Reference": first(data), **drawn, "True picture": target}


def _facts(
    settings: Mapping[str, Any], events: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]
) -> dict[str, str]:
    start = next(e for e in events if e["event"] == "start")
    hardware = [f for f in start.get("facts", ()) if f.startswith(("device:", "precision:"))]
    request = scores["request"]
    drawing = (
        f"{request['num_images']} pictures a prompt, {request['steps']} steps, guidance {request['guidance']}"
    )
    model = f"{settings['run']['method'].get('model', '')} {settings['weights']}".strip()
    return {
        "base model": model,
        "hardware": "; ".join(hardware),
        "judges": str(scores["judges"]),
        "drawing": drawing,
    }
