"""COLA's measures: does each caption pick its own image, and are the right pictures ranked first among look-alikes?

Axes: `g` items of two pictures and two captions, `b` pictures, `k` classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from studio.data.sticker_config import StickerPairs
from studio.data.sticker_pairs import Twins, draw_twins, phrase

Scorer = Callable[[Float[Tensor, "b c h w"], Sequence[str]], Float[Tensor, "b t"]]
"""Scores of every picture with every caption."""
SEED = 20_230_503
NUM_CLASSES = 24
"""Pairs of object and attribute that are looked for, the most frequent ones in the exam's scenes."""


def multi_object(scores: Float[Tensor, "g 2 2"]) -> float:
    """Share of items in which each caption picks its own image: s(I1, C1) > s(I2, C1) and s(I2, C2) > s(I1, C2).

    Rows of an item are its pictures, columns its captions. A coin gets 25 percent.
    """
    first = scores[:, 0, 0] > scores[:, 1, 0]
    second = scores[:, 1, 1] > scores[:, 0, 1]
    return float((first & second).float().mean())


def hard_average_precision(
    scores: Float[Tensor, "b k"], positive: Bool[Tensor, "b k"], hard: Bool[Tensor, "b k"]
) -> float:
    """Average precision of each class over its hard pictures, those that share a word with it; mean over classes.

    Classes without a positive picture do not count.
    """
    found = [
        binary_average_precision(own[chosen].sigmoid().double(), right[chosen].long())
        for own, right, chosen in zip(scores.mT, positive.mT, (hard | positive).mT, strict=True)
        if bool(right.any())
    ]
    return float(torch.stack(found).mean())


@dataclass(frozen=True)
class Exam:
    """Scenes in twins."""

    settings: StickerPairs
    twins: Twins

    @classmethod
    def of(cls, settings: StickerPairs, count: int, *, held_out: bool) -> "Exam":
        """Draw `count` items over all objects; `held_out`: of pairs that training never shows."""
        generator = torch.Generator().manual_seed(SEED)
        return cls(settings, draw_twins(settings, count, generator, held_out=held_out, hard=False))

    @torch.no_grad()
    def scores(self, scorer: Scorer, *, single: bool = True) -> dict[str, float]:
        """Both measures; `single` leaves out the one over single objects, which takes the longer time."""
        images, captions = self.twins.images, self.twins.captions
        items = [scorer(images[row : row + 2], captions[row : row + 2]) for row in range(0, len(images), 2)]
        found = {"multi-object": multi_object(torch.stack(items).float())}
        return {**found, "hard average precision": self._single(scorer)} if single else found

    def _single(self, scorer: Scorer) -> float:
        classes = self._classes()
        concept, attribute = classes.unbind(1)
        texts = [phrase(self.settings, c, a) for c, a in classes.tolist()]
        has = self.twins.concepts[:, :, None] == concept
        looks = self.twins.attributes[:, :, None] == attribute
        scores = torch.cat([scorer(part, texts) for part in self.twins.images.split(32)])
        return hard_average_precision(scores.float(), (has & looks).any(1), (has | looks).any(1))

    def _classes(self) -> Int[Tensor, "k two"]:
        """The pairs of object and attribute that occur most often."""
        pairs: Any = torch.stack([self.twins.concepts, self.twins.attributes], -1).reshape(-1, 2)
        unique, counts = pairs.unique(dim=0, return_counts=True)
        return unique[counts.argsort(descending=True, stable=True)[:NUM_CLASSES]]
