"""What the evidence measures while a run goes on: base pictures among base names, new pictures among new names."""

from typing import Any

import torch

from studio.contracts.batch import Batch
from studio.data.config import Labelled
from studio.data.labelled import LabelledPhotos
from studio.data.pools import split
from studio.matching.data import Labels, halves, only
from studio.matching.matcher import Matcher, features_of
from studio.metrics.matching import harmonic
from studio.models.modes import evaluating

BATCH = 160


class Exam:
    """Held-out pictures of both halves, and the accuracy after each epoch."""

    def __init__(self, data: Labelled, order: int, data_config: dict[str, Any]) -> None:
        pool = split(data).test
        self.names = dict(zip(("base", "new"), halves(pool.classes, order), strict=True))
        self.batches: dict[str, list[Batch]] = {
            part: list(
                Labels(LabelledPhotos(data, only(pool, names), data_config, trains=False)).ordered(BATCH)
            )
            for part, names in self.names.items()
        }
        self.curves: dict[str, list[list[float]]] = {"base": [], "new": []}
        self._features: dict[str, torch.Tensor] = {}

    def look(self, matcher: Matcher, at: float, *, pictures: bool) -> None:
        """Put both accuracies on record.

        Args:
            matcher: As it is now.
            at: Epochs done.
            pictures: Whether training changes the features of pictures.
        """
        with evaluating(matcher), torch.no_grad():
            for part, names in self.names.items():
                if pictures or part not in self._features:
                    self._features[part] = features_of(matcher, [b["images"] for b in self.batches[part]])
                labels = torch.cat([b["labels"] for b in self.batches[part]])
                answers = matcher.logits(self._features[part].to(matcher.model.device), names).argmax(1)
                self.curves[part].append([at, float((answers.cpu() == labels).float().mean())])

    def measures(self) -> dict[str, tuple[float, float]]:
        """Before and after, and what the last epochs lost of the best new accuracy on the way."""
        ends = {part: (points[0][1], points[-1][1]) for part, points in self.curves.items()}
        base, new = ends["base"], ends["new"]
        best = max(value for _, value in self.curves["new"])
        return {
            **ends,
            "HM": (harmonic(base[0], new[0]), harmonic(base[1], new[1])),
            "new, best epoch": (new[0], best),
        }
