"""Sizes of memory as people write them. No torch."""

import re

from studio.errors import StudioError

_UNITS = {"gib": 1.0, "gb": 1.0, "g": 1.0, "": 1.0, "mib": 2**-10, "mb": 2**-10}
"""Of cards people say GB and mean GiB."""


CARDS = (8, 12, 16, 24, 32, 48, 80, 141)
"""GiB of GPUs that people have."""


def gib(text: str, field: str) -> float:
    """GiB of `12GiB`, `12` or `800MiB`.

    Raises:
        StudioError: It is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS or float(found[1]) == 0:
        raise StudioError(
            f"--{field} was given as {text!r}; give a size such as 12GiB, 24 or 800MiB.", field=field
        )
    return float(found[1]) * _UNITS[found[2]]


def said(size: float) -> str:
    """A size in GiB as people say it: 512 MiB, 3.5 GiB."""
    return f"{size * 1024:.0f} MiB" if size < 1 else f"{size:.1f} GiB"
