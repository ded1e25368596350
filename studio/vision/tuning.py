"""Which weights of a classifier move, and how fast: from settings to groups."""

import logging
from dataclasses import dataclass
from typing import Any, assert_never

from timm.models import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from studio.adapters import build as adapters
from studio.adapters.config import Full
from studio.contracts.trainer import Group
from studio.errors import StudioError
from studio.models import adaptformer
from studio.models.vit import Classifier
from studio.vision.config import Adapted, AdaptFormer, LinearProbe, LpFt, SubTuning, Tuning, Whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """A classifier set up for training.

    Attributes:
        trains: Names of the classifier's parameters that move.
        partial: Whether most weights stay as they are.
    """

    model: Classifier
    trains: frozenset[str]
    layer_decay: float = 1.0
    partial: bool = False

    def groups(self, head_lr_scale: float = 1.0) -> list[Group]:
        """What is optimized, and the running statistics that follow it.

        Biases, norms and what the model says (positions, class token) have no weight decay, as timm has it.
        """
        model, head = self.model, self.model.head_parameters()
        names = {id(value): name for name, value in model.named_parameters()}
        network: Any = model.network
        skipped = network.no_weight_decay() if isinstance(network, VisionTransformer) else ()
        found = param_groups_layer_decay(
            network, weight_decay=1.0, no_weight_decay_list=skipped, layer_decay=self.layer_decay
        )
        groups: list[Group] = []
        for index, part in enumerate(found):
            inside = {names[id(value)] for value in part["params"]}
            decay = None if part["weight_decay"] else 0.0
            for label, chosen, factor in (
                ("body", inside - head, 1.0),
                ("head", inside & head, head_lr_scale),
            ):
                if chosen:
                    scale = part["lr_scale"] * factor
                    groups.append(
                        Group(
                            name=f"{label}-{index}",
                            module=model,
                            names=frozenset(chosen),
                            lr_scale=scale,
                            weight_decay=decay,
                        )
                    )
        statistics = frozenset(
            name for name, _ in network.named_buffers(prefix="network") if "running_" in name
        )
        return groups + [Group(name="statistics", module=model, names=statistics, trains=False)] * bool(
            statistics
        )


def tune(tuning: Tuning, model: Classifier) -> Tuned:
    """Let the weights move that the settings name, freeze the others, and put frozen parts in eval mode.

    Fresh weights come from torch's global generator: call it under a seeded one.
    """
    head = model.head_parameters()
    match tuning:
        case Whole() | LpFt():
            tuned = Tuned(model, _all(model), tuning.layer_decay)
        case LinearProbe():
            tuned = Tuned(model, head, partial=True)
        case AdaptFormer():
            shape = adaptformer.Shape(tuning.bottleneck, tuning.scale, tuning.dropout)
            added = adaptformer.attach(model.network, shape, model.name)
            tuned = Tuned(model, head | {f"network.{name}" for name in added}, partial=True)
        case SubTuning():
            tuned = Tuned(model, head | block_parameters(model, tuning.blocks), partial=True)
        case Adapted():
            added = adapters.attach(tuning.adapter, {"network": model.network})["network"]
            partial = not isinstance(tuning.adapter, Full)
            tuned = Tuned(
                model, model.head_parameters() | {f"network.{name}" for name in added}, partial=partial
            )
        case _:
            assert_never(tuning)
    for name, value in model.named_parameters():
        value.requires_grad_(name in tuned.trains)
    freeze_statistics(model)
    return tuned


def freeze_statistics(model: nn.Module) -> None:
    """Train mode, but frozen norms keep their running statistics."""
    model.train()
    for module in model.modules():
        frozen = not any(value.requires_grad for value in module.parameters())
        if frozen and "running_mean" in dict(module.named_buffers(recurse=False)):
            module.eval()


def blocks_of(model: Classifier) -> list[str]:
    """Names of the model's blocks in order: `network.blocks.0`, or a convolutional network's stages."""
    for stack in ("blocks", "layers", "stages"):
        if stack in dict(model.network.named_children()):
            return [
                f"network.{stack}.{name}" for name, _ in model.network.get_submodule(stack).named_children()
            ]
    found = [f"network.{name}" for name, _ in model.network.named_children() if name.startswith("layer")]
    if not found:
        raise StudioError(
            f"{model.name!r} ({type(model.network).__name__}) has no blocks that could be chosen; use --tuning whole.",
            field="tuning",
        )
    return found


def block_parameters(model: Classifier, blocks: tuple[int, ...]) -> frozenset[str]:
    """Names of the parameters in some blocks.

    Raises:
        StudioError: No blocks are named, or one does not exist.
    """
    found = blocks_of(model)
    if not blocks or max(blocks) >= len(found):
        raise StudioError(
            f"tuning.blocks is {list(blocks)}, but {model.name!r} has blocks 0 to {len(found) - 1}; name some of them "
            "(studio train vit --tuning sub-tuning chooses by itself when none is named).",
            field="tuning.blocks",
        )
    prefixes = tuple(f"{found[index]}." for index in blocks)
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(prefixes))


def warn_if_partial(tuned: Tuned, method: str) -> None:
    """Say that robustness gains are small when most weights are frozen."""
    if tuned.partial:
        log.warning(
            "%s with most weights frozen: expect small gains in robustness; --tuning whole moves all.", method
        )


def _all(model: Classifier) -> frozenset[str]:
    return frozenset(name for name, _ in model.named_parameters())
