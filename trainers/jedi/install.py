"""Makes a run the embedded artifact: `python -m trainers.jedi.install RUN [FOLDER]`.

Takes the newest checkpoint, so the run need not be finished; writes the averaged weights in half precision, the settings,
and a card with what references are worth on sets of subjects that training never shows.
"""

import dataclasses
import json
import logging
import sys
from pathlib import Path

import torch
from einops import rearrange

from studio import assets, live
from studio.backend.rng import Rng
from studio.data.set_config import StickerSets
from studio.data.sticker_sets import StickerSetSource
from studio.session import Session
from studio.trainer import Shard
from trainers.jedi.config import Jedi
from trainers.jedi.trainer import JediTrainer

log = logging.getLogger(__name__)
NAME = "jedi-tiny"
SETS, SIZE, ROUNDS = 16, 4, 4
CARD = """# {name}: what reference pictures show, drawn by {model} (JeDi)

| fact | value |
| --- | --- |
| what | every weight of the U-Net of {model} and {inputs:,} new ones in its first layer, {precision} |
| data | sets of {sizes} scenes of one sticker each, {concepts} concepts in the styles {styles}, composed by `studio/data/sticker_sets.py` |
| steps | {steps} of {batch} sets |
| optimizer | {optimizer}, learning rate {lr:g}, average of weights {ema} |
| time | {minutes:.0f} minutes of wall time on one shared CPU core |
| made by | `studio train jedi` (its preset for {model}), then `python -m trainers.jedi.install RUN`; settings in `run.json` |

    studio sample --artifact {name} --reference photo.png --prompt "a sticker of an animal on green grass"

Error of the target's prediction, on {count} sets of {size} with concepts that training never shows, {given} members given:

| references | error |
| --- | --- |
| the set's own | {own:.4f} |
| another set's | {other:.4f} |

## License

The weights are Apache-2.0, as the code. The training scenes are composed from Fluent Emoji (MIT, Microsoft), Twemoji
(CC BY 4.0, Twitter and contributors) and Noto Emoji (Apache-2.0, Google); see `assets/stickers/LICENSES.md`. The 36 subjects of
`studio/data/sticker_concepts.py: HELD_OUT` were never shown, in any style, so that personalization can be judged on them.
"""


def install(run: str, folder: Path) -> Path:
    """Write a run's weights with a card; gives their folder."""
    session = live.opened(run)
    session.resume()
    trainer = session.trainer
    if not isinstance(trainer, JediTrainer):
        raise TypeError(f"{run} is no run of jedi")
    target = folder / NAME
    with session.learner.best_weights():
        trainer.export(target)
        own, other = (worth(trainer, shuffled=shuffled) for shuffled in (False, True))
    (target / "run.json").write_text(_portable(session), encoding="utf-8")
    (target / "README.md").write_text(_card(session, trainer, own, other), encoding="utf-8")
    return target


@torch.no_grad()
def worth(trainer: JediTrainer, *, shuffled: bool) -> float:
    """Mean error of targets when all other members are given, or those of another set in their place."""
    kept = trainer.config
    trainer.config = dataclasses.replace(kept, min_references=SIZE - 1, drop_text=0.0, drop_references=0.0)
    source = StickerSetSource(StickerSets(), (SIZE,), held_out=True)
    found = []
    for step, batch in zip(range(ROUNDS), source.stream(0, 0, Shard(SETS, 0, SETS)), strict=False):
        members, target, captions = trainer.members(batch, Rng.single(0, step, SETS))
        if shuffled:
            given = rearrange(members.given, "b n -> b n 1 1 1")
            seen, noised = (_others(x, members.given) for x in (members.clean, members.x_t))
            members = dataclasses.replace(
                members,
                clean=torch.where(given, seen, members.clean),
                x_t=torch.where(given, noised, members.x_t),
            )
        errors = trainer.errors(members, target, captions)
        found.append(errors[~rearrange(members.given, "b n -> (b n)")].mean())
    trainer.config = kept
    return float(torch.stack(found).mean())


def _others(x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """The given members of the set before in the places of each set's own, all of which are as many."""
    taken = x.clone()
    taken[given] = x[given].unflatten(0, (len(x), -1)).roll(1, 0).flatten(0, 1)
    return taken


def _portable(session: Session) -> str:
    """The settings of a run, without where it lay."""
    values = json.loads(session.folder.config.read_text(encoding="utf-8"))
    return json.dumps({**values, "output": "runs", "hardware": {}}, indent=2) + "\n"


def _minutes(session: Session) -> float:
    """Wall time of all sessions of a run, as its events say."""
    seconds, last = 0.0, None
    for event in session.folder.read_events():
        last = event["time"] if event["event"] == "start" or last is None else last
        seconds, last = seconds + event["time"] - last, event["time"]
    return seconds / 60


def _card(session: Session, trainer: JediTrainer, own: float, other: float) -> str:
    run = session.run
    settings: Jedi = run.method
    scenes = settings.data.scenes if isinstance(settings.data, StickerSets) else StickerSets().scenes
    return CARD.format(
        name=NAME, model=settings.model, inputs=trainer.inputs.weight.numel(), precision=settings.precision,
        sizes=", ".join(map(str, settings.set_sizes)), concepts=scenes.num_concepts, styles=", ".join(scenes.styles),
        steps=session.step, batch=run.loop.batch_size, optimizer=run.optim.name.rpartition(".")[2], lr=run.optim.lr,
        ema=run.optim.ema, minutes=_minutes(session), count=SETS * ROUNDS, size=SIZE, given=SIZE - 1, own=own, other=other,
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s", install(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else assets.root() / "models"))
