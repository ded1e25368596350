"""Makes a run an embedded artifact: `python -m studio.training.embed RUN NAME [FOLDER [NOTE]]`; and the cards of what is embedded.

Takes the newest checkpoint, so that the run need not be finished: the averaged weights as the method exports them, the
settings without where the run lay, and a card with what the method's own previews score on held-out data.
"""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from studio import assets
from studio.catalog import drawing
from studio.catalog.methods import card_of
from studio.catalog.run import Run
from studio.contracts.sampling import Request
from studio.records.runs import RunFolder
from studio.training import checkpoint
from studio.training.session import opened

log = logging.getLogger(__name__)
LICENSE = """## License

The weights are Apache-2.0, as the code. The training scenes are composed from Fluent Emoji (MIT, Microsoft), Twemoji
(CC BY 4.0, Twitter and contributors) and Noto Emoji (Apache-2.0, Google); see `assets/stickers/LICENSES.md`. The 36 subjects of
`studio/data/sticker_concepts.py: HELD_OUT` were never shown, in any style, so that personalization can be judged on them.
"""
SCORES = """Scores of the method's previews, on held-out data:

| score | value |
| --- | --- |
"""
REFERENCES = "`--reference` takes one picture or more of a subject; see `docs/references.md`."


@dataclass(frozen=True, kw_only=True)
class About:
    """What a card says beyond what every run knows of itself."""

    title: str
    facts: Mapping[str, str]
    """First rows: what it is, what it was trained on."""
    command: str
    """What made it from the run."""
    text: str = ""
    """Markdown between the facts and the scores, such as how to call it."""
    scores: str = ""
    """Markdown."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Words to add to a row."""


def minutes(folder: RunFolder) -> float:
    """Wall time of all sessions of a run, as its events say."""
    seconds, last = 0.0, None
    for event in folder.read_events():
        last = event["time"] if event["event"] == "start" or last is None else last
        seconds, last = seconds + event["time"] - last, event["time"]
    return seconds / 60


def _device(folder: RunFolder) -> str:
    """What a run was trained on last, as its events say, and in how many sittings."""
    starts = [event["facts"] for event in folder.read_events("start")]
    device = next((fact for fact in starts[-1] if fact.startswith("device:")), "device unknown")
    return f"{device}, in {len(starts)} sittings" if len(starts) > 1 else device


def portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings without places of the machine that it ran on: where it lay, and the weights it went on from."""
    method = {key: "" if key == "start" else value for key, value in values["method"].items()}
    return {**values, "method": method, "output": "runs", "hardware": {}}


def describe(folder: RunFolder, run: Run, step: int, target: Path, about: About) -> Path:
    """Write `run.json` and `README.md` into the folder of an embedded model.

    Args:
        folder: Of the run.
        run: Its settings.
        step: Of the weights.
        target: Where the weights lie.
        about: The rest of the card.

    Returns:
        The card.
    """
    values = json.loads(folder.config.read_text(encoding="utf-8"))
    (target / "run.json").write_text(json.dumps(portable(values), indent=2) + "\n", encoding="utf-8")
    optim = run.optim
    facts = {
        **about.facts,
        "steps": f"{step} of {run.loop.batch_size}",
        "optimizer": f"{optim.name.rpartition('.')[2]}, learning rate {optim.lr:g}, average of weights {optim.ema:g}",
        "time": f"{minutes(folder):.0f} minutes of wall time, {_device(folder)}",
        "made by": f"{about.command}; settings in `run.json`",
    }
    rows = [f"| {key} | {value}{about.notes.get(key, '')} |" for key, value in facts.items()]
    parts = [
        f"# {about.title}",
        "\n".join(["| fact | value |", "| --- | --- |", *rows]),
        about.text,
        about.scores,
        LICENSE,
    ]
    card = target / "README.md"
    card.write_text("\n\n".join(part.strip("\n") for part in parts if part) + "\n", encoding="utf-8")
    return card


def artifact(run: str, name: str, folder: Path, note: str = "") -> Path:
    """Write a run of a method that draws from reference pictures as the embedded artifact `name`; gives its folder.

    A note on its card says how the run was led.
    """
    session = opened(run)
    session.restore(checkpoint.newest(session.folder.checkpoints))
    trainer, method = session.trainer, card_of(session.run.method)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    asked = Request(prompts=list(trainer.prompts()))
    with session.learner.best_weights(), torch.no_grad():
        trainer.export(target)
        found = trainer.score(
            trainer.sample(asked, session.backend.rng(0, 0, rows=len(asked.prompts))), asked
        )
    rows = "".join(f"| {key.replace('_', ' ')} | {value:.4f} |\n" for key, value in found.items())
    flags = f"--reference photo.png --guidance {drawing.guidance_of(session.run.preview.guidance, session.variant):g} --prompt"
    about = About(
        title=f"{name}: {method.title} on {session.run.method.model}",
        facts={"what": method.summary, "paper": method.paper},
        command=f"`studio train {method.name.replace('_', '-')} --model {session.run.method.model}`, then "
        f"`python -m studio.training.embed RUN {name}`",
        text=f'    studio sample --artifact {name} {flags} "{asked.prompts[0]}"\n\n{REFERENCES}\n\n{note}',
        scores=SCORES + rows,
    )
    describe(session.folder, session.run, session.step, target, about)
    return target


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    place = Path(sys.argv[3]) if len(sys.argv) > 3 else assets.root() / "models"
    log.info("%s", artifact(sys.argv[1], sys.argv[2], place, *sys.argv[4:5]))
