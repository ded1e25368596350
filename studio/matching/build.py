"""From settings to a matcher, and what of it moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from studio.adapters import build as adapters
from studio.backend.core import Backend
from studio.contracts.trainer import Group
from studio.matching.cocoop import ConditionalMatcher
from studio.matching.config import (
    Adapted,
    AdaptFormer,
    Cocoop,
    Coop,
    LpFt,
    Maple,
    Probe,
    Promptsrc,
    Tuning,
    Whole,
)
from studio.matching.coop import PromptMatcher
from studio.matching.deep import DeepMatcher
from studio.matching.matcher import Matcher
from studio.matching.probe import ProbeMatcher
from studio.matching.side import SideMatcher
from studio.models.adaptformer import Shape
from studio.models.dual import DualEncoder


@dataclass(frozen=True)
class Tuned:
    """A matcher and the names of its parameters that move.

    Attributes:
        pictures: Whether training changes what the image tower says about a picture.
    """

    matcher: Matcher
    trains: frozenset[str]
    pictures: bool

    def groups(self, head_lr_scale: float = 1.0) -> list[Group]:
        """What is optimized; norms, biases and the temperature have no weight decay (CLIP, section 2.5)."""
        shapes = {name: value.ndim for name, value in self.matcher.named_parameters()}
        flat = frozenset(name for name in self.trains if shapes[name] < 2)
        head = frozenset(name for name in self.trains if name.startswith("head."))
        if head_lr_scale == 1.0:
            head = frozenset[str]()
        parts = {
            "weights": (self.trains - flat - head, None, 1.0),
            "vectors": (flat - head, 0.0, 1.0),
            "head": (head - flat, None, head_lr_scale),
            "head-vectors": (head & flat, 0.0, head_lr_scale),
        }
        return [
            Group(name=name, module=self.matcher, names=names, weight_decay=decay, lr_scale=scale)
            for name, (names, decay, scale) in parts.items()
            if names
        ]


def make(model: DualEncoder, tuning: Tuning, classes: Sequence[str], templates: Sequence[str]) -> Matcher:
    """The matcher of a way of tuning, before anything moved and without adapters.

    Fresh vectors come from torch's global generator: call it under a seeded one.
    """
    match tuning:
        case Whole() | Adapted():
            return Matcher(model, templates)
        case AdaptFormer():
            return SideMatcher(model, templates, Shape(tuning.bottleneck, tuning.scale, tuning.dropout))
        case Probe() | LpFt():
            return ProbeMatcher(model, templates, classes)
        case Coop():
            return PromptMatcher(model, tuning, classes)
        case Cocoop():
            width = model.texts(["a"]).shape[1]
            return ConditionalMatcher(model, tuning, classes, width)
        case Maple() | Promptsrc():
            return DeepMatcher(model, tuning, classes, templates)
        case _:
            assert_never(tuning)


def tune(
    model: DualEncoder, tuning: Tuning, classes: Sequence[str], templates: Sequence[str], backend: Backend
) -> Tuned:
    """A matcher in its place, with only that free to move which the settings name."""
    if isinstance(tuning, Adapted):
        model.open_attention()
    backend.place(model, trains=isinstance(tuning, (Whole, Adapted, LpFt)))
    matcher = make(model, tuning, classes, templates).to(backend.device)
    trains = frozenset(matcher.learned())
    if isinstance(tuning, Adapted):
        made = adapters.attach(tuning.adapter, {"network": model.network})["network"]
        trains = frozenset(f"model.network.{name}" for name in made if _free(model, name, tuning.locked))
    elif isinstance(tuning, Whole):
        names = [name for name, _ in model.network.named_parameters()]
        trains = frozenset(f"model.network.{name}" for name in names if _free(model, name, tuning.locked))
    elif isinstance(tuning, LpFt):
        trains |= {f"model.{name}" for name in model.parameters_of("image")}
    for name, value in matcher.named_parameters():
        value.requires_grad_(name in trains)
    moves = any(name.startswith("model.") and model.tower_of(_inner(name)) == "image" for name in trains)
    _modes(matcher, trains)
    return Tuned(matcher, trains, pictures=moves or isinstance(tuning, (Maple, Promptsrc, AdaptFormer)))


def _modes(matcher: Matcher, trains: frozenset[str]) -> None:
    """Train mode where weights of the model move, eval mode where none does."""
    matcher.train()
    if not any(name.startswith("model.") for name in trains):
        matcher.model.eval()


def _free(model: DualEncoder, name: str, locked: str) -> bool:
    return model.tower_of(name) != locked


def _inner(name: str) -> str:
    return name.removeprefix("model.network.")
