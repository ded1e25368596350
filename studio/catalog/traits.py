"""The traits of a run's model, told by its name, folder, file or run before anything of it is loaded. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import assets
from studio.catalog.component_settings import values
from studio.catalog.family import Variant
from studio.catalog.recognize import Known, recognize
from studio.catalog.run_folder import started_from
from studio.catalog.suits import Traits
from studio.settings import serial
from studio.settings.sampling import Parts

_WHOLE = ("full", "whole", "lp-ft")
_ADAPTED = ("adapted", "adapt-former")
_NETWORKS = {
    "vit": ("vit_", "deit", "beit", "eva", "flexivit", "naflexvit", "samvit", "swin", "maxvit", "hiera"),
    "convnet": ("resnet", "resnext", "wide_resnet", "convnext", "efficientnet", "tf_efficientnet", "mobilenet",
                "regnet", "densenet", "vgg", "nfnet"),
}  # fmt: skip
"""Starts of timm's names (in lower case) of the two kinds of networks."""
_KINDS = {"vit": "vision transformer", "convnet": "convolutional network"}


def traits_of(model: str, chosen: frozenset[str] = frozenset(), parts: Parts = Parts()) -> Traits:
    """What is known of a model.

    Args:
        model: As given to `--model`; a run stands for the model that it started from.
        chosen: See `choices`.
        parts: What a person said of the model.

    Raises:
        StudioError: The model has no such variant.
    """
    name = started_from(model)
    bare = name.removeprefix("new:")
    known = recognize(bare).told(parts)
    small = known.small or bare.startswith(("tiny:", "small:")) or assets.exists(f"models/{bare}")
    network = "" if known.card else _network(bare)
    card, variant = known.card, known.variant
    return Traits(
        name=name,
        told=_told(bare, known, small=small, network=network),
        small=small,
        fresh=name != bare,
        family=card.name if card else "",
        process=card.process if card else "",
        network=network,
        distilled=bool(variant and variant.distilled),
        billions=variant.weights / 1e9 if variant else 0.0,
        chosen=chosen,
    )


def variant_of(model: str, parts: Parts = Parts()) -> Variant | None:
    """The published model that a model is or was made from, as far as that can be told.

    Raises:
        StudioError: It has no such variant as was said.
    """
    return recognize(started_from(model).removeprefix("new:")).told(parts).variant


def choices(config: type, own: Mapping[str, Any]) -> frozenset[str]:
    """What a method's settings choose: the kind of each choice, and adapter or whole where weights move.

    Args:
        config: The method's settings class.
        own: Plain values of its settings that are given; the others have their defaults.
    """
    found: set[str] = set()
    for name, annotation in serial.hints(config).items():
        if allowed := serial.members(annotation):
            kind = _kind(own.get(name), serial.default_of(config, name), allowed)
            found |= {kind} if len(allowed) > 1 else set()
            if kind in _WHOLE:
                found.add("whole")
            elif name == "adapter" or kind in _ADAPTED:
                found.add("adapter")
    return frozenset(found)


def _kind(given: Any, default: Any, allowed: tuple[type, ...]) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping) and "kind" in given:
        return str(given["kind"])
    return serial.kind(type(default) if type(default) in allowed else allowed[0])


def _network(name: str) -> str:
    """The kind of a classifier by timm's name, or by that in an exported folder."""
    architecture = values(Path(name).expanduser() / "config.json").get("architecture", "")
    word = str(architecture or name).removeprefix("timm/").lower()
    return next((kind for kind, starts in _NETWORKS.items() if word.startswith(starts)), "")


def _told(name: str, known: Known, *, small: bool, network: str) -> str:
    """What a model is, in words."""
    if small:
        return f"{name} is a small model of this project"
    if network:
        return f"{name} is a {_KINDS[network]}"
    if known.card is None:
        return ""
    card, variant = known.card, known.variant
    number = f"{variant.weights / 1e9:.1f}B " if variant and variant.weights else ""
    process = {"flow": "flow-matching", "discrete": "noise-predicting"}[card.process]
    what = f"{number}{process} {'U-Net' if card.denoiser == 'unet' else 'transformer'}"
    what = f"{'an' if what.startswith(('8', '11.', '18.')) else 'a'} {what}"
    title = variant.title if variant else f"a model of the family {card.title}"
    if known.kind == "published":
        return f"{title} is {what}"
    return f"{name} is {title}, {what}"
