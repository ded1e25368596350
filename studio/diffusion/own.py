"""Times and errors from outside, checked once on a small example: a step waits for no check.

Axes: `b` batch, `...` any others.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from studio.catalog import outside
from studio.errors import StudioError
from studio.settings.custom import Custom

GRID = 101
"""Points between 0 and 1 on which times are checked."""


@functools.cache
def own_times(custom: Custom) -> Callable[[Tensor], Tensor]:
    """(u (b), uniform in [0, 1)) -> times (b) in [0, 1].

    Raises:
        StudioError: It is not there, or gave something else for numbers from 0 to 1.
    """
    found = outside.made(custom, what="Times", field="times")
    given = found(torch.linspace(0, 1, GRID)[:-1])
    _require_shape("Times", custom, given, (GRID - 1,))
    low, high = float(given.min()), float(given.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise StudioError(
            f"Times {custom.path!r} gave times from {low:g} to {high:g}; they must lie in [0, 1].",
            field="times.path",
        )
    return found


@functools.cache
def own_error(custom: Custom) -> Callable[[Tensor, Tensor], Tensor]:
    """(prediction (b ...), target (b ...)) -> errors (b ...).

    Raises:
        StudioError: It is not there, gave something else for small numbers, or has no gradient.
    """
    found = outside.made(custom, what="Error", field="error")
    numbers = torch.linspace(-1, 1, 2 * 4 * 8 * 8).reshape(2, 4, 8, 8)
    with torch.enable_grad():
        given = found(numbers.requires_grad_(), numbers.detach().flip(0))
    _require_shape("Error", custom, given, (2, 4, 8, 8))
    if not bool(torch.isfinite(given).all()) or not given.requires_grad:
        fault = "has no gradient" if not given.requires_grad else "is not finite"
        raise StudioError(
            f"Error {custom.path!r} {fault} for a prediction from -1 to 1; correct it.", field="error.path"
        )
    return found


def _require_shape(what: str, custom: Custom, given: Any, wanted: tuple[int, ...]) -> None:
    if isinstance(given, Tensor) and given.shape == wanted:
        return
    found = f"the shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
    raise StudioError(
        f"{what} {custom.path!r} gave {found} where {wanted} is needed: one number an element.",
        field=f"{what.lower()}.path",
    )
