"""Makes a run the embedded artifact: `python -m trainers.jedi.install RUN [FOLDER [NOTE]]`.

Takes the newest checkpoint, so the run need not be finished; writes the averaged weights in half precision, the settings,
and a card with what references are worth on sets of subjects that training never shows.
"""

import dataclasses
import logging
import sys
from pathlib import Path

import torch
from einops import rearrange

from studio import assets
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.data.set_config import StickerSets
from studio.data.sticker_sets import StickerSetSource
from studio.training import checkpoint, embed
from studio.training.session import opened
from trainers.jedi.config import Jedi
from trainers.jedi.trainer import JediTrainer

log = logging.getLogger(__name__)
NAME = "jedi-tiny"
SETS, SIZE, ROUNDS = 16, 4, 4
SCORES = """Error of the target's prediction, on {count} sets of {size} with concepts that training never shows, {given} members given:

| references | error |
| --- | --- |
| the set's own | {own:.4f} |
| another set's | {other:.4f} |
"""


def install(run: str, folder: Path, note: str = "") -> Path:
    """Write a run's weights with a card, which says in a note how the run was led; gives their folder."""
    session = opened(run)
    session.restore(checkpoint.newest(session.folder.checkpoints))
    trainer = session.trainer
    if not isinstance(trainer, JediTrainer):
        raise TypeError(f"{run} is no run of jedi")
    target = folder / NAME
    with session.learner.best_weights():
        trainer.export(target)
        own, other = (worth(trainer, shuffled=shuffled) for shuffled in (False, True))
    embed.describe(session.folder, session.run, session.step, target, _about(trainer, own, other, note))
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


def _about(trainer: JediTrainer, own: float, other: float, note: str) -> embed.About:
    settings: Jedi = trainer.config
    scenes = settings.data.scenes if isinstance(settings.data, StickerSets) else StickerSets().scenes
    inputs = trainer.inputs.weight.numel()
    return embed.About(
        title=f"{NAME}: what reference pictures show, drawn by {settings.model} (JeDi)",
        facts={
            "what": f"every weight of the denoiser of {settings.model} and {inputs:,} new ones in its first layer, {settings.precision}",
            "data": f"sets of {', '.join(map(str, settings.set_sizes))} scenes of one sticker each, {scenes.num_concepts} "
            f"concepts in the styles {', '.join(scenes.styles)}, composed by `studio/data/sticker_sets.py`",
        },
        command=f"`studio train jedi --model {settings.model}`, then `python -m trainers.jedi.install RUN`",
        text=f'    studio sample --artifact {NAME} --reference photo.png --prompt "a sticker of an animal on green grass"'
        f"\n\n{note}",
        scores=SCORES.format(count=SETS * ROUNDS, size=SIZE, given=SIZE - 1, own=own, other=other),
        notes={"steps": " sets"},
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info(
        "%s",
        install(
            sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else assets.root() / "models", *sys.argv[3:4]
        ),
    )
