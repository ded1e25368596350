"""Does finetuning on half of the names cost the other half, and does OGEN give it back?

Base-to-new on the embedded CLIP over its 40 object names: half base, half new, three splits. The pictures are in styles
that it never saw, turned, half of them small or in a corner and on textures, a few shots a class: it names 78 % of such
pictures right (96 % of those it was made for), so that there is something to gain on the base half and something to
lose on the new one. This was settled on zero-shot accuracy alone, before any method ran.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio import assets
from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result, new_run
from studio.settings import serial
from trainers.ogen import curves

MODEL = "studio-tiny-clip"
TEMPLATES = ("a sticker of {a name}",)
DATA: dict[str, Any] = {
    "scenes": {
        "num_concepts": 40, "styles": ("cartoon", "glossy"), "textured": 0.5, "rotated": 1.0, "mirrored": 0.5,
        "centered": 0.5,
    },
    "train": 8, "test": 16,
}  # fmt: skip
"""Scenes, shots a class and held-out pictures a class."""
SPLITS = (0, 1, 2)
"""How the names are halved: sorted, and two shuffled orders."""
BATCH = 16
"""Pictures a step."""
EPOCH = 10
"""Steps an epoch: 20 classes of 8 shots."""
EPOCHS = {"coop": 24, "whole": 8, "adapted": 8}
"""Long enough to lose what OGEN is to keep; towers take fewer, since a step of theirs costs several times that of a prompt,
whose image tower is asked once."""
RATES = {"coop": 1e-2, "whole": 2e-4, "adapted": 2e-3}
"""Learning rates of AdamW with a cosine, taken once and not tuned for OGEN: high, since the runs are short."""
INNER: dict[str, dict[str, Any]] = {
    "CoOp": {"kind": "coop", "phrase": "a sticker of a"},
    "FLYP": {"kind": "whole"},
    "LoRA": {"kind": "adapted", "adapter": {"kind": "lora", "rank": 8}},
}
WAYS: dict[str, dict[str, Any] | None] = {
    "": None,
    " + OGEN": {},
    " + mean of neighbors": {"invents": "mean", "teacher": {"kind": "no-teacher"}},
}
OTHER_NAMES = (
    "tiger; horse; bear; duck; snake; dolphin; shark; snail; bee; spider; grapes; lemon; pear; tomato; avocado; corn; "
    "bicycle; drum; umbrella; candle"
)
"""The pool that is disjoint from both halves, for one further row."""


def _settings(
    inner: str, way: Mapping[str, Any] | None, order: int, seed: int, request: Reproduce
) -> dict[str, Any]:
    """The whole settings of a run but for its data, checked, as plain values."""
    tuning = INNER[inner]
    kind = tuning["kind"]
    steps = EPOCHS[kind] * EPOCH
    method: dict[str, Any] = {
        "kind": "clip" if way is None else "ogen", "model": MODEL, "tuning": tuning, "templates": TEMPLATES,
        "classes": {"part": "base", "order": order},
        "data": {"train": "DATA", "augment": "none"},
    }  # fmt: skip
    if way is None:
        method["data"]["kind"] = "labelled"
    else:
        teacher = {"kind": "teacher", "period": EPOCH, "horizon": EPOCHS[kind]}
        method |= {"warmup": steps // 5, "refresh": 2 * EPOCH, "teacher": teacher, **way}
    values = {
        "method": method,
        "seed": seed,
        "loop": {
            "steps": steps, "batch_size": BATCH, "checkpoint_every": 0, "log_every": EPOCH,
        },
        "optim": {"lr": RATES[kind], "schedule": "cosine", "weight_decay": 1e-2},
        "hardware": serial.to_dict(request.hardware),
        "trackers": [],
    }  # fmt: skip
    return Run.from_dict(values).to_dict()


def _weights() -> str:
    """Which embedded weights these are."""
    file = assets.root() / "models" / MODEL / "open_clip_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _cells(request: Reproduce) -> Sequence[Cell]:
    """Splits are the units, and outermost, so that a stopped table is a fair one."""
    weights, found = _weights(), list[Cell]()
    for seed in range(request.num_seeds):
        for order in SPLITS[: request.num_units or None]:
            rows = {f"{inner}{name}": (inner, way) for inner in INNER for name, way in WAYS.items()}
            other = {"names": {"kind": "words", "words": [w.strip() for w in OTHER_NAMES.split(";")]}}
            rows["CoOp + OGEN, other names"] = ("CoOp", other)
            found += [
                Cell(
                    variant=variant,
                    unit=f"split {order}",
                    seed=seed,
                    settings={
                        "run": _settings(inner, way, order, seed, request),
                        "data": DATA,
                        "weights": weights,
                    },
                )
                for variant, (inner, way) in rows.items()
            ]
    return found


def _run(cell: Cell, folder: Path) -> Result:
    """Train on the base half, and ask about both halves after each epoch."""
    from studio.data.config import Labelled
    from studio.training.session import Session
    from studio.training.train import train
    from trainers.ogen.exam import Exam
    from trainers.ogen.scenes import write

    key = hashlib.sha256(json.dumps(cell.settings["data"], sort_keys=True).encode()).hexdigest()[:12]
    place = write(folder.parent / f"scenes-{key}", cell.settings["data"])
    run = Run.from_dict(json.loads(json.dumps(dict(cell.settings["run"]))))
    data: Labelled = dataclasses.replace(run.method.data, train=str(place))
    run = dataclasses.replace(
        run, method=dataclasses.replace(run.method, data=data), output=str(folder), name=new_run(folder)
    )
    exams: list[Exam] = []
    order = run.method.classes.order

    def between(session: Session) -> None:
        """Ask before the first step and after each epoch."""
        trainer: Any = session.trainer
        matcher, pictures = trainer.tuned.matcher, trainer.tuned.pictures
        if session.step % _every(run.method.tuning) == 0:
            exams[0].look(matcher, session.step / EPOCH, pictures=pictures)

    exams.append(_first(data, order, run))
    done = [event for event in train(run, between=between) if event["event"] == "done"]
    exam = exams[0]
    return Result(
        measures=exam.measures(),
        seconds=float(done[-1]["seconds"]),
        curves=exam.curves,
        facts=_facts(cell),
    )


def _every(tuning: object) -> int:
    """Steps between two looks: two epochs of towers, four of prompts."""
    return (4 if type(tuning).__name__ == "Coop" else 2) * EPOCH


def _first(data: Any, order: int, run: Any) -> Any:
    """The exam with its first point: the model zero-shot, by the sentences that need no training."""
    from studio.matching.matcher import Matcher
    from studio.models.clip import load_clip
    from trainers.ogen.exam import Exam

    model = load_clip(MODEL).requires_grad_(False)
    exam = Exam(data, order, model.data_config())
    exam.look(Matcher(model, run.method.templates), 0.0, pictures=True)
    return exam


def _facts(cell: Cell) -> dict[str, str]:
    data, loop, optim = (cell.settings["data"], cell.settings["run"]["loop"], cell.settings["run"]["optim"])
    inner = cell.variant.split(" ")[0]
    return {
        "model": MODEL,
        "pictures": f"scenes of 40 objects, styles {' and '.join(data['scenes']['styles'])}, turned, half small or in a corner",
        "shots a class": str(data["train"]),
        "held-out pictures a class": str(data["test"]),
        "before": "zero-shot, a sticker of {a name}",
        f"{inner}, training": f"{loop['steps']} steps of {loop['batch_size']}, AdamW, lr {optim['lr']:g}, cosine",
    }


RECIPE = Recipe(
    title="Names that finetuning forgets",
    question=(
        "The embedded CLIP is finetuned on half of its names, on pictures in styles it never saw. How many pictures of that "
        "half (base) and of the other half (new, asked among themselves) are named right before and after, and does OGEN "
        "keep the new ones, or a plain mean of neighbors in its place?"
    ),
    cells=_cells,
    run=_run,
    charts=curves.write,
)
