"""Does the reward of being found make captions that another listener understands, too, or only the one that paid?

The captioner that comes with the studio is finetuned on scenes of its own domain and examined in it and outside of it.
Torch is imported when a cell runs, not before.
"""

import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result, new_run
from studio.evidence.tables import GAP, INK, MARGIN, PAPER, SOFT, TILE, Finished
from studio.records import runs
from studio.settings import serial
from studio.settings.run import Hardware

if TYPE_CHECKING:
    from studio.models.captioner import Captioner
    from trainers.captioner.exam import Exam
    from trainers.captioner.listener import Listener

DOMAINS: dict[str, dict[str, Any]] = {
    "in domain": {"scenes": {"styles": ["3d", "flat"]}, "held_out": False},
    "unseen pairs": {"scenes": {"styles": ["3d", "flat"]}, "held_out": True},
    "unseen styles": {"scenes": {"styles": ["cartoon", "glossy"]}, "held_out": False},
}
"""What the captioner is examined on; it has learned from the first alone."""
VARIANTS: dict[str, dict[str, Any]] = {"DiscriTune": {"baseline": "batch"}}
BASE, REWARDING = "captioner-tiny", "studio-tiny-clip"
TRAINING = {
    "loop": {"steps": 300, "batch_size": 50, "log_every": 10, "checkpoint_every": 0},
    "optim": {"lr": 5e-5, "weight_decay": 0.0},
}
EXAMINED = {"candidates": 100, "rounds": 3}
SHOWN = 6
"""Scenes whose captions are shown, before and after."""
COLUMN = 480
"""Pixels of a picture and its captions."""
PAID, OTHER = "P@1 by the rewarding CLIP", "P@1 by another retriever"


def cells(request: Reproduce) -> Sequence[Cell]:
    """Each seed: rewards are normalized over the batch, which an independent reproduction found best."""
    found: list[Cell] = []
    for seed in range(request.num_seeds):
        for name, objective in VARIANTS.items():
            method = {
                "kind": "captioner",
                "model": BASE,
                "scenes": DOMAINS["in domain"]["scenes"],
                "objective": {"kind": "discriminative", **objective},
            }
            run = {**TRAINING, "method": method, "seed": seed, "hardware": serial.to_dict(request.hardware)}
            settings = {"run": run, "exam": EXAMINED, "domains": DOMAINS}
            found.append(Cell(variant=name, unit="stickers", seed=seed, settings=settings))
    return found


def run(cell: Cell, folder: Path) -> Result:
    """Examine the captioner, finetune it, examine it again."""
    from studio.models.captioner import load_captioner
    from studio.training.train import run_to_end

    values = dict(cell.settings["run"])
    exams = _exams(values["method"], cell.settings)
    before = load_captioner(values["method"]["model"])
    started = time.monotonic()
    place = run_to_end(Run.from_dict({**values, "output": str(folder), "name": new_run(folder)}))
    seconds = time.monotonic() - started
    after = load_captioner(str(place.path))
    measures: dict[str, tuple[float | None, float]] = {}
    notes: dict[str, list[str]] = {}
    for domain, exam in exams.items():
        found = [_examined(model, before, exam) for model in (before, after)]
        measures |= {f"{domain}: {name}": (found[0][1][name], value) for name, value in found[1][1].items()}
        files = _pictures(exam, folder / domain.replace(" ", "-"))
        lines = zip(files, *(texts[:SHOWN] for texts, _ in found), strict=True)
        notes |= {f"{domain} {number}": list(line) for number, line in enumerate(lines)}
    return Result(measures=measures, seconds=seconds, facts=_facts(cell), curves=_curves(place), notes=notes)


def _exams(method: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, "Exam"]:
    """An exam a domain, with the same two retrievers."""
    paid = method["objective"].get("retriever", REWARDING)
    how = json.dumps(dict(settings["exam"]))
    return {domain: _exam(paid, json.dumps(what), how) for domain, what in settings["domains"].items()}


@cache
def _exam(paid: str, domain: str, how: str) -> "Exam":
    """One exam, drawn once a process; the arguments are JSON, so that they can be remembered."""
    from studio.data.sticker_config import Stickers
    from studio.models.clip import load_clip
    from trainers.captioner.exam import Exam

    what = json.loads(domain)
    retrievers = {PAID: load_clip(paid).requires_grad_(False), OTHER: _listener()}
    scenes = serial.from_dict(Stickers, what["scenes"])
    return Exam.of(scenes, retrievers, **json.loads(how), held_out=what["held_out"])


