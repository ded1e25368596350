"""The two axes of a compare grid: their names, their values, and a request with one of them set. No torch."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.errors import StudioError, unknown
from studio.settings.sampling import SampleRequest

AXES = (
    "strength",
    "edit strength",
    "guidance",
    "steps",
    "seed",
    "prompt",
    "scheduler",
    "artifact",
    "checkpoint",
)
MAX_CELLS = 64


@dataclass(frozen=True)
class Axis:
    """What changes along one side, and its values as a person wrote them."""

    name: str
    values: tuple[str, ...]


def axes(payload: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """The two axes of a grid; the second may be empty.

    Raises:
        StudioError: An axis is unknown, used twice, or there are too many cells.
    """
    found = [Axis(payload[side]["axis"], tuple(payload[side]["values"]) or ("",)) for side in ("x", "y")]
    for axis in found:
        if axis.name and axis.name not in AXES:
            raise unknown("axis", axis.name, AXES)
    if found[0].name == found[1].name:
        raise StudioError(f"Both axes are {found[0].name!r}; choose two different ones.", field="y")
    cells = len(found[0].values) * len(found[1].values)
    if cells > MAX_CELLS:
        raise StudioError(f"The grid has {cells} cells; {MAX_CELLS} are allowed, so leave some values out.")
    return found[0], found[1]


def changed(request: SampleRequest, axis: str, value: str) -> SampleRequest:
    """A request with one axis set to a value.

    Raises:
        StudioError: The value does not fit the axis.
    """
    if axis in ("", "checkpoint"):
        return request
    if axis == "prompt":
        return dataclasses.replace(request, prompt=(value,))
    try:
        return dataclasses.replace(request, **_settings(request, axis, value))
    except ValueError:
        raise StudioError(
            f"{value!r} is no number, but the axis {axis!r} takes numbers.", field=axis
        ) from None


def _settings(request: SampleRequest, axis: str, value: str) -> dict[str, Any]:
    match axis:
        case "artifact":
            return {"artifact": (value,)}
        case "strength":
            return {"strength": (float(value),)}
        case "edit strength":
            return {"edits": tuple(_edit(text, float(value)) for text in request.edits)}
        case "guidance":
            return {"guidance": float(value)}
        case "scheduler":
            return {"scheduler": value}
        case _:
            return {axis: int(value)}


def _edit(text: str, strength: float) -> str:
    values = json.loads(text) if text.lstrip().startswith("{") else {"kind": text}
    return json.dumps(values | {"strength": strength})
