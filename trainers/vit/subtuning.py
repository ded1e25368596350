"""SubTuning: which blocks to finetune, chosen greedily by short runs.

    Kaplun, Gurevich, Swisa, David, Shalev-Shwartz, Malach, "Less is More: Selective Layer Finetuning with SubTuning",
    2023, arXiv 2302.06354, algorithm 1

S = {}; for every block not in S train S + {block} and the head from the pretrained weights and score it; take the best;
stop when the gain is below a bound or |S| = k_max.

Departures: the runs have a fixed number of steps, and score on a part of the training data that they do not see
instead of by cross-validation.
"""

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
import torch
from timm.data import resolve_model_data_config

from studio.backend.core import Backend
from studio.backend.progress import counted
from studio.backend.shard import Shard
from studio.data.labelled import LabelledPhotos
from studio.data.pools import split
from studio.models.modes import evaluating
from studio.models.vit import Classifier, load_classifier
from studio.vision.config import SubTuning
from studio.vision.task import classification_loss
from studio.vision.tuning import blocks_of, tune
from trainers.vit.config import Vit

log = logging.getLogger(__name__)

BATCH = 32
SCORED = 512
"""Pictures that a short run is scored on."""
UNSEEN = 4
"""One of so many training pictures is kept to score on."""


@dataclass(frozen=True)
class Trial:
    """One short run: the blocks that moved and the accuracy on pictures it did not see."""

    blocks: tuple[int, ...]
    accuracy: float


class Search:
    """Short runs from the pretrained weights, all on the same pictures in the same order."""

    def __init__(self, config: Vit, tuning: SubTuning, backend: Backend) -> None:
        self.config, self.tuning, self.backend = config, tuning, backend
        self.pool = split(config.data).train
        model = self._model()
        self.num_blocks = len(blocks_of(model))
        facts = resolve_model_data_config(model.network)
        places = np.arange(len(self.pool))
        self.seen, self.unseen = (
            LabelledPhotos(config.data, self.pool.subset(places[chosen]), facts, trains=trains)
            for chosen, trains in ((places % UNSEEN != 0, True), (places % UNSEEN == 0, False))
        )

    def _model(self) -> Classifier:
        with self.backend.seeded(0):  # a new head is the same one in every run
            return self.backend.place(load_classifier(self.config.model, self.pool.classes), trains=True)

    def profile(self, chosen: tuple[int, ...] = ()) -> list[Trial]:
        """The finetuning profile: each further block on top of `chosen`, trained for a short time."""
        left = [block for block in range(self.num_blocks) if block not in chosen]
        what = f"SubTuning, block {len(chosen) + 1}"
        return [self.trial((*chosen, block)) for block in counted(left, what, len(left))]

    def trial(self, blocks: tuple[int, ...]) -> Trial:
        """Train these blocks and the head for `search_steps`, and score them."""
        model = self._model()
        tune(dataclasses.replace(self.tuning, blocks=blocks), model)
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=self.tuning.search_lr
        )
        stream = self.seen.stream(0, 0, Shard(BATCH, 0, BATCH))
        for _ in range(self.tuning.search_steps):
            batch = self.backend.move(next(stream))
            optimizer.zero_grad()
            classification_loss(model(batch["images"]), batch).backward()
            optimizer.step()
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]  # a generator: stops reading ahead
        batch = self.backend.move(self.unseen.look(SCORED))
        with evaluating(model), torch.no_grad():
            right = (model(batch["images"]).argmax(1) == batch["labels"]).float().mean()
        return Trial(blocks, float(right))


def choose_blocks(config: Vit, tuning: SubTuning, backend: Backend) -> tuple[int, ...]:
    """The blocks that help most, by greedy search."""
    search = Search(config, tuning, backend)
    chosen: tuple[int, ...] = ()
    best = 0.0
    while len(chosen) < min(tuning.max_blocks, search.num_blocks):
        trials = search.profile(chosen)
        winner = max(trials, key=lambda trial: trial.accuracy)
        log.info("SubTuning: %s", ", ".join(f"{t.blocks[-1]}: {t.accuracy:.3f}" for t in trials))
        if chosen and winner.accuracy - best < tuning.min_gain:
            break
        chosen, best = winner.blocks, winner.accuracy
    log.info("SubTuning: blocks %s, accuracy %.3f after %d steps", sorted(chosen), best, tuning.search_steps)
    return tuple(sorted(chosen))
