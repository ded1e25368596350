"""Does DECOR take out what an adapter learned by mistake, better than a lower strength of the adapter does?"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from studio.reproduce import Cell, Recipe, Reproduce, Result
from studio.subject_recipe import TOKEN, Trial, spread, trials, weights_of
from trainers.decor.leaks import Leak, background_leak, object_leak, style_fit, write_references
from trainers.decor.pareto import report

MODEL = "studio-tiny"
ALPHAS = (0.0, 0.25, 0.5, 1.0)
STRENGTHS = (0.4, 0.7)
# A high rate for few steps: an adapter that knows its references by heart, for little work.
TRAINING: dict[str, Any] = {
    "method": {
        "kind": "dreambooth", "model": MODEL, "token": TOKEN, "adapter": {"kind": "lora", "rank": 16, "layers": "blocks"},
        "text_encoder": True, "prior": {"kind": "no-prior"}, "images": {"cache": "latents"},
    },
    "loop": {"steps": 50, "batch_size": 2, "checkpoint_every": 0, "log_every": 20},
    "optim": {"lr": 5e-3},
    "preview": {"every": 0},
}  # fmt: skip
DRAWING = {"num_images": 1, "steps": 8, "guidance": 2.5}


def _cells(request: Reproduce) -> Sequence[Cell]:
    """Both kinds of leak, every subject (for styles: every style), every seed."""
    shared = {
        "training": TRAINING,
        "drawing": DRAWING,
        "weights": weights_of(MODEL),
        "points": [ALPHAS, STRENGTHS],
    }
    found = []
    for seed in range(request.num_seeds):
        for number, trial in enumerate(spread(trials(request.bench), request.num_units)):
            common = {**shared, "seed": seed, "number": number, "class_word": trial.class_word}
            own = {"subject": str(_on_white(trial)), "exam": str(trial.exam)}
            found.append(Cell(variant="background", unit=trial.name, seed=seed, settings={**common, **own}))
            style = object_leak(TOKEN, number)
            unit = f"style {number + 1} on {style.word}"
            found.append(Cell(variant="object", unit=unit, seed=seed, settings={**common, "style": number}))
    return found


def _on_white(trial: Trial) -> Path:
    clean = trial.data / "subject_on_white.png"
    return clean if clean.exists() else trial.data / "0.png"


def _run(cell: Cell, folder: Path) -> Result:
    """Train the leaking adapter; draw its prompts along both curves."""
    from studio import runs, serial
    from studio.train import train

    settings = dict(cell.settings)
    leak = (
        background_leak(settings["class_word"], TOKEN, settings["number"])
        if cell.variant == "background"
        else object_leak(TOKEN, settings["number"])
    )
    write_references(leak, folder / "references", settings)
    name = f"run-{len(list(folder.glob('run-*')))}"
    own = {
        "method": {"kind": "dreambooth", "data": str(folder / "references"), "class_word": settings["class_word"]},
        "output": str(folder), "name": name, "seed": settings["seed"],
    }  # fmt: skip
    events = list(train(runs.build(serial.merge(dict(settings["training"]), own))))
    drawn = _draw(leak, folder / name, folder, settings)
    measures = {
        f"{point}: {key}": (None, value)
        for point, (values, _) in drawn.items()
        for key, value in values.items()
    }
    # The subjects' own pictures stay out of the grid: a benchmark's may not be passed on.
    reference = {"Reference": [str(folder / "references" / "0.png")]} if leak.kind == "object" else {}
    pictures = reference | {point: files for point, (_, files) in drawn.items() if point in SHOWN}
    return Result(
        measures=measures,
        seconds=next(e["seconds"] for e in events if e["event"] == "done"),
        pictures=pictures,
        facts={
            "base model": f"{MODEL} {settings['weights']}",
            "training": f"LoRA of rank 16, {TRAINING['loop']['steps']} steps of {TRAINING['loop']['batch_size']}, lr 5e-3",
            "drawing": f"{len(leak.asked)} prompts, {DRAWING['num_images']} picture each, {DRAWING['steps']} steps, "
            f"guidance {DRAWING['guidance']}",
        },
    )


SHOWN = ("DECOR 0", "DECOR 0.5", "DECOR 1", "strength 0.7", "strength 0.4")


def _draw(
    leak: Leak, artifact: Path, folder: Path, settings: Mapping[str, Any]
) -> dict[str, tuple[dict[str, float], list[str]]]:
    """Scores and files of every point of both curves."""
    from studio import artifacts
    from studio.adapters.strength import set_strength
    from studio.backend.core import Backend
    from studio.config import Hardware
    from studio.models import build
    from studio.models.draw import draw
    from studio.trainer import Request
    from trainers.decor.config import Decor
    from trainers.decor.edit import DecorEdit

    family = build.load(MODEL, Backend(Hardware(device="cpu")))
    artifacts.load(artifact, family, name="leaking")
    points = [(f"DECOR {alpha:g}", alpha, 1.0) for alpha in ALPHAS]
    points += [(f"strength {strength:g}", 0.0, strength) for strength in STRENGTHS]
    found = {}
    for point, alpha, strength in points:
        set_strength(family.modules(), "leaking", strength)
        edit = DecorEdit(Decor(undesired=(leak.word,), strength=alpha, warn_overlap=1.0), family)
        request = Request(prompts=[prompt for prompt, _ in leak.asked], edits=(edit,), **settings["drawing"])
        images = draw(family, request, chunk=8)
        files = [folder / f"{point.replace(' ', '-')}-{i}.png" for i in range(len(images))]
        for image, file in zip(images, files, strict=True):
            image.save(file)
        found[point] = (_scores(leak, images, settings), [str(f) for f in files])
    return found


def _scores(leak: Leak, images: Sequence[Any], settings: Mapping[str, Any]) -> dict[str, float]:
    """Closeness to the text, to what was to be learned, and the leak: 1 where a judge sees the unwanted word instead."""
    from studio.metrics.config import OpenClip

    judge = _jury().text_judge(OpenClip())
    seen = judge.pictures(images)
    wanted = judge.texts([text for _, text in leak.asked]).repeat_interleave(
        settings["drawing"]["num_images"], 0
    )
    fit, leaked = (seen * wanted).sum(1), seen @ judge.texts([leak.told])[0]
    likeness = (
        _likeness(images, settings["exam"])
        if leak.kind == "background"
        else sum(style_fit(image, settings["style"]) for image in images) / len(images)
    )
    return {
        "text similarity": float(fit.mean()),
        "likeness": float(likeness),
        "leakage": float((leaked > fit).float().mean()),
    }


def _likeness(images: Sequence[Any], exam: str) -> float:
    from studio.data.images import read
    from studio.data.layouts import find
    from studio.metrics.build import Evidence
    from studio.metrics.config import Likeness

    references = [read(record.path).rgb for record in find(exam).records]
    return float(
        _jury().scorer(Likeness(), Evidence(references=references))(images, [""] * len(images)).mean()
    )


@cache
def _jury() -> Any:
    from studio.metrics.build import Jury

    return Jury("cpu")


RECIPE = Recipe(
    title="DECOR on adapters that leak on purpose",
    question=(
        "Adapters were trained to leak: a subject that is always seen on one background which no caption names "
        "(background), and a two-tone print style that is always seen on one object (object). At sampling, either DECOR "
        f"removes the leaked word from the prompt's embedding (degrees {ALPHAS}), or the adapter is weakened (strengths "
        f"{STRENGTHS} and 1). Text similarity: CLIP of picture and prompt without the token. Likeness: to the true "
        "pictures of the subject on other backgrounds, or how nearly a picture has the style's two colors. Leakage: share "
        "of pictures in which CLIP sees the leaked thing rather than what the prompt asks for."
    ),
    cells=_cells,
    run=_run,
    more=report,
)
