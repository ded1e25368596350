"""Transformers made shallower, so that what a block costs is known from two of them.

A denoiser of a and b equal blocks in its two stacks has, with the unit (a, b) / gcd(a, b), a memory that grows by as much
with every unit: the weights, the gradients and what is kept for the backward pass are the blocks', one by one.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace

import diffusers

from studio.catalog.family import Part

DEPTHS = ("num_layers", "num_single_layers", "n_layers")
"""Settings of diffusers' transformers that count equal blocks."""
_UNEQUAL = ("dual_attention_layers",)
"""Settings by which blocks of one stack differ."""
FEWEST = 2
"""Units that every stack keeps: what one block does beside the first and the last."""


def depths(part: Part) -> Mapping[str, int]:
    """How many blocks each stack of a denoiser has; empty if they are not equal, or there are none to count."""
    if any(part.config.get(name) for name in _UNEQUAL):
        return {}
    accepted = inspect.signature(getattr(diffusers, part.cls)).parameters
    own = {name: part.config.get(name, accepted[name].default) for name in DEPTHS if name in accepted}
    return own if "Transformer" in part.cls else {}


def units(part: Part) -> int:
    """Units that a denoiser has; 0 if it cannot be made shallower."""
    found = depths(part)
    count = math.gcd(*found.values()) if found else 0
    return count if count > FEWEST + 1 else 0


def shallow(part: Part, kept: int) -> Part:
    """The denoiser with so many units; as it is if it cannot be made shallower."""
    whole = units(part)
    if not whole:
        return part
    return replace(part, config={**part.config, **{n: d // whole * kept for n, d in depths(part).items()}})
