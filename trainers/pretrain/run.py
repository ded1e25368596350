"""Makes an embedded model from start to finish: trains it, judges it and writes its card.

    from trainers.pretrain.run import pretrain
    for event in pretrain("tiny-vit"): ...

`studio models pretrain NAME` does the same from a terminal.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from studio.catalog.run import Run
from studio.errors import unknown
from studio.records.runs import RunFolder, share, write_text
from studio.settings.run import Hardware, Loop, Optim, Preview
from studio.training.train import Event, resume, train
from trainers.pretrain import config
from trainers.pretrain.cards import write_card
from trainers.pretrain.evaluate import judge_autoencoder, judge_pictures

GUIDANCE = 4.0
"""Guidance at which the pictures are judged."""
MUON = "trainers.pretrain.muon.Muon"


def _muon(lr: float, *, ema: float, adam_ratio: float = 0.05, decay: float = 0.0) -> Optim:
    options = {"newton_steps": 4, "adam_ratio": adam_ratio}
    return Optim(
        name=MUON,
        lr=lr,
        weight_decay=decay,
        schedule="linear",
        warmup=50,
        ema=ema,
        betas=(0.9, 0.99),
        options=options,
    )


RUNS = {
    "tiny-autoencoder": Run(
        method=config.Pretrain(model=config.Autoencoder()),
        loop=Loop(steps=4000, batch_size=16, log_every=50, checkpoint_every=250),
        optim=_muon(0.02, ema=0.998),
        preview=Preview(every=1000, steps=1),
    ),
    "tiny-t2i": Run(
        method=config.Pretrain(model=config.TextToImage()),
        loop=Loop(steps=6000, batch_size=32, log_every=25, checkpoint_every=250),
        optim=_muon(0.02, ema=0.998, adam_ratio=0.1),
        preview=Preview(every=500, steps=16, guidance=3.5),
    ),
    "tiny-dit": Run(
        method=config.Pretrain(model=config.Dit()),
        loop=Loop(steps=7000, batch_size=64, log_every=25, checkpoint_every=250),
        optim=_muon(0.02, ema=0.998, adam_ratio=0.1),
        preview=Preview(every=500, steps=20, guidance=3.5),
    ),
    "tiny-vit": Run(
        method=config.Pretrain(model=config.Vit()),
        loop=Loop(steps=1000, batch_size=64, log_every=50, checkpoint_every=250),
        optim=_muon(0.02, ema=0.99, decay=0.01),
        preview=Preview(every=250, steps=1),
    ),
    "tiny-clip": Run(
        method=config.Pretrain(model=config.Clip()),
        loop=Loop(steps=1000, batch_size=40, log_every=50, checkpoint_every=250),
        optim=_muon(0.01, ema=0.99, adam_ratio=0.1),
        preview=Preview(every=250, steps=1),
    ),
}
"""The settings of each embedded model."""


def pretrain(
    name: str,
    *,
    output: str = "runs",
    steps: int = 0,
    hardware: Hardware = Hardware(),
    install: Path | None = None,
) -> Iterator[Event]:
    """Trains one of the embedded models, or goes on with it where it was stopped.

    Args:
        name: `tiny-autoencoder`, `tiny-t2i`, `tiny-dit`, `tiny-vit` or `tiny-clip`.
        output: Folder of the runs; the run is named after the model.
        steps: Optimizer steps; 0 takes the usual number.
        hardware: Where to compute.
        install: Folder that receives the finished model, normally `assets/models`; none leaves it in the run.

    Yields:
        The events of the run.

    Raises:
        StudioError: No embedded model has this name.
    """
    if name not in RUNS:
        raise unknown("embedded model", name, RUNS, field="name")
    run = replace(RUNS[name], name=name, output=output, hardware=hardware)
    if steps:
        run = replace(run, loop=replace(run.loop, steps=steps))
    folder = RunFolder(Path(output) / name)
    yield from resume(folder.path) if folder.config.exists() else train(run)
    if install:
        finish(folder, install)


def finish(folder: RunFolder, install: Path, *, note: str = "") -> Path:
    """Copies what a run exported to the embedded models, judges it and writes its card; gives the model's folder.

    Args:
        folder: A finished run.
        install: Folder of the embedded models.
        note: A sentence for the card about how the run was led.
    """
    settings = Run.from_dict(json.loads(folder.config.read_text("utf-8")))
    exported, target = _places(folder, settings.method.model, install)
    shutil.copytree(exported, target, dirs_exist_ok=True)
    _tidy(target)
    if isinstance(settings.method.model, config.Latents):
        scenes, sheet = settings.method.model.scenes, target / "samples.png"
        scores = judge_autoencoder(target / "vae") | judge_pictures(target, scenes, GUIDANCE, sheet)
        write_text(folder.export / "scores.json", json.dumps(scores, indent=2) + "\n")
    write_text(target / "run.json", json.dumps(replace(settings, output="runs").to_dict(), indent=2) + "\n")
    write_card(folder, settings, target, facts(folder) | {"note": note})
    return target


def _places(
    folder: RunFolder,
    model: config.Autoencoder | config.TextToImage | config.Dit | config.Vit | config.Clip,
    install: Path,
) -> tuple[Path, Path]:
    """Where the run left the model, and where the model belongs."""
    match model:
        case config.Autoencoder():
            return folder.export / "vae", install / "studio-tiny" / "vae"
        case config.TextToImage() | config.Dit() | config.Vit() | config.Clip():
            exported = next(path for path in folder.export.iterdir() if path.is_dir())
            return exported, install / exported.name


def _tidy(target: Path) -> None:
    """Forgets the folders that the model's parts were once loaded from."""
    share(target)
    for path in [*target.rglob("config.json"), *target.glob("model_index.json")]:
        values = json.loads(path.read_text("utf-8"))
        if values.pop("_name_or_path", None) is not None:
            write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def facts(folder: RunFolder) -> dict[str, str]:
    """Where and from which code a model was made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout
    start = next(folder.read_events("start"))
    return {
        "commit": commit.strip() or "unknown",
        "device": start["facts"][0].removeprefix("device: "),
        "date": time.strftime("%Y-%m-%d"),
    }
