"""Does DECOR take out what an adapter learned by mistake, better than a lower strength of the adapter does?"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result
from studio.evidence.subjects import TOKEN, Trial, spread, trials, weights_of
from trainers.decor.leaks import (
    NUM_REFERENCES,
    Leak,
    background_leak,
    object_leak,
    style_fit,
    write_references,
)
from trainers.decor.pareto import report

MODEL = "studio-tiny"
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.0, 0.4, 0.7)
"""0 is the base model: the same prompts and seeds without what was learned, the floor of every measure."""
TRAINING: dict[str, Any] = {
    "method": {
        "kind": "dreambooth", "model": MODEL, "token": TOKEN, "adapter": {"kind": "lora", "rank": 16, "layers": "blocks"},
        "text_encoder": True, "text_encoder_lr": 5e-3, "prior": {"kind": "no-prior"}, "images": {"cache": "latents"},
    },
    "loop": {"steps": 100, "batch_size": 4, "checkpoint_every": 0, "log_every": 20},
    "optim": {"lr": 1e-3},
    "preview": {"every": 0},
}  # fmt: skip
"""A high rate for the text encoder: what all references share goes into the token's own embedding. Chosen by the leakage
at strength 1 without DECOR alone (aim: 60 % for both kinds), never by what DECOR does."""
DRAWING = {"num_images": 3, "steps": 8, "guidance": 2.5}
CARRIERS = {
    "background": ("a sticker on {}", "a picture on {}", "{}"),
    "object": ("a sticker of a {}", "a picture of a {}", "{}"),
}
"""Around the unwanted words, in the words of the base's captions, which hold no photos."""


def _cells(request: Reproduce) -> Sequence[Cell]:
    """Both kinds of leak, every subject (for styles: every style), every seed."""
    shared = {
        "training": TRAINING,
        "drawing": DRAWING,
        "weights": weights_of(MODEL),
        "points": [ALPHAS, STRENGTHS],
        "carriers": CARRIERS,
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
    from studio.settings import serial
    from studio.training.train import train

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
    events = list(train(Run.from_dict(serial.merge(dict(settings["training"]), own))))
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
        facts=_facts(settings),
    )


def _facts(settings: Mapping[str, Any]) -> dict[str, str]:
    loop, each = TRAINING["loop"], DRAWING["num_images"]
    return {
        "base model": f"{MODEL} {settings['weights']}",
        "training": f"LoRA of rank 16, {loop['steps']} steps of {loop['batch_size']}, lr {TRAINING['optim']['lr']:g}, text "
        f"encoder {TRAINING['method']['text_encoder_lr']:g}; {NUM_REFERENCES} references whose captions do not name what "
        "they share; chosen by the leakage at strength 1 without DECOR alone",
        "drawing": f"3 prompts that name no background or object (leakage), 3 that name another (text similarity), {each} "
        f"pictures each, {DRAWING['steps']} steps, guidance {DRAWING['guidance']}",
        "judge of objects": f"right on {_object_judge().accuracy:.0%} of prints that it was not fitted on",
    }


SHOWN = ("strength 0", "DECOR 0", "DECOR 0.5", "DECOR 1", "strength 0.7", "strength 0.4")


def _draw(
    leak: Leak, artifact: Path, folder: Path, settings: Mapping[str, Any]
) -> dict[str, tuple[dict[str, float], list[str]]]:
    """Scores and files of every point of both curves."""
    from studio.adapters.strength import set_strength
    from studio.backend.core import Backend
    from studio.contracts.sampling import Request
    from studio.models import build
    from studio.models.draw import draw
    from studio.settings.run import Hardware
    from studio.weights import artifacts
    from trainers.decor.config import Decor
    from trainers.decor.edit import DecorEdit

    family = build.load(MODEL, Backend(Hardware(device="cpu")))
    artifacts.load(artifact, family, name="leaking")
    points = [(f"DECOR {alpha:g}", alpha, 1.0) for alpha in ALPHAS]
    points += [(f"strength {strength:g}", 0.0, strength) for strength in STRENGTHS]
    prompts = [*leak.silent, *(prompt for prompt, _ in leak.asked)]
    found = {}
    for point, alpha, strength in points:
        set_strength(family.modules(), "leaking", strength)
        decor = Decor(
            undesired=(leak.undesired,), carriers=CARRIERS[leak.kind], strength=alpha, warn_overlap=1.0
        )
        request = Request(prompts=prompts, edits=(DecorEdit(decor, family),), **settings["drawing"])
        images = draw(family, request, most=9)
        files = [folder / f"{point.replace(' ', '-')}-{i}.png" for i in range(len(images))]
        for image, file in zip(images, files, strict=True):
            image.save(file)
        found[point] = (_scores(leak, images, folder / "references", settings), [str(f) for f in files])
    return found


def _scores(
    leak: Leak, images: Sequence[Any], references: Path, settings: Mapping[str, Any]
) -> dict[str, float]:
    """Closeness to the text, to what was to be learned, and the share of pictures that show the leak."""
    each = settings["drawing"]["num_images"]
    first, wanted = len(leak.silent) * each, [name for _, name in leak.asked for _ in range(each)]
    if leak.kind == "background":
        leaks = _on_its_background(leak, images, references)
        fit, likeness = _clip_fit(images[first:], wanted), _likeness(images, settings["exam"])
    else:
        seen = _object_judge()(images)
        leaks = [name == leak.word for name in seen]
        fit = _share(name == asked for name, asked in zip(seen[first:], wanted, strict=True))
        likeness = sum(style_fit(image, settings["style"]) for image in images) / len(images)
    return {
        "text similarity": fit,
        "likeness": likeness,
        "leakage": _share(leaks[:first]),
        "leakage where another is named": _share(leaks[first:]),
    }


def _share(facts: Iterable[bool]) -> float:
    found = list(facts)
    return sum(found) / len(found)


def _on_its_background(leak: Leak, images: Sequence[Any], references: Path) -> list[bool]:
    from studio.data.images import read
    from trainers.decor.judges import on_background

    shown = [read(file).rgb for file in sorted(references.glob("*.png"))]
    return on_background(images, leak.word, shown)


def _clip_fit(images: Sequence[Any], texts: Sequence[str]) -> float:
    from studio.metrics.config import OpenClip

    judge = _jury().text_judge(OpenClip())
    return float((judge.pictures(images) * judge.texts(texts)).sum(1).mean())


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


@cache
def _object_judge() -> Any:
    from studio.metrics.config import Likeness
    from trainers.decor.judges import ObjectJudge

    return ObjectJudge(_jury().judge(Likeness().backbone))


RECIPE = Recipe(
    title="DECOR on adapters that leak on purpose",
    question=(
        "Adapters were trained to leak: a subject that is always seen on one background (background), and a two-tone print "
        "style that is always seen on one object (object); no caption names what the references share. At sampling, either "
        f"DECOR removes the leaked words from the prompt's embedding (degrees {ALPHAS}), or the adapter is weakened "
        f"(strengths {STRENGTHS} and 1; 0 is the base model, the floor). Leakage: share of pictures that show the leaked "
        "background or object, of prompts that name none (a group, such as 'food', for objects); beside it, of prompts that "
        "name another. Text similarity, of the prompts that name another: CLIP of picture and prompt without the token; for "
        "styles, whose prints CLIP cannot read, the share of pictures in which the judge of objects sees the named one. "
        "Likeness: to the true pictures of the subject on other backgrounds, or how nearly a picture has the style's two colors."
    ),
    cells=_cells,
    run=_run,
    more=report,
)