@cache
def _listener() -> "Listener":
    """The other retriever, trained once a process; it hears captions of all styles."""
    from studio.backend.core import Backend
    from studio.data.sticker_config import Stickers
    from trainers.captioner.listener import train_listener

    with Backend(Hardware(device="cpu")).seeded(0):
        return train_listener(Stickers(styles=("3d", "flat", "cartoon", "glossy")))


def _examined(model: "Captioner", initial: "Captioner", exam: "Exam") -> tuple[list[str], dict[str, float]]:
    """A model's captions of an exam's scenes, and their scores."""
    from trainers.captioner.exam import appraise

    texts = [text for part in exam.scenes.images.split(50) for text in model.caption(part, max_tokens=24)]
    return texts, appraise(exam, model, initial.writer, texts)


def _pictures(exam: "Exam", folder: Path) -> list[str]:
    """The first scenes of an exam as files."""
    from einops import rearrange

    folder.mkdir(parents=True, exist_ok=True)
    files: list[str] = []
    for number, image in enumerate(exam.scenes.images[:SHOWN]):
        files.append(str(folder / f"{number}.png"))
        pixels = ((image + 1) * 127.5).round().byte()
        Image.fromarray(rearrange(pixels, "c h w -> h w c").numpy()).save(files[-1])
    return files


def _curves(place: runs.RunFolder) -> dict[str, list[list[float]]]:
    steps = [event for event in place.read_events() if event["event"] == "step"]
    return {
        name: [[event["step"], event[name]] for event in steps] for name in ("reward", "length", "entropy")
    }


def _facts(cell: Cell) -> dict[str, str]:
    loop, exam = cell.settings["run"]["loop"], cell.settings["exam"]
    return {
        "captioner": f"{BASE}, which learned on scenes in the styles 3d and flat",
        "finetuning": f"{loop['steps']} steps of {loop['batch_size']} pictures; its captions are sampled, no caption is given",
        "exam": f"{exam['rounds']} times {exam['candidates']} candidates a domain, greedy captions",
        "rewarding retriever": REWARDING,
        "other retriever": "EfficientNet-lite0 and coarse colors, with a recurrent network over words (listener.py)",
    }


def report(cells: Sequence[Finished], folder: Path) -> str:
    """The captions before and after, as a picture and as text."""
    shown = min(cells, key=lambda cell: cell.seed)
    draw_sheet(shown.notes, folder / "captioner.png")
    lines = [f"| {name} | {before} | {after} |" for name, (_, before, after) in shown.notes.items()]
    head = f"## Captions before and after ({shown.variant}, seed {shown.seed})"
    table = "\n".join(["| scene | before | after |", "| --- | --- | --- |", *lines])
    return f"{head}\n\n![scenes with their captions before and after](captioner.png)\n\n{table}\n"


def draw_sheet(notes: Mapping[str, Sequence[str]], file: Path) -> None:
    """Two columns of pictures, each with its captions before (gray) and after."""
    rows = [notes[name] for name in notes]
    height, columns = (len(rows) + 1) // 2, 2
    sheet = Image.new("RGB", (columns * COLUMN + 2 * MARGIN, height * (TILE + GAP) + 2 * MARGIN), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (picture, *captions) in enumerate(rows):
        left, top = MARGIN + number // height * COLUMN, MARGIN + number % height * (TILE + GAP)
        with Image.open(picture) as image:
            sheet.paste(image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC), (left, top))
        for place, (caption, color) in enumerate(zip(captions, (SOFT, INK), strict=True)):
            text = "\n".join(textwrap.wrap(caption, 46))
            pen.multiline_text((left + TILE + GAP, top + 4 + place * TILE / 2), text, color, font)
    sheet.save(file, optimize=True)


RECIPE = Recipe(
    title="Discriminative finetuning of a captioner",
    question=(
        "How often is the right picture among 100 found by its caption, before and after the captioner learned from the "
        "reward of being found: by the CLIP that gave the reward and by another retriever, in the domain of the training "
        "and outside of it, and are the captions still captions?"
    ),
    cells=cells,
    run=run,
    more=report,
)
