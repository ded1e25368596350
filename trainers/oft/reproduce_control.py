"""Do pictures follow a control signal after OFT, after LoRA of as many numbers, and without training?

A cell is one training run on the embedded scenes; a stopped one goes on from its newest checkpoint. The run's own previews
are the exam: held-out signals, always the same noise, before the first step (the base model) and while it trains.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.catalog.run import Run
from studio.evidence.reproduce import Cell, Recipe, Reproduce, Result
from studio.evidence.subjects import weights_of
from studio.evidence.tables import Finished
from studio.settings import serial

MODEL = "studio-tiny"
STEPS, BATCH, NUM_SHOWN = 300, 8, 24
SCENES: dict[str, Any] = {"centered": 0.3, "rotated": 0.5, "mirrored": 0.5, "textured": 0.1}
"""Objects anywhere, of any size and turned, so that the caption does not tell the layout."""
ADAPTERS: dict[str, tuple[dict[str, Any], float]] = {
    "oft": ({"kind": "oft", "block_size": 32, "layers": "blocks"}, 2e-3),
    "lora": ({"kind": "lora", "rank": 7, "layers": "blocks"}, 1e-3),
}
"""Adapter and learning rate, in the ratio of the study of subjects; 199,888 and 200,704 trained numbers."""
SETTINGS: dict[str, Any] = {
    "method": {
        "kind": "oft", "model": MODEL, "control": {"kind": "colors"}, "hint_lr": 1e-3, "scenes": SCENES,
        "num_shown": NUM_SHOWN, "denoising": {"times": {"kind": "logit-normal-times", "mean": 1.0}},
    },
    "loop": {"steps": STEPS, "batch_size": BATCH, "checkpoint_every": 50, "log_every": 25},
    "preview": {"every": STEPS // 3, "steps": 8, "guidance": 1.5},
}  # fmt: skip
NUM_PICTURES = 8
"""Signals in the sheet."""


def _cells(request: Reproduce) -> Sequence[Cell]:
    """Both adapters with every seed."""
    found = []
    for seed in range(request.num_seeds):
        for name, (adapter, lr) in ADAPTERS.items():
            own = {"method": {"adapter": adapter}, "optim": {"lr": lr}, "seed": seed}
            values = serial.merge(
                serial.merge(dict(SETTINGS), own), {"hardware": serial.to_dict(request.hardware)}
            )
            settings = {"run": Run.from_dict(values).to_dict(), "weights": weights_of(MODEL)}
            found.append(Cell(variant=name, unit="layouts of colors", seed=seed, settings=settings))
    return found


def _run(cell: Cell, folder: Path) -> Result:
    """Train, or go on with training; then read the run's previews."""
    from studio.training.train import resume, train

    place = folder / "run"
    started = any((place / "checkpoints").glob("step-*"))
    name = {"output": str(folder), "name": "run"}
    events = (
        resume(place) if started else train(Run.from_dict(serial.merge(dict(cell.settings["run"]), name)))
    )
    facts = [line for event in events if event["event"] == "start" for line in event["facts"]]
    told = _events(place)
    curve = [(e["step"], e["scores"]["agreement"]) for e in told if e["event"] == "preview"]
    curve = sorted(dict(curve).items())  # a preview may be drawn again after a stop
    return Result(
        measures={"agreement": (curve[0][1], curve[-1][1])},
        seconds=sum(e.get("seconds", 0.0) for e in told if e["event"] in {"done", "stopped"}),
        pictures={"Base": _pictures(place, curve[0][0]), "trained": _pictures(place, curve[-1][0])},
        curves={"agreement": curve},
        facts={
            "base model": f"{MODEL} {cell.settings['weights']}",
            "hardware": "; ".join(f for f in facts if f.startswith(("device:", "precision:"))),
            "training": f"{STEPS} steps of {BATCH} new scenes; adapters at "
            f"{', '.join(f'{name} {lr:g}' for name, (_, lr) in ADAPTERS.items())}, hint encoder at 1e-3",
            "exam": f"{NUM_SHOWN} held-out signals, 8 steps, guidance 1.5",
            "scale of agreement": _scale(cell.settings["run"]),
        },
    )  # fmt: skip


def _events(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def _pictures(place: Path, step: int) -> list[str]:
    return [str(place / "samples" / f"step-{step:08}" / f"{index}.png") for index in range(NUM_PICTURES)]


def _scale(settings: Mapping[str, Any]) -> str:
    """What the measure gives for pictures whose agreement is known."""
    import torch

    from studio.backend.rng import Rng
    from trainers.oft.control import agreement, signal
    from trainers.oft.trainer import shown

    method = Run.from_dict(dict(settings)).method
    pictures, family = shown(method)["images"], _family()
    wanted = signal(method.control, pictures)
    with torch.no_grad():
        decoded = family.decode(family.encode(pictures, Rng.single(0, 0, len(pictures)))).clamp(-1, 1)
    known = {
        "the true pictures": pictures,
        "decoded from their latents": decoded,
        "of other scenes": pictures.roll(1, 0),
    }
    return ", ".join(f"{name} {float(agreement(method.control, wanted, of).mean()):.3f}" for name, of in known.items())  # fmt: skip


def _family() -> Any:
    from studio.backend.core import Backend
    from studio.models.build import load
    from studio.settings.run import Hardware

    return load(MODEL, Backend(Hardware(device="cpu")))


def sheet(cells: Sequence[Finished], folder: Path) -> str:
    """Markdown with the curves of agreement, and a sheet of signals, the base's pictures and each adapter's."""
    from PIL import Image

    first = [cell for cell in cells if cell.seed == cells[0].seed]
    rows = [_signals(first[0].settings["run"]), _opened(first[0].pictures["Base"])]
    rows += [_opened(cell.pictures["trained"]) for cell in first]
    side = 96
    sheet = Image.new("RGB", (side * NUM_PICTURES, side * len(rows)), "white")
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            sheet.paste(picture.resize((side, side)), (side * across, side * down))
    sheet.save(folder / "oft_control-signals.png")
    names = ", ".join(cell.variant for cell in first)
    text = ["## Agreement while training", "| cell | steps and agreement |", "| --- | --- |"]
    lines = [
        f"| {c.variant}, seed {c.seed} | {', '.join(f'{step:g}: {value:.3f}' for step, value in c.curves['agreement'])} |"
        for c in cells
    ]
    picture = f"![Rows: signal, base, {names}](oft_control-signals.png)"
    return "\n\n".join([text[0], "\n".join([*text[1:], *lines]), picture]) + "\n"


def _opened(files: Sequence[str]) -> list[Any]:
    from PIL import Image

    return [Image.open(file).convert("RGB") for file in files]


def _signals(settings: Mapping[str, Any]) -> list[Any]:
    from torchvision.transforms.functional import to_pil_image

    from trainers.oft.control import signal
    from trainers.oft.trainer import shown

    method = Run.from_dict(dict(settings)).method
    return [to_pil_image(one) for one in signal(method.control, shown(method)["images"])[:NUM_PICTURES]]


RECIPE = Recipe(
    title="Pictures that follow a layout of colors: OFT against LoRA",
    question=(
        "With as many trained numbers in the denoiser (200 thousand) and the same hint encoder (570 thousand): how well do "
        "pictures follow layouts of 8 x 8 colors that training did not see? Agreement is the share of a layout's variation "
        "that the picture's own layout explains, 0 for no better than one even color, mean over the signals. The base model "
        "gets the same captions and noise, and no signal."
    ),
    cells=_cells,
    run=_run,
    more=sheet,
)
