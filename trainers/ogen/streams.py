"""The three streams of invented features, and their losses (section 3.2; the release's arithmetic).

Axes: `b` pictures, `k` neighbors, `c` known classes, `u` new names, `d` width of the common space.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from trainers.ogen.generator import Generator
from trainers.ogen.neighbors import Statistics, Tables


@dataclass(frozen=True)
class Texts:
    """Unit text features of the known classes and of the new names."""

    known: Float[Tensor, "c d"]
    new: Float[Tensor, "u d"]

    def detached(self) -> "Texts":
        """Without gradients."""
        return Texts(self.known.detach(), self.new.detach())


@dataclass(frozen=True)
class Invented:
    """Invented features and the classes they stand for.

    Attributes:
        known: Of the pictures' own classes, from their neighbors (stream a).
        near: Of the neighbors, from a picture (stream b); rows are pictures x neighbors.
        near_targets: What they should be: sampled features of these classes, of unit length.
        new: Of new names (stream c); rows are pictures x neighbors.
    """

    known: Float[Tensor, "b d"]
    near: Float[Tensor, "bk d"]
    near_targets: Float[Tensor, "bk d"]
    near_labels: Int[Tensor, " bk"]
    new: Float[Tensor, "bm d"]
    new_labels: Int[Tensor, " bm"]


def sampled(found: Statistics, classes: Tensor, spread: Float[Tensor, " d"]) -> Tensor:
    """Features of classes, mean + r * deviation, r being one vector for the batch."""
    return found.mean[classes] + spread * found.deviation[classes]


def invent(
    generator: Generator, x: Float[Tensor, "b d"], labels: Int[Tensor, " b"], texts: Texts, known: "Known"
) -> Invented:
    """All three streams. Gradients reach the texts through the queries of new names only."""
    still, near = texts.detached(), known.tables.known[labels]
    values = sampled(known.statistics, near, known.spread)
    own = still.known[labels]
    count = near.shape[1]
    near_keys, near_values = (repeat(each, "b d -> (b k) 1 d", k=count) for each in (own, x))
    new_labels = rearrange(known.tables.new[labels], "b m -> (b m)")
    many = known.tables.new.shape[1]
    new_keys, new_values = (repeat(each, "b d -> (b k) 1 d", k=many) for each in (own, x))
    return Invented(
        known=generator(own, still.known[near], values),
        near=generator(rearrange(still.known[near], "b k d -> (b k) d"), near_keys, near_values),
        near_targets=F.normalize(rearrange(values, "b k d -> (b k) d"), dim=-1),
        near_labels=rearrange(near, "b k -> (b k)"),
        new=generator(texts.new[new_labels], new_keys, new_values),
        new_labels=new_labels,
    )


def averaged(labels: Int[Tensor, " b"], known: "Known") -> Invented:
    """The ablation: the mean of the nearest known classes' sampled features instead of the generator's answer."""
    near = known.tables.known[labels]
    values = sampled(known.statistics, near, known.spread)
    new_labels = rearrange(known.tables.new[labels], "b m -> (b m)")
    around = sampled(known.statistics, known.tables.of_new[new_labels], known.spread)
    flat = F.normalize(rearrange(values, "b k d -> (b k) d"), dim=-1)
    return Invented(
        known=F.normalize(values.mean(1), dim=-1),
        near=flat,
        near_targets=flat,
        near_labels=rearrange(near, "b k -> (b k)"),
        new=F.normalize(around.mean(1), dim=-1),
        new_labels=new_labels,
    )


@dataclass(frozen=True)
class Known:
    """What is known of the classes, and this step's random direction of spread in [0, 1)."""

    statistics: Statistics
    tables: Tables
    spread: Float[Tensor, " d"]

    def to(self, device: torch.device) -> "Known":
        """On a device."""
        found, near = self.statistics, self.tables
        return replace(
            self,
            statistics=Statistics(found.mean.to(device), found.deviation.to(device)),
            tables=Tables(near.known.to(device), near.new.to(device), near.of_new.to(device)),
            spread=self.spread.to(device),
        )


def distance(found: Float[Tensor, "b d"], wanted: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean squared distance: d times the mean squared error."""
    return (found - wanted).square().sum(-1).mean()


def classify(features: Tensor, texts: Tensor, labels: Tensor, scale: Tensor) -> Float[Tensor, ""]:
    """Cross-entropy of scaled cosines."""
    return F.cross_entropy(scale * features @ texts.mT, labels)
