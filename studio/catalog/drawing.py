"""What pictures are drawn with where nobody says: the numbers of the model's card, else the studio's own. No torch."""

from studio.catalog.family import Variant

STEPS = 20
"""Sampler steps for models that no card describes, the embedded ones among them."""
GUIDANCE = 4.0
"""Guidance for them, in our scale: 1 is the conditional prediction alone."""


def steps_of(given: int, variant: Variant | None, otherwise: int = STEPS) -> int:
    """Sampler steps: as given, for 0 those of the model's card, else `otherwise`."""
    return given or (variant.steps if variant else otherwise)


def guidance_of(given: float | None, variant: Variant | None, otherwise: float = GUIDANCE) -> float:
    """Guidance: as given, for None that of the model's card, else `otherwise`; 1 is the conditional prediction alone."""
    if given is not None:
        return given
    return variant.guidance if variant else otherwise
